"""Base images made of a distribution's packages, where no registry can be reached.

mmdebstrap does the work, in mount and PID namespaces of its own that end with it: whatever happens, nothing of it is
left. Only administrators bootstrap: the packages' scripts run as the host's root. What they make is published to all.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import attrs
import trio

from supervisor.access.identity import Identity
from supervisor.errors import Internal, InvalidArgument, NotFound, PermissionDenied, Unavailable
from supervisor.linux.spawner import Command, Process, Spawner
from supervisor.oci import image as oci
from supervisor.oci.reference import Reference
from supervisor.store.compression import Span
from supervisor.store.image_records import SHARED, Image
from supervisor.store.images import resolve_in, wanted_name
from supervisor.store.transfer import Transfer
from supervisor.tasks import in_thread

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
SUITE = re.compile(r"[a-z][a-z-]{1,30}")
LINES_TOLD_MAX = 15
LINE_BYTES_MAX = 4_096
PASSED_ON = ("http_proxy", "https_proxy", "no_proxy", "SOURCE_DATE_EPOCH")
LEFT_OUT = ("/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*", "/usr/share/info/*")

Progress = Callable[[str], Awaitable[None]]


@attrs.frozen
class Distribution:
    """Where a distribution's packages come from, and how they are known to be its own."""

    keyring: Path
    mirror: str
    releases: dict[str, str]


DISTRIBUTIONS = {
    "debian": Distribution(
        Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
        "http://deb.debian.org/debian",
        {"11": "bullseye", "12": "bookworm", "13": "trixie", "latest": "stable"},
    ),
    "ubuntu": Distribution(
        Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg"),
        "http://archive.ubuntu.com/ubuntu",
        {"22.04": "jammy", "24.04": "noble", "latest": "noble"},
    ),
}


@attrs.frozen
class Bootstrap:
    """Makes base images for one store."""

    spawner: Spawner
    transfer: Transfer

    async def bootstrap(
        self,
        identity: Identity,
        reference: str,
        include: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> Image:
        """Make the image that ``reference`` names (``debian:bookworm``) and publish it; one that is published is kept.

        Args:
            identity: An administrator.
            reference: Distribution and suite.
            include: Packages beside the essential ones.
            progress: Told each line the tool prints.

        Raises:
            PermissionDenied: They are no administrator.
            InvalidArgument: No such distribution, or what is included is no package's name.
            Unavailable: The tool or the distribution's keys are not installed, or its mirror cannot be reached.
        """
        if not identity.admin:
            raise PermissionDenied(
                f"cannot bootstrap {reference}: only administrators do",
                hint="ask one for it; it is then shared with everybody",
            )
        name = wanted_name(reference)
        distribution, suite = _distribution(name)
        faulty = [package for package in include if not PACKAGE.fullmatch(package)]
        if faulty:
            message = f"cannot bootstrap {reference}: {', '.join(faulty):.200} is no package's name"
            raise InvalidArgument(message)
        known = await self.transfer.images.database.read(lambda c: _published(c, name))
        if known is not None:
            return known
        image = await self._make(identity, name, _command(distribution, suite, include), progress)
        return await self.transfer.images.publish(identity, image.id, name.familiar, keep_own=False)

    async def _make(
        self,
        identity: Identity,
        name: Reference,
        argv: tuple[str, ...],
        progress: Progress | None,
    ) -> Image:
        flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
        descriptor = os.open(self.transfer.spool.directory, flags, 0o600)
        try:
            async with self.transfer.layers.place() as scratch:
                await self._run(name, argv, scratch, descriptor, progress)
            execution = oci.Execution(env=(f"PATH={PATH}",), cmd=("bash",))
            comment = f"bootstrapped from the packages of {name.familiar_repository} {name.tag}"
            span = Span(descriptor)
            return await self.transfer.import_span(identity, span, None, execution, comment)
        finally:
            os.close(descriptor)

    async def _run(
        self,
        name: Reference,
        argv: tuple[str, ...],
        scratch: Path,
        output: int,
        progress: Progress | None,
    ) -> None:
        """Run the tool, its tar going to ``output``.

        Raises:
            Unavailable: It is not installed.
            Internal: It failed; the message has its last lines.
        """
        env = {key: value for key in PASSED_ON if (value := os.environ.get(key))}
        env |= {"PATH": PATH, "TMPDIR": str(scratch), "LC_ALL": "C", "HOME": "/root"}
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        lines: deque[str] = deque(maxlen=LINES_TOLD_MAX)
        async with trio.lowlevel.FdStream(read_end) as told:
            try:
                process = await self._start(argv, env, output, write_end)
            finally:
                os.close(write_end)
            async with process:
                async with aclosing(_lines(told)) as printed:
                    async for line in printed:
                        lines.append(line)
                        if progress is not None:
                            await progress(line)
                code = await process.wait()
        if code != 0:
            raise Internal(
                f"cannot bootstrap {name.familiar}: the tool ended with {code}:\n"
                + "\n".join(lines),
                hint="is there such a suite, and can this host reach the distribution's mirror?",
            )

    async def _start(
        self, argv: tuple[str, ...], env: dict[str, str], output: int, errors: int
    ) -> Process:
        isolated = (
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
            *argv,
        )
        command = Command(
            isolated,
            env=env,
            stdout=output,
            stderr=errors,
            host_mounts=True,
            dies_with_daemon=True,
        )
        if not await in_thread(lambda: Path("/usr/bin/mmdebstrap").exists()):
            raise Unavailable(
                "cannot bootstrap: mmdebstrap is not installed", hint="apt install mmdebstrap"
            )
        try:
            return await self.spawner.spawn(command)
        except OSError as error:
            message = f"cannot bootstrap: unshare cannot be started: {error.strerror}"
            raise Unavailable(message, hint="apt install util-linux") from error


def _distribution(name: Reference) -> tuple[Distribution, str]:
    """The distribution and the suite that a name means.

    Raises:
        InvalidArgument: It means none.
        Unavailable: Its keys are not installed.
    """
    kind = name.familiar_repository
    distribution = DISTRIBUTIONS.get(kind)
    if distribution is None:
        raise InvalidArgument(
            f"cannot bootstrap {name.familiar}: not one of {', '.join(sorted(DISTRIBUTIONS))}",
            hint="for example: bakehouse image bootstrap debian:bookworm",
        )
    suite = distribution.releases.get(name.tag, name.tag)
    if not SUITE.fullmatch(suite):
        message = f"cannot bootstrap {name.familiar}: {name.tag!r} is no suite of {kind}"
        raise InvalidArgument(message)
    if not distribution.keyring.exists():
        raise Unavailable(
            f"cannot bootstrap {name.familiar}: the keys of {kind} are not installed",
            hint=f"apt install {distribution.keyring.stem}",
        )
    return distribution, suite


def _command(distribution: Distribution, suite: str, include: Sequence[str]) -> tuple[str, ...]:
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT]
    options.append("--dpkgopt=path-include=/usr/share/doc/*/copyright")
    if include:
        options.append(f"--include={','.join(include)}")
    mirror = _hosts_mirror(distribution.mirror.rpartition("/")[2]) or distribution.mirror
    # Without a mirror the tool takes the usual one, and with it updates and security fixes.
    named = [mirror] if mirror != distribution.mirror or "ubuntu" in mirror else []
    return (
        "mmdebstrap",
        "--mode=root",
        "--variant=minbase",
        "--format=tar",
        f"--keyring={distribution.keyring}",
        *options,
        suite,
        "-",
        *named,
    )


def _hosts_mirror(ending: str) -> str:
    """The mirror this host itself uses for the distribution, if it does; it may be one within the house."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.*"))]
    for file in files:
        text = file.read_text(errors="replace") if file.is_file() else ""
        found = re.search(
            rf"^(?:deb|URIs:).*?(https?://\S+/{ending})/?(?:\s|$)", text, re.MULTILINE
        )
        if found:
            return found.group(1)
    return ""


def _published(connection: sqlite3.Connection, name: Reference) -> Image | None:
    try:
        return resolve_in(connection, (SHARED, SHARED), name.familiar)
    except NotFound:
        return None


async def _lines(stream: trio.abc.ReceiveStream) -> AsyncGenerator[str, None]:
    rest = b""
    async for data in stream:
        *whole, rest = (rest + data).split(b"\n")
        rest = rest[-LINE_BYTES_MAX:]
        for line in whole:
            yield line.decode(errors="replace")
    if rest:
        yield rest.decode(errors="replace")

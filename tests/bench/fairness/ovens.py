"""The engines, as two people use them: H and Q. On ours each is an account of their own; dockerd knows no people."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import attrs

from tests.bench import engines
from tests.support.accounts import User, people
from tests.support.daemon import Daemon, new_daemon

CGROUPS = Path("/sys/fs/cgroup")
COMMAND_SECONDS = 300


@attrs.frozen
class Oven:
    """One engine under measurement.

    Attributes:
        name: As it is printed.
        socket: Where it listens.
        daemon: Ours, if it is ours.
        accounts: Who H and Q are on the host; nobody but root where the engine knows no people.
    """

    name: str
    socket: Path
    daemon: Daemon | None = None
    accounts: Mapping[str, User] = attrs.field(factory=dict)

    def able(self, needs: frozenset[str]) -> bool:
        """Whether it has what a load needs."""
        return not needs or self.daemon is not None

    def start(self, who: str, *words: str) -> subprocess.Popen[bytes]:
        """The docker command as H or Q, begun; its output goes nowhere."""
        user = self.accounts.get(who)
        return subprocess.Popen(
            ["docker", *words],
            env=self._environment(user),
            cwd="/",
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=user.groups if user else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def docker(self, who: str, *words: str, input_: bytes = b"") -> str:
        """The docker command as H or Q, to its end; what it said."""
        user = self.accounts.get(who)
        done = subprocess.run(
            ["docker", *words],
            env=self._environment(user),
            cwd="/",
            input=input_,
            capture_output=True,
            check=False,
            timeout=COMMAND_SECONDS,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=user.groups if user else None,
        )
        if done.returncode:
            message = f"docker {' '.join(words)} ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
            raise RuntimeError(message)
        return done.stdout.decode(errors="replace")

    def cgroup(self, who: str, container: str) -> Path:
        """Where the kernel counts the processors' time of a container."""
        pid = self.docker(who, "inspect", "-f", "{{.State.Pid}}", container).strip()
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if "cpuacct" in controllers.split(","):
                return CGROUPS / "cpuacct" / path.lstrip("/")
            if not controllers and not (CGROUPS / "cpuacct").is_dir():
                return CGROUPS / path.lstrip("/")
        message = f"no cgroup of {container} counts the processors' time"
        raise RuntimeError(message)

    def clear(self, who: str) -> None:
        """Nothing of this person's runs any more."""
        if ids := self.docker(who, "ps", "-aq").split():
            self.docker(who, "rm", "-f", "-v", *ids)

    def _environment(self, user: User | None) -> Mapping[str, str]:
        home = str(user.home) if user else "/root"
        return {
            **os.environ,
            "HOME": home,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_BUILDKIT": "0",
        }


@contextlib.contextmanager
def bakehouse() -> Iterator[Oven]:
    """Our daemon, and two members of its group."""
    with people() as made:
        daemon = new_daemon(made.group)
        try:
            daemon.start()
            daemon.import_busybox()
            daemon.bakehouse("image", "publish", "busybox:latest")
            yield Oven("bakehouse", daemon.socket, daemon, {"H": made.ada, "Q": made.bob})
            left = daemon.close()
            assert not left, left
        finally:
            daemon.clear()


@contextlib.contextmanager
def dockerd() -> Iterator[Oven]:
    """dockerd, as its package comes."""
    with engines.dockerd() as engine:
        yield Oven("dockerd", engine.socket)


OVENS: Mapping[str, Callable[[], AbstractContextManager[Oven]]] = {
    "bakehouse": bakehouse,
    "dockerd": dockerd,
}


def cpu_ns(cgroup: Path) -> int:
    """Processor time a group has used, on either version."""
    try:
        return int((cgroup / "cpuacct.usage").read_text())
    except FileNotFoundError:
        words = (cgroup / "cpu.stat").read_text().split()
        return int(words[words.index("usage_usec") + 1]) * 1_000

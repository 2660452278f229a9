"""Images and working directories made to lead out of a container while it is put together (attacks.md 2, 3, 4, 8)."""

from __future__ import annotations

import io
import os
import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest

from tests.support.accounts import People
from tests.support.archives import docker_archive
from tests.support.daemon import Daemon, busybox_tar

pytestmark = [pytest.mark.root, pytest.mark.slow]

DIRECTORY = "/"
"""Stands for an empty directory where the other values are a link's target."""

ESCAPED = "bh-escaped"


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    daemon.import_busybox(user=two_users.ada)
    return daemon


@attrs.frozen
class Host:
    """What of the host a container could have changed or shown."""

    core_pattern: str
    temporary: frozenset[str]
    mounts: tuple[str, ...]

    @classmethod
    def now(cls, daemon: Daemon) -> Host:
        return cls(
            Path("/proc/sys/kernel/core_pattern").read_text(),
            frozenset(name for name in os.listdir("/tmp") if ESCAPED in name),
            tuple(
                line
                for line in Path("/proc/self/mountinfo").read_text().splitlines()
                if str(daemon.root) in line or ESCAPED in line
            ),
        )


def image_with(replaced: Mapping[str, str | bytes]) -> bytes:
    """Busybox with some paths replaced: by links to a text, by files of bytes, or by empty directories."""
    data = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(busybox_tar())) as source,
        tarfile.open(fileobj=data, mode="w") as tar,
    ):
        for member in source.getmembers():
            if not any(f"{member.name}/".startswith(f"{name}/") for name in replaced):
                tar.addfile(member, source.extractfile(member) if member.isreg() else None)
        for name, value in replaced.items():
            info = tarfile.TarInfo(name)
            info.mode = 0o755
            if isinstance(value, bytes):
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
                continue
            info.type = tarfile.DIRTYPE if value == DIRECTORY else tarfile.SYMTYPE
            info.linkname = "" if value == DIRECTORY else value
            tar.addfile(info)
    return data.getvalue()


TOPS = ("dev", "proc", "sys", "etc", "run", "var")
FILES = ("hosts", "resolv.conf", "hostname", "passwd", "group")
INNER = (
    *("proc/kcore", "proc/sys", "proc/self", "proc/timer_list", "sys/firmware", "sys/fs"),
    *("dev/null", "dev/pts", "dev/shm", "dev/console", "dev/mqueue", "dev/ptmx"),
)
PATTERN = "/proc/sys/kernel/core_pattern"


def inner(value: str | bytes) -> dict[str, str | bytes]:
    return {"dev": DIRECTORY, "proc": DIRECTORY, "sys": DIRECTORY, **dict.fromkeys(INNER, value)}


def etc(value: str | bytes) -> dict[str, str | bytes]:
    return {f"etc/{name}": value for name in FILES}


LOOK = """
set -e
for place in '/ overlay' '/proc proc' '/dev tmpfs' '/dev/pts devpts' '/dev/shm tmpfs' '/sys sysfs'; do
  set -- $place
  grep -q "^[^ ]* $1 $2 " /proc/mounts || { echo "no $2 at $1"; exit 3; }
done
grep -q "^proc /proc/sys proc ro," /proc/mounts || { echo "/proc/sys can be written"; exit 3; }
[ -c /dev/null ] && [ "$(stat -c %t:%T /dev/null)" = 1:3 ] || { echo "/dev/null is none"; exit 3; }
[ ! -s /proc/timer_list ] || { echo "timer_list is told"; exit 3; }
[ "$(readlink /proc/self)" = $$ ] || [ -d /proc/1/fd ] || { echo "not the processes"; exit 3; }
for file in hosts hostname resolv.conf; do [ -f /etc/$file ] && [ ! -L /etc/$file ]; done
[ "$(head -c 9 /etc/hosts)" = 127.0.0.1 ] || { echo "foreign /etc/hosts"; exit 3; }
! grep -q '^root:[*!$]' /etc/passwd || { echo "shadow is shown"; exit 3; }
echo x 2>/dev/null >/proc/sys/kernel/core_pattern && exit 3
echo held
"""


@pytest.mark.parametrize(
    "replaced",
    [
        pytest.param(dict.fromkeys(TOPS, "/tmp"), id="tops are links"),
        pytest.param(
            dict.fromkeys(TOPS, f"../../../../../../tmp/{ESCAPED}"), id="tops are links out"
        ),
        pytest.param(dict.fromkeys(TOPS, "/proc/self/fd/3"), id="tops are links of proc"),
        pytest.param({name: f"/{name}" for name in TOPS}, id="tops are loops"),
        pytest.param(dict.fromkeys(TOPS, b"file"), id="tops are files"),
        pytest.param(etc(f"/tmp/{ESCAPED}"), id="files of etc are links"),
        pytest.param(etc("../../../../../etc/shadow"), id="files of etc are links out"),
        pytest.param(etc(PATTERN), id="files of etc are links of proc"),
        pytest.param(etc(DIRECTORY), id="files of etc are directories"),
        pytest.param(inner(PATTERN), id="masked paths are links"),
        pytest.param(inner(b"file"), id="masked paths are files"),
        pytest.param(inner(DIRECTORY), id="masked paths are directories"),
    ],
)
def test_an_image_cannot_move_what_is_put_over_it(
    ready: Daemon, two_users: People, replaced: Mapping[str, str | bytes]
) -> None:
    before = Host.now(ready)
    ready.docker("import", "-", "evil", user=two_users.ada, input_=image_with(replaced))
    ready.docker("import", "-", "evil", input_=image_with(replaced))
    for user in (two_users.ada, None):  # with a user namespace, and an administrator's without
        ran = ready.docker("run", "--rm", "evil", "/bin/sh", "-c", LOOK, user=user, check=False)
        assert (ran.returncode, ran.stdout) == (0, "held\n"), ran
    assert Host.now(ready) == before


@pytest.mark.parametrize("where", ["dev", "proc", "proc/sys", "sys", "proc/self", "dev/pts", "etc"])
def test_a_volume_over_what_is_the_kernels_changes_nothing_on_the_host(
    ready: Daemon, two_users: People, where: str
) -> None:
    """What the image has there would be copied into the volume: links to what the runtime writes and masks."""
    before = Host.now(ready)
    evil = docker_archive([image_with(inner(PATTERN))], tags=["evil:latest"], volumes=[f"/{where}"])
    write = "for f in /dev/null /proc/timer_list /proc/sys/kernel/core_pattern; do echo escaped >$f; done"
    for user in (two_users.ada, None):
        ready.docker("load", user=user, input_=evil)
        ready.docker("run", "--rm", "evil", "/bin/sh", "-c", write, user=user, check=False)
    assert Host.now(ready) == before
    assert ready.docker("run", "--rm", "busybox", "echo", "on", user=two_users.ada).stdout == "on\n"


@pytest.mark.parametrize("volume", ["../../x", "/../../etc", "/a/../../x", "..", "/"])
def test_a_volume_that_climbs_is_refused(ready: Daemon, two_users: People, volume: str) -> None:
    evil = docker_archive([image_with({})], tags=["climber:latest"], volumes=[volume])
    loaded = ready.docker("load", user=two_users.ada, input_=evil, check=False)
    assert loaded.returncode != 0
    assert volume in loaded.stderr
    change = f'VOLUME ["{volume}"]'
    imported = ready.docker(
        "import",
        "-c",
        change,
        "-",
        "climber",
        user=two_users.ada,
        input_=image_with({}),
        check=False,
    )
    assert imported.returncode != 0
    assert "climber" not in ready.docker("images", user=two_users.ada).stdout


def test_a_mount_through_a_link_stays_in_the_image(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    links = {"up": "../../../../../../tmp", "fd": "/proc/self/fd/5", "one": "/proc/1/root/tmp"}
    ready.docker("import", "-", "links", user=ada, input_=image_with(links))
    before = Host.now(ready)
    for target in (f"/up/{ESCAPED}", "/fd", f"/fd/{ESCAPED}", f"/one/{ESCAPED}"):
        for kind in ("type=tmpfs", "type=volume", f"type=bind,source={ada.home}"):
            script = f"touch {target}/{ESCAPED} && mount | grep -c ' on /tmp/{ESCAPED} '"
            mount = f"{kind},target={target}"
            words = ("run", "--rm", "--mount", mount, "links", "sh", "-c", script)
            ran = ready.docker(*words, user=ada, check=False)
            assert ran.stdout == "1\n" if target.startswith("/up") else ran.returncode, ran
            assert Host.now(ready) == before


WHERE = "pwd; ls -a; cat ../../../../../../etc/shadow"


@pytest.mark.parametrize("number", [0, 3, 5, 7, 12])
def test_no_working_directory_of_an_open_file(
    ready: Daemon, two_users: People, number: int
) -> None:
    """CVE-2024-21626: a directory that a runtime has open by chance is outside the container."""
    ada, path = two_users.ada, f"/proc/self/fd/{number}"
    ready.docker("import", "-c", "WORKDIR /w", "-", "cwd", user=ada, input_=image_with({"w": path}))
    ready.docker("run", "-d", "--name", "cwd", "-w", "/", "cwd", "sleep", "60", user=ada)
    try:
        for words in (
            ("run", "--rm", "-w", path, "busybox", "sh", "-c", WHERE),
            ("run", "--rm", "cwd", "sh", "-c", WHERE),
            ("exec", "-w", path, "cwd", "sh", "-c", WHERE),
            ("exec", "cwd", "sh", "-c", WHERE),
            ("exec", "-w", "/w/../../..", "cwd", "sh", "-c", WHERE),
        ):
            ran = ready.docker(*words, user=ada, check=False)
            assert "root:" not in ran.stdout
            inside = ran.stdout.startswith("/\n") and ".dockerenv" in ran.stdout
            assert inside or (ran.returncode in {125, 126} and not ran.stdout), ran
    finally:
        ready.docker("rm", "-f", "cwd", user=ada)


AUDIT = ("ls", "-l", "/proc/self/fd", "/proc/1/fd")
HELD = re.compile(r" [012] -> (/dev/null|/dev/pts/\d+|pipe:\[\d+\])$| 3( -> /proc/\d+/fd)?$")
"""Standard streams, and the directory that ``ls`` itself reads."""


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_of_the_daemons_is_left_open_in_a_container(
    ready: Daemon, two_users: People, terminal: bool
) -> None:
    ada, flags = two_users.ada, ("-t",) if terminal else ()
    ready.docker("run", "-d", *flags, "--name", "audit", "busybox", "sleep", "60", user=ada)
    try:
        told = [
            ready.docker("exec", *options, "audit", *AUDIT, user=ada, check=False)
            for options in ((), ("-i",), ("-u", "33"), ("--workdir", "/tmp"))
        ]
        told.append(ready.docker("run", "--rm", *flags, "busybox", *AUDIT, user=ada, check=False))
        lines = [line.strip() for one in told for line in one.stdout.splitlines()]
        held = [line for line in lines if line.startswith(("lr", "l-"))]
        assert len(held) >= 4 * len(told)
        assert not [line for line in held if not HELD.search(line)]
        pid = ready.docker("inspect", "--format", "{{.State.Pid}}", "audit", user=ada).stdout
        assert sorted(os.listdir(f"/proc/{pid.strip()}/fd")) == ["0", "1", "2"]
    finally:
        ready.docker("rm", "-f", "audit", user=ada)


OVERWRITE = """#!/bin/busybox sh
exec 3</proc/self/exe 2>/dev/null
for pid in /proc/[0-9]*; do
  case "$(readlink $pid/exe)" in *crun*|*runc*|*conmon*|*python*) ;; *) continue;; esac
  echo "seen $pid"
  echo broken >$pid/exe && echo overwritten
done
"""


def test_the_runtime_is_not_overwritten_through_proc(ready: Daemon, two_users: People) -> None:
    """CVE-2019-5736: what the container's root can open of the process that comes in to start an exec."""
    ada = two_users.ada
    runtimes = [Path(f"/usr/bin/{name}") for name in ("crun", "runc", "conmon")]
    before = [
        (path, path.stat().st_mtime_ns, path.stat().st_size) for path in runtimes if path.exists()
    ]
    hostile = image_with({"evil": b"#!/proc/self/exe\n", "loop.sh": OVERWRITE.encode()})
    ready.docker("import", "-", "overwrite", user=ada, input_=hostile)
    ready.docker("import", "-", "overwrite", input_=hostile)
    forever = "while :; do sh /loop.sh; done"
    for user in (ada, None):
        run = ("run", "-d", "--name", "overwrite", "overwrite", "sh", "-c", forever)
        ready.docker(*run, user=user)
        try:
            for _ in range(4):
                ready.docker("exec", "overwrite", "/evil", user=user, check=False)
                ready.docker("exec", "overwrite", "/bin/true", user=user)
            assert "overwritten" not in ready.docker("logs", "overwrite", user=user).stdout
        finally:
            ready.docker("rm", "-f", "overwrite", user=user)
    ready.docker("run", "--rm", "overwrite", "/evil", user=ada, check=False)
    assert before == [(path, path.stat().st_mtime_ns, path.stat().st_size) for path, *_ in before]

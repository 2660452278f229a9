"""The host's people around a container's root file system, and a container's root looking out (attacks.md 19, 20)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.support.accounts import People, User, as_user
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

SECRET = "the-recipe"


@attrs.frozen
class Oven:
    """A running container of Ada's with a secret and a setuid shell in it; the processes that serve it."""

    daemon: Daemon
    id: str
    pid: int
    monitor: int


@pytest.fixture(scope="module")
def oven(daemon: Daemon, two_users: People) -> Iterator[Oven]:
    ada = two_users.ada
    daemon.import_busybox(user=ada)
    script = (
        f"echo {SECRET} >/secret; cp /bin/busybox /suid; chown 33:33 /suid; chmod 6755 /suid;"
        " mkdir /open; chmod 777 /open; exec sleep 600"
    )
    run = ("run", "-d", "--name", "oven", "-v", "oven:/v", "-e", f"S={SECRET}", "busybox")
    made = daemon.docker(*run, "sh", "-c", script, user=ada).stdout.strip()
    ask = ("inspect", "--format", "{{.State.Pid}}", made)
    pid = int(daemon.docker(*ask, user=ada).stdout)
    status = Path(f"/proc/{pid}/status").read_text()
    monitor = int(next(line for line in status.splitlines() if line.startswith("PPid")).split()[1])
    daemon.docker("exec", "oven", "touch", f"/v/{SECRET}", user=ada)
    yield Oven(daemon, made, pid, monitor)
    daemon.docker("rm", "-f", "-v", "oven", user=ada, check=False)


@pytest.fixture(params=["the owner", "another", "a stranger", "nobody"])
def person(request: pytest.FixtureRequest, two_users: People) -> User:
    """Whoever has a shell on the host, the container's owner among them."""
    nobody = User("nobody", 65_534, 65_534, (), Path("/"))
    people = dict(
        zip(
            ("the owner", "another", "a stranger", "nobody"),
            (two_users.ada, two_users.bob, two_users.eve, nobody),
            strict=True,
        )
    )
    return people[request.param]


def test_no_process_is_a_door(oven: Oven, person: User) -> None:
    """Not the container's, not its monitor's, not the daemon's nor its helper's."""
    assert oven.daemon.process is not None
    daemon = oven.daemon.process.pid
    helpers = Path(f"/proc/{daemon}/task/{daemon}/children").read_text().split()
    assert helpers
    for pid in (oven.pid, oven.monitor, daemon, *helpers):
        for path in ("root/", "cwd/", "exe", "fd/0", "environ", "mem", "maps", "ns/mnt", "ns/user"):
            assert not as_user(person, "cat", f"/proc/{pid}/{path}").stdout, (pid, path)
            assert as_user(person, "ls", f"/proc/{pid}/{path}.").returncode
        looked = as_user(person, "ls", f"/proc/{pid}/root/", f"/proc/{pid}/cwd/")
        assert looked.returncode
        assert not looked.stdout
        for kinds in (("-m",), ("-U", "-m"), ("-U", "-m", "-p", "-n")):
            entered = as_user(person, "nsenter", "-t", str(pid), *kinds, "cat", "/secret")
            assert entered.returncode
            assert SECRET not in entered.stdout


def test_no_path_leads_in(oven: Oven, person: User) -> None:
    roots = (str(oven.daemon.data_root), str(oven.daemon.run_root))
    found = as_user(person, "find", *roots, "-name", "secret*", "-o", "-perm", "-4000")
    assert not found.stdout
    # Who knows the names gets no further than who has to look for them.
    names = [
        os.path.join(path, name)
        for root in roots
        for path, directories, files in os.walk(root)
        for name in (*directories, *files)
    ]
    data = [name for name in names if name.startswith(roots[0])]
    assert any(name.endswith("/secret") for name in data)
    for start in range(0, len(data), 500):
        reached = as_user(person, "stat", "-c", "%n", *data[start : start + 500])
        assert not reached.stdout
    run = [name for name in names if name.startswith(roots[1])]
    listed = as_user(person, "grep", "-rsl", SECRET, *roots, *run[:2_000])
    assert not listed.stdout
    pins = as_user(person, "nsenter", f"--mount={roots[1]}/pins/mnt", "true")
    assert pins.returncode


def test_the_host_has_no_mount_of_it(oven: Oven) -> None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if str(oven.daemon.root) in line:
            assert " overlay " not in line
            assert oven.id not in line
    for place in (oven.daemon.run_root / "rootfs").rglob("*"):
        assert place.name not in {"secret", "suid", "bin"}


def test_a_monitor_and_another_persons_container_cannot_be_signalled(
    oven: Oven, person: User, two_users: People
) -> None:
    pids = [oven.monitor] if person == two_users.ada else [oven.monitor, oven.pid]
    for pid in pids:
        assert as_user(person, "sh", "-c", f"kill -0 {pid}").returncode
        assert as_user(person, "sh", "-c", f"kill -9 {pid}").returncode
    assert Path(f"/proc/{oven.pid}").exists()


LOOK_OUT = """
[ "$(ls -d /proc/[0-9]* | wc -l)" -lt 8 ] || echo "sees the host's processes"
kill -9 -1 2>/dev/null
kill -0 {outside} 2>/dev/null && echo "reaches a host's pid"
ls /proc/{outside}/root 2>/dev/null && echo "enters a host's process"
cat /proc/kcore /dev/kmsg /dev/mem 2>/dev/null | head -c 1 | grep -q . && echo "reads the kernel's memory"
(echo x >/proc/sys/kernel/core_pattern) 2>/dev/null && echo "writes core_pattern"
(echo x >/proc/sysrq-trigger) 2>/dev/null && echo "writes sysrq"
(echo x >/sys/kernel/uevent_helper) 2>/dev/null && echo "writes sysfs"
mount -t tmpfs tmpfs /open 2>/dev/null && echo "mounts"
mount --bind / /open 2>/dev/null && echo "binds"
mknod /open/disk b 254 0 2>/dev/null && (head -c 1 /open/disk >/dev/null) 2>/dev/null && echo "reads a disk"
mknod /open/null c 1 3 2>/dev/null && (echo x >/open/null) 2>/dev/null && [ -c /open/null ] && echo "uses a device"
hostname elsewhere 2>/dev/null && echo "renames the host"
chroot / true || echo "no chroot"
echo 1 2>/dev/null >/proc/1/oom_score_adj; (echo -1000 >/proc/self/oom_score_adj) 2>/dev/null && echo "escapes the OOM killer"
echo done
"""


def test_root_inside_is_nobody_outside(oven: Oven, two_users: People) -> None:
    bystander = subprocess.Popen(
        ["sleep", "60"], user=two_users.bob.uid, group=two_users.bob.gid, extra_groups=[]
    )
    own = subprocess.Popen(
        ["sleep", "60"], user=two_users.ada.uid, group=two_users.ada.gid, extra_groups=[]
    )
    try:
        look = LOOK_OUT.format(outside=bystander.pid)
        run = ("run", "--rm", "busybox", "sh", "-c", f"mkdir /open;{look}")
        told = oven.daemon.docker(*run, user=two_users.ada, check=False)
        assert told.stdout == "done\n", told
        assert bystander.poll() is None
        assert own.poll() is None, "of the same uid, outside"
    finally:
        for process in (bystander, own):
            process.kill()
            process.wait()


def test_a_setuid_file_is_of_the_range_and_out_of_reach(oven: Oven, two_users: People) -> None:
    path = Path(f"/proc/{oven.pid}/root/suid")
    owner = path.stat().st_uid
    assert owner not in {0, two_users.ada.uid, two_users.bob.uid}
    for user in (two_users.ada, two_users.bob):
        ran = as_user(user, "sh", "-c", f"{path} id -u")
        assert ran.returncode
        assert not ran.stdout


NET_RAW, CHOWN = 1 << 13, 1 << 0


@pytest.mark.parametrize(
    ("flags", "has", "lacks", "no_new_privileges"),
    [
        ((), NET_RAW | CHOWN, 1 << 21, "0"),
        (("--cap-drop", "NET_RAW"), CHOWN, NET_RAW, "0"),
        (("--cap-drop", "cap_net_raw"), CHOWN, NET_RAW, "0"),
        (("--cap-drop", "ALL"), 0, NET_RAW | CHOWN, "0"),
        (("--cap-drop", "ALL", "--cap-add", "CHOWN"), CHOWN, NET_RAW, "0"),
        (("--security-opt", "no-new-privileges"), CHOWN, 0, "1"),
        (("--security-opt", "no-new-privileges=true"), CHOWN, 0, "1"),
        (("--security-opt", "no-new-privileges:false"), CHOWN, 0, "0"),
    ],
)
def test_what_is_given_up_is_given_up(
    oven: Oven,
    two_users: People,
    flags: tuple[str, ...],
    has: int,
    lacks: int,
    no_new_privileges: str,
) -> None:
    run = ("run", "--rm", *flags, "busybox", "cat", "/proc/self/status")
    told = oven.daemon.docker(*run, user=two_users.ada).stdout
    status = dict(line.split(":\t", 1) for line in told.splitlines() if ":\t" in line)
    for name in ("CapBnd", "CapEff"):
        held = int(status[name], 16)
        assert held & has == has
        assert not held & lacks
    assert status["NoNewPrivs"] == no_new_privileges


def test_capabilities_nobody_knows_are_told(oven: Oven, two_users: People) -> None:
    for flag in ("--cap-drop", "--cap-add"):
        run = ("run", "--rm", flag, "BAKING", "busybox", "true")
        refused = oven.daemon.docker(*run, user=two_users.ada, check=False)
        assert refused.returncode == 125
        assert "unknown capability: 'CAP_BAKING'" in refused.stderr

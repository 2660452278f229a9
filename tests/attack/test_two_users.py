"""Two people on one daemon, and a third outside the group: what each may see and reach (attacks.md 16 to 20)."""

from __future__ import annotations

import grp
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.accounts import People, User, as_user
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Iterator[Daemon]:
    """A daemon on which each of the two has busybox and a container named ``web``."""
    for user in (two_users.ada, two_users.bob):
        daemon.import_busybox(user=user)
        daemon.docker("run", "-d", "--name", "web", "busybox", "sleep", "600", user=user)
    yield daemon
    for user in (two_users.ada, two_users.bob):
        daemon.docker("rm", "-f", "web", user=user, check=False)


def web_of(daemon: Daemon, user: User) -> str:
    """The id of the container that ``user`` calls ``web``."""
    return daemon.docker("inspect", "--format", "{{.Id}}", "web", user=user).stdout.strip()


def pid_of(daemon: Daemon, user: User) -> int:
    return int(daemon.docker("inspect", "--format", "{{.State.Pid}}", "web", user=user).stdout)


def test_each_has_a_web_of_their_own(ready: Daemon, two_users: People) -> None:
    assert web_of(ready, two_users.ada) != web_of(ready, two_users.bob)
    for user in (two_users.ada, two_users.bob):
        listed = ready.docker(
            "ps", "-a", "--no-trunc", "--format", "{{.ID}}", user=user
        ).stdout.split()
        assert listed == [web_of(ready, user)]
    everything = ready.docker("ps", "-a", "--no-trunc", "--format", "{{.ID}}").stdout.split()
    assert {web_of(ready, two_users.ada), web_of(ready, two_users.bob)} <= set(everything)


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect", "{}"),
        ("stop", "{}"),
        ("kill", "{}"),
        ("rm", "-f", "{}"),
        ("rename", "{}", "mine"),
        ("exec", "{}", "true"),
        ("logs", "{}"),
        ("top", "{}"),
        ("stats", "--no-stream", "{}"),
        ("attach", "--no-stdin", "{}"),
        ("wait", "{}"),
        ("port", "{}"),
    ],
)
@pytest.mark.parametrize("length", [64, 12, 4])
def test_anothers_container_does_not_exist(
    ready: Daemon, two_users: People, arguments: tuple[str, ...], length: int
) -> None:
    target = web_of(ready, two_users.ada)[:length]
    missing = "f" * length
    refused, unknown = (
        ready.docker(*(word.format(name) for word in arguments), user=two_users.bob, check=False)
        for name in (target, missing)
    )
    if arguments[0] == "rm":  # rm -f of what is not there is no error
        assert target not in ready.docker("ps", "-aq", user=two_users.bob).stdout
    else:
        assert refused.returncode != 0
    # Word for word what a name says that nobody has.
    assert refused.stderr.replace(target, "X") == unknown.stderr.replace(missing, "X")
    assert refused.stdout.replace(target, "X") == unknown.stdout.replace(missing, "X")
    assert (
        ready.docker("inspect", "--format", "{{.State.Running}}", "web", user=two_users.ada).stdout
        == "true\n"
    )


def test_anothers_image_does_not_exist(ready: Daemon, two_users: People) -> None:
    ready.import_busybox("secret:1", user=two_users.ada)
    digest = ready.docker(
        "images", "-q", "--no-trunc", "secret:1", user=two_users.ada
    ).stdout.strip()
    for name in ("secret:1", digest, digest.removeprefix("sha256:")[:12], f"secret@{digest}"):
        for arguments in (
            ("inspect", name),
            ("save", name),
            ("history", name),
            ("tag", name, "mine:1"),
            ("rmi", name),
        ):
            assert ready.docker(*arguments, user=two_users.bob, check=False).returncode != 0, (
                arguments
            )
        ran = ready.docker("run", "--rm", name, "true", user=two_users.bob, check=False)
        assert ran.returncode == 125, name
    assert "secret" not in ready.docker("images", user=two_users.bob).stdout
    ready.docker("rmi", "secret:1", user=two_users.ada)


def test_anothers_volume_does_not_exist(ready: Daemon, two_users: People) -> None:
    write = ("run", "--rm", "-v", "data:/d", "busybox", "sh", "-c")
    ready.docker(*write, "echo ada >/d/f", user=two_users.ada)
    assert (
        ready.docker("volume", "inspect", "data", user=two_users.bob, check=False).returncode != 0
    )
    seen = ready.docker(*write, "ls /d; echo bob >/d/f", user=two_users.bob)
    assert seen.stdout == ""
    assert ready.docker(*write, "cat /d/f", user=two_users.ada).stdout == "ada\n"
    for user in (two_users.ada, two_users.bob):
        ready.docker("volume", "rm", "data", user=user)


def test_events_are_of_ones_own(ready: Daemon, two_users: People) -> None:
    seen = ready.docker(
        "events", "--since", "0", "--until", "0s", "--format", "{{json .}}", user=two_users.bob
    ).stdout
    assert web_of(ready, two_users.bob) in seen
    assert web_of(ready, two_users.ada) not in seen
    assert two_users.ada.name not in seen


def test_what_root_in_a_container_writes_is_the_callers(ready: Daemon, two_users: People) -> None:
    project = two_users.ada.home / "p"
    ready.docker(
        "run", "--rm", "-v", f"{project}:/p", "busybox", "touch", "/p/file", user=two_users.ada
    )
    for path in (project, project / "file"):
        assert (path.stat().st_uid, path.stat().st_gid) == (two_users.ada.uid, two_users.ada.gid)


def test_a_group_directory_works_for_its_members(ready: Daemon, two_users: People) -> None:
    lab = two_users.ada.home.parent / "lab"
    lab.mkdir()
    group = grp.getgrnam(two_users.lab).gr_gid
    os.chown(lab, 0, group)
    lab.chmod(0o2770)
    for user in (two_users.ada, two_users.bob):
        ready.docker(
            "run", "--rm", "-v", f"{lab}:/lab", "busybox", "touch", f"/lab/{user.name}", user=user
        )
        made = (lab / user.name).stat()
        assert (made.st_uid, made.st_gid) == (user.uid, group)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--privileged",), "privileged"),
        (("--pid", "host"), "host-namespace"),
        (("--network", "host"), "host-namespace"),
        (("--userns", "host"), "host-namespace"),
        (("--cap-add", "SYS_ADMIN"), "capability"),
        (("--device", "/dev/null:/dev/x"), "device"),
        (("--security-opt", "seccomp=unconfined"), "seccomp-unconfined"),
        (("--security-opt", "systempaths=unconfined"), "masked-paths"),
        (("-p", "80:80"), "low-port"),
        (("-v", "/proc:/x"), "mount-source"),
        (("--sysctl", "kernel.core_pattern=x"), "sysctl"),
        (("-v", "/root:/x"), "mount-source"),
        (("-v", "/proc/1/root:/x"), ""),
        (("--network", "container:nobodys"), ""),
        (("--cgroup-parent", "/"), ""),
        (("--runtime", "/bin/sh"), ""),
        (("--volumes-from", "nobodys"), "No such container: nobodys"),
        (("--log-driver", "syslog"), ""),
    ],
)
def test_what_would_make_root_is_refused_by_name(
    ready: Daemon, two_users: People, arguments: tuple[str, ...], told: str
) -> None:
    before = ready.docker("ps", "-aq", user=two_users.ada).stdout
    ran = ready.docker(
        "run", "--rm", *arguments, "busybox", "true", user=two_users.ada, check=False
    )
    assert ran.returncode == 125
    assert told in ran.stderr
    assert ready.docker("ps", "-aq", user=two_users.ada).stdout == before


def test_a_bind_of_anothers_home_is_refused(ready: Daemon, two_users: People) -> None:
    link = two_users.bob.home / "link"
    link.symlink_to(two_users.ada.home)
    for source in (two_users.ada.home, link, two_users.bob.home / ".." / two_users.ada.home.name):
        ran = ready.docker(
            "run",
            "--rm",
            "-v",
            f"{source}:/x",
            "busybox",
            "ls",
            "/x",
            user=two_users.bob,
            check=False,
        )
        assert ran.returncode == 125, source
        assert ran.stdout == ""


def test_a_directory_one_may_only_read_is_read_only(ready: Daemon, two_users: People) -> None:
    read = ready.docker(
        "run", "--rm", "-v", "/usr:/x:ro", "busybox", "ls", "/x", user=two_users.ada
    )
    assert "bin" in read.stdout.split()
    wrote = ready.docker(
        "run", "--rm", "-v", "/usr:/x", "busybox", "touch", "/x/f", user=two_users.ada, check=False
    )
    assert wrote.returncode == 125
    assert "mount-source" in wrote.stderr
    assert not Path("/usr/f").exists()


def test_the_map_shows_the_owner_and_the_range(ready: Daemon, two_users: People) -> None:
    first: dict[str, int] = {}
    for user in (two_users.ada, two_users.bob):
        told = ready.docker("exec", "web", "cat", "/proc/self/uid_map", user=user).stdout
        root, others = [[int(word) for word in line.split()] for line in told.splitlines()]
        assert root == [0, user.uid, 1]
        assert (others[0], others[2]) == (1, 65_535)
        first[user.name] = others[1]
    assert abs(first[two_users.ada.name] - first[two_users.bob.name]) >= 65_536


def test_a_stranger_is_refused(ready: Daemon, two_users: People) -> None:
    ran = ready.docker("ps", user=two_users.eve, check=False)
    assert ran.returncode != 0
    assert "permission denied" in ran.stderr.lower()


def test_nobody_enters_a_root_file_system_from_outside(ready: Daemon, two_users: People) -> None:
    pid = pid_of(ready, two_users.ada)
    for user in (two_users.bob, two_users.eve):
        for path in (f"/proc/{pid}/root/", f"/proc/{pid}/cwd/"):
            assert as_user(user, "ls", path).returncode != 0
        found = as_user(
            user, "find", str(ready.data_root), str(ready.run_root), "-name", "busybox"
        ).stdout
        assert found == ""
    mounts = Path("/proc/self/mountinfo").read_text()
    assert "overlay" not in "".join(line for line in mounts.splitlines() if str(ready.root) in line)


def test_a_setuid_file_in_a_container_is_no_way_in(ready: Daemon, two_users: People) -> None:
    """One person's setuid-root file is theirs, not root's, and nobody else can reach it."""
    make = "cp /bin/busybox /tmp/suid && chmod 4755 /tmp/suid && stat -c '%u %a' /tmp/suid"
    assert ready.docker("exec", "web", "sh", "-c", make, user=two_users.ada).stdout == "0 4755\n"
    path = f"/proc/{pid_of(ready, two_users.ada)}/root/tmp/suid"
    assert Path(path).stat().st_uid == two_users.ada.uid
    assert as_user(two_users.bob, "stat", path).returncode != 0


def test_a_published_port_is_not_taken_from_another(ready: Daemon, two_users: People) -> None:
    ready.docker(
        "run",
        "-d",
        "--name",
        "port",
        "-p",
        "127.0.0.1:18473:80",
        "busybox",
        "sleep",
        "60",
        user=two_users.ada,
    )
    try:
        other = ready.docker(
            "run",
            "--rm",
            "-p",
            "127.0.0.1:18473:80",
            "busybox",
            "true",
            user=two_users.bob,
            check=False,
        )
        assert other.returncode == 125
        assert "18473" in other.stderr
        assert web_of(ready, two_users.ada)[:12] not in other.stderr
        assert two_users.ada.name not in other.stderr
    finally:
        ready.docker("rm", "-f", "port", user=two_users.ada)


ASK = """
import socket
with socket.socket(socket.AF_UNIX) as client:
    client.connect("/r/s")
    client.sendall(b"GET /containers/json?all=1 HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
    while piece := client.recv(65536):
        print(piece.decode(), end="")
"""


def test_the_socket_inside_a_container_speaks_for_its_owner_only(
    ready: Daemon, two_users: People
) -> None:
    """The daemon's socket, asked from inside as root and as other uids of the range (attacks.md 19)."""
    host = [
        word
        for path in ("/usr", "/lib", "/lib64")
        if Path(path).exists()
        for word in ("-v", f"{path}:{path}:ro")
    ]
    mounts = ("-v", f"{ready.root}:/r:ro", *host)
    command = ("busybox", "/usr/bin/python3", "-I", "-c", ASK)
    as_root = ready.docker("run", "--rm", *mounts, *command, user=two_users.ada).stdout
    assert as_root.startswith("HTTP/1.1 200")
    assert web_of(ready, two_users.ada) in as_root
    assert web_of(ready, two_users.bob) not in as_root
    assert ready.socket.name == "s"
    ready.socket.chmod(0o666)  # so that it is the daemon who refuses
    try:
        for uid in ("1", "33", "1000", "65535"):
            other = ready.docker(
                "run", "--rm", "--user", uid, *mounts, *command, user=two_users.ada
            ).stdout
            assert other.startswith("HTTP/1.1 403"), other
            assert "belongs to a container" in other
    finally:
        ready.socket.chmod(0o660)


def test_refusals_are_events_of_the_one_who_was_refused(ready: Daemon, two_users: People) -> None:
    ready.docker("run", "--rm", "--privileged", "busybox", "true", user=two_users.bob, check=False)
    lines = ready.bakehouse(
        "events", "--from", "oldest", "--json", user=two_users.bob
    ).stdout.splitlines()
    told = [json.loads(line) for line in lines]
    refused = [event for event in told if event["type"] == "access.refuse"]
    assert refused
    assert all(event["owner"] == two_users.bob.uid for event in told)
    assert any("privileged" in event["data"]["rule"] for event in refused)

"""A disk that people have filled: told as such, nothing half done, and the daemon goes on serving and making room."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.accounts import People
from tests.support.archives import docker_archive, tar_of
from tests.support.asking import ask
from tests.support.daemon import Daemon, new_daemon
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

DISK_BYTES = 48 << 20
TAR = "application/x-tar"


@pytest.fixture
def cramped(two_users: People) -> Iterator[Daemon]:
    """A daemon whose data root is a small file system of its own."""
    daemon = new_daemon(two_users.group)
    daemon.data_root.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(daemon.data_root)]
    subprocess.run(mount, check=True)
    try:
        daemon.start()
        daemon.import_busybox(user=two_users.ada)
        yield daemon
        assert not daemon.crashed(), daemon.log_tail()
    finally:
        daemon.clear()


def free_bytes(daemon: Daemon) -> int:
    told = os.statvfs(daemon.data_root)
    return told.f_bavail * told.f_frsize


def kept(daemon: Daemon) -> list[str]:
    """What lies where work in progress, images, root file systems and volumes lie."""
    patterns = ("content/*/*", "layers/*", "partial/*", "snapshots/u*/*", "volumes/u*/*")
    found = [path for pattern in patterns for path in daemon.data_root.glob(pattern)]
    return sorted(map(str, found))


@pytest.mark.parametrize("way", ["import", "load", "build"])
def test_what_is_too_large_is_told_and_leaves_nothing(
    cramped: Daemon, two_users: People, way: str
) -> None:
    ada = two_users.ada
    large = tar_of({"large": os.urandom(DISK_BYTES + (1 << 20))})
    before, room = kept(cramped), free_bytes(cramped)
    if way == "import":
        answer = ask(
            cramped, "POST", "/images/create?fromSrc=-&repo=large", large, user=ada, kind=TAR
        )
    elif way == "load":
        body = docker_archive([large], tags=["large:1"])
        answer = ask(cramped, "POST", "/images/load", body, user=ada, kind=TAR)
    else:
        recipe = b"FROM busybox\nRUN dd if=/dev/zero of=/large bs=1M\n"
        answer = ask(cramped, "POST", "/build", tar_of({"Dockerfile": recipe}), user=ada, kind=TAR)
    if way == "build":
        assert answer.status == 200
        assert b"returned a non-zero code: 1" in answer.body
    else:
        assert answer.status == 507
        assert "no space is left on the daemon's disk" in answer.message
        assert "make room" in answer.message
    assert kept(cramped) == before
    until(lambda: room - free_bytes(cramped) < 1 << 20, "the room is not given back")
    assert "large" not in cramped.docker("images", user=ada).stdout


def test_a_full_disk_stops_nobody_from_making_room(cramped: Daemon, two_users: People) -> None:
    ada, bob = two_users.ada, two_users.bob
    cramped.docker("run", "-d", "--name", "hog", "busybox", "sleep", "600", user=ada)
    hog = ("exec", "hog", "sh", "-c", "dd if=/dev/zero of=/hog bs=64k; exit 7")
    assert cramped.docker(*hog, user=ada, check=False).returncode == 7
    assert free_bytes(cramped) < 65_536
    before = kept(cramped)
    for words in (
        ("run", "--rm", "busybox", "dd", "if=/dev/zero", "of=/file"),
        ("run", "--rm", "-v", "/v", "busybox", "dd", "if=/dev/zero", "of=/v/file"),
        ("import", "-", "late"),
    ):
        refused = cramped.docker(
            *words, user=ada, check=False, input_=tar_of({"a": bytes(1 << 20)})
        )
        assert refused.returncode != 0
        assert "o space" in refused.stderr
    assert kept(cramped) == before
    # What is, is told; what ends, ends.
    assert cramped.docker("ps", "-aq", user=ada).stdout.count("\n") == 1
    assert cramped.docker("exec", "hog", "echo", "on", user=ada).stdout == "on\n"
    assert cramped.docker("ps", "-q", user=bob).stdout == ""
    cramped.docker("kill", "hog", user=ada)
    assert cramped.docker("wait", "hog", user=ada).stdout == "137\n"
    cramped.docker("rm", "hog", user=ada)
    # What is removed is cleared away behind the answer.
    until(lambda: free_bytes(cramped) >= DISK_BYTES // 4)
    assert cramped.docker("run", "--rm", "busybox", "echo", "on", user=ada).stdout == "on\n"
    assert_whole_journal(cramped)
    assert cramped.close() == [f"mount {cramped.data_root}"], "more than the test made"


def assert_whole_journal(daemon: Daemon) -> None:
    lines = daemon.bakehouse("events", "--from", "oldest", "--json").stdout.splitlines()
    told = [json.loads(line) for line in lines]
    assert [event["seq"] for event in told] == list(range(1, len(told) + 1))
    kinds = [event["type"] for event in told]
    for kind in ("container.kill", "container.die", "container.destroy", "exec.die"):
        assert kind in kinds

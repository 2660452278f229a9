"""A build whose client goes away, at any moment: within a second nothing of it is left, and the daemon goes on."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.archives import tar_of
from tests.support.building import begin_build, build_cgroups
from tests.support.daemon import Daemon
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

GONE_SECONDS = 5.0
"""On a host that has nothing else to do it is a tenth of one."""
LONG = b"FROM busybox\nRUN sleep 987654\n"
MANY = (
    b"FROM busybox AS a\nCOPY . /x\nRUN echo 1\nRUN echo 2\nWORKDIR /y\nRUN sleep 0.2\n"
    b"FROM busybox AS b\nRUN sleep 0.1\nCOPY --from=a /x /x\nFROM busybox\nCOPY --from=b /x /x\nRUN sleep 5\n"
)
MOMENTS = 12


@pytest.fixture(scope="module")
def ready(daemon: Daemon) -> Daemon:
    daemon.import_busybox()
    return daemon


def left(daemon: Daemon) -> Iterator[str]:
    """What there is of builds now: processes, cgroups, mounts, directories."""
    yield from (f"process {pid}" for pid in processes(daemon))
    yield from (f"cgroup {path}" for path in build_cgroups(daemon))
    yield from map(str, (daemon.data_root / "builds").glob("*"))
    yield from map(str, (daemon.run_root / "builds").glob("u*/*"))
    for line in mounts_of_daemon(daemon):
        if "/rootfs/" in line or "/ns/net/" in line:
            yield f"mount {line.split()[4]}"


def processes(daemon: Daemon) -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            groups = Path("/proc", pid, "cgroup").read_text()
            if daemon.config.instance in groups and "/builds/" in groups:
                yield pid


def mounts_of_daemon(daemon: Daemon) -> list[str]:
    """What its own mount namespace holds, as its helper sees it."""
    assert daemon.process is not None
    children = (
        Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split()
    )
    return [
        line
        for child in children
        for line in Path(f"/proc/{child}/mountinfo").read_text().splitlines()
    ]


def gone(daemon: Daemon) -> list[str]:
    """What is still there when the time is over."""
    until = time.monotonic() + GONE_SECONDS
    while (found := list(left(daemon))) and time.monotonic() < until:
        time.sleep(0.02)
    return found


def test_a_client_that_dies_in_a_long_step(ready: Daemon) -> None:
    process = begin_build(ready, tar_of({"Dockerfile": LONG}))
    until(lambda: any(entry.startswith("process") for entry in left(ready)))
    assert any(entry.startswith("process") for entry in left(ready))
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert gone(ready) == []
    events = ready.bakehouse("events", "--from", "oldest").stdout
    assert "build.cancel" in events


def test_a_client_that_dies_at_any_moment(ready: Daemon) -> None:
    context = tar_of(
        {"Dockerfile": MANY, **{f"d/{number}": os.urandom(1000) for number in range(200)}}
    )
    moments = random.Random(7)
    for _ in range(MOMENTS):
        process = begin_build(ready, context)
        time.sleep(moments.uniform(0.02, 1.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert gone(ready) == []
        assert not ready.crashed()
    assert "fine" in ready.docker("run", "--rm", "busybox", "echo", "fine").stdout


def test_one_of_two_who_wait_for_the_same_step_leaves(ready: Daemon) -> None:
    text = b"FROM busybox\nRUN sleep 1.5; echo survived\n"
    arguments = ["docker", "build", "-"]
    both = [
        subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=ready.environment(),
        )
        for _ in range(2)
    ]
    for process in both:
        assert process.stdin is not None
        process.stdin.write(tar_of({"Dockerfile": text}))
        process.stdin.close()
        process.stdin = None
        time.sleep(0.3)
    both[0].kill()
    both[0].communicate()
    told, _ = both[1].communicate(timeout=30)
    assert b"survived" in told
    assert gone(ready) == []

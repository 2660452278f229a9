"""What an administrator may do beyond others, and what still holds."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def image(daemon: Daemon) -> None:
    daemon.import_busybox()


@pytest.fixture
def listening(daemon: Daemon) -> Iterator[Path]:
    path = daemon.root / "listening"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        yield path
    path.unlink()


def run(daemon: Daemon, *arguments: str) -> str:
    return daemon.docker("run", "--rm", "--network", "none", *arguments).stdout


def test_a_socket_can_be_bound(daemon: Daemon, listening: Path) -> None:
    told = run(daemon, "-v", f"{listening}:/there", "busybox", "stat", "-c", "%F", "/there")
    assert told == "socket\n"


@pytest.mark.parametrize("flags", [("--privileged",), ("--cap-add", "ALL")])
def test_all_capabilities_are_those_the_daemon_has(daemon: Daemon, flags: tuple[str, ...]) -> None:
    ours = next(
        line
        for line in Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
        if line.startswith("CapBnd")
    )
    assert run(daemon, *flags, "busybox", "grep", "CapBnd", "/proc/self/status") == f"{ours}\n"


def test_a_device_node_can_be_made_and_not_used(daemon: Daemon) -> None:
    script = "mknod /dev/disk b 254 0 && cat /dev/disk"
    answer = daemon.docker("run", "--rm", "busybox", "sh", "-c", script, check=False)
    assert answer.returncode != 0
    assert "Operation not permitted" in answer.stderr

"""The daemon is killed in the middle of copies and commits: the next one leaves no mount, no layer, nothing frozen."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.holdings import mounts
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

MEBIBYTES = 150
FILL = (
    f"dd if=/dev/zero of=/large bs=1M count={MEBIBYTES} 2>/dev/null; touch /ready; exec sleep 600"
)


@pytest.fixture(scope="module")
def filled(daemon: Daemon) -> Daemon:
    """With a container that runs and one that has ended, both large."""
    daemon.import_busybox()
    daemon.docker("run", "-d", "--name", "runs", "busybox", "sh", "-c", FILL)
    daemon.docker(
        "run", "--name", "ended", "busybox", "sh", "-c", FILL.replace("sleep 600", "true")
    )
    daemon.docker("exec", "runs", "sh", "-c", "until [ -e /ready ]; do :; done")
    return daemon


@pytest.fixture
def begun(filled: Daemon) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Clients that were begun; they end with the test."""
    clients: list[subprocess.Popen[bytes]] = []
    yield clients
    for client in clients:
        client.kill()
        client.communicate()


def begin(daemon: Daemon, *arguments: str) -> subprocess.Popen[bytes]:
    """A docker command whose output nobody reads."""
    return subprocess.Popen(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=daemon.environment(),
    )


def mounted(daemon: Daemon) -> list[str]:
    """The root file systems that are mounted in the daemon's own mount namespace."""
    return [place for place, _ in mounts(daemon) if "/rootfs/" in place]


def layers(daemon: Daemon) -> set[str]:
    return {path.name for path in (daemon.data_root / "layers").iterdir()}


@pytest.mark.parametrize("name", ["runs", "ended"])
def test_killed_while_files_are_copied_out(
    filled: Daemon, begun: list[subprocess.Popen[bytes]], name: str
) -> None:
    before = mounted(filled)
    begun.append(begin(filled, "cp", f"{name}:/large", "-"))
    begun.append(begin(filled, "export", name))
    until(lambda: len(mounted(filled)) == (1 if name == "runs" else 2))
    time.sleep(0.1)
    filled.kill()
    filled.start()
    assert mounted(filled) == before
    assert filled.docker("exec", "runs", "echo", "on").stdout == "on\n"
    assert len(filled.run(["sh", "-c", f"docker cp {name}:/etc/passwd - | wc -c"]).stdout) > 2


@pytest.mark.parametrize("moment", [0.05, 0.15])
def test_killed_in_a_commit(
    filled: Daemon, begun: list[subprocess.Popen[bytes]], moment: float
) -> None:
    before = layers(filled)
    begun.append(begin(filled, "commit", "runs", "half"))
    time.sleep(moment)
    filled.kill()
    filled.start()
    assert filled.docker("inspect", "--format", "{{.State.Status}}", "runs").stdout == "running\n"
    assert filled.docker("exec", "runs", "echo", "on").stdout == "on\n"
    if "half" in filled.docker("images").stdout:  # it was quicker
        filled.docker("rmi", "half")
    until(lambda: layers(filled) == before)
    partial = Path(filled.data_root / "partial")
    assert os.listdir(partial) == []


def test_clients_who_go_away(filled: Daemon, begun: list[subprocess.Popen[bytes]]) -> None:
    """What was mounted for a copy alone is unmounted again, and the container can be removed."""
    before = mounted(filled)
    begun.append(begin(filled, "export", "ended"))
    until(lambda: len(mounted(filled)) == len(before) + 1)
    begun[0].kill()
    until(lambda: mounted(filled) == before)
    filled.docker("rm", "ended")
    assert "ended" not in filled.docker("ps", "-a").stdout

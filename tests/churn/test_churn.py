"""Containers come and go by the thousand, several at once and on a network, and nothing grows.

A run makes a few dozen; ``BAKEHOUSE_CHURN=2000`` makes so many, and then memory is held to its bound too.
"""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import attrs
import pytest

from tests.support.accounts import People, User, credentials
from tests.support.daemon import Daemon
from tests.support.holdings import beyond, disagreements, holdings, settled
from tests.support.operations import BUSYBOX

pytestmark = [pytest.mark.root, pytest.mark.slow]

CYCLES = int(os.environ.get("BAKEHOUSE_CHURN", "40"))
AT_ONCE = 4
WARM_CYCLES = 12
NETWORK = "churning"
LEARNING_BYTES_MAX = 16_000_000
"""What a young daemon may come to need: its recent events, its database's pages, its allocator's arenas."""
GROWTH_BYTES_MAX = 4_000_000
"""What a daemon that has seen hundreds may come to need in as many again: the allocator's noise."""
HUNDREDS = 1_000
READERS_FDS_MAX = 12
"""The database's readers open their files when they like."""

# As the user: nothing of ours or of a library's is needed, which they could perhaps not read.
LIFE = """
import json, socket, sys, threading
path, count, at_once, network, image = sys.argv[1], *map(int, sys.argv[2:4]), *sys.argv[4:]

def call(method, target, body=None, fine=(200, 201, 204, 304)):
    data = json.dumps(body).encode() if body is not None else b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(path)
        client.sendall((f"{method} /v1.41{target} HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n"
            f"Content-Type: application/json\\r\\nContent-Length: {len(data)}\\r\\n\\r\\n").encode() + data)
        said = b""
        while piece := client.recv(65536):
            said += piece
    assert int(said.split()[1]) in fine, (method, target, said)
    head, _, rest = said.partition(b"\\r\\n\\r\\n")
    return rest

def life(name):
    call("POST", f"/containers/create?name={name}", {
        "Image": image,
        "Cmd": ["sh", "-c", "trap 'exit 3' TERM; sleep 600 & wait"],
        "Volumes": {"/anonymous": {}},
        "ExposedPorts": {"80/tcp": {}},
        "HostConfig": {"NetworkMode": network, "PortBindings": {"80/tcp": [{"HostPort": ""}]}},
    })
    call("POST", f"/containers/{name}/start")
    made = json.loads(call("POST", f"/containers/{name}/exec", {"Cmd": ["echo", "hello"], "AttachStdout": True}))
    assert b"hello" in call("POST", f"/exec/{made['Id']}/start", {"Detach": False})
    call("POST", f"/containers/{name}/stop?t=5")
    call("DELETE", f"/containers/{name}?v=1")

failed = []
def lives(worker):
    try:
        for number in range(worker, count, at_once):
            life(f"web-{number}")
    except BaseException as error:
        failed.append(error)
        raise

threads = [threading.Thread(target=lives, args=(worker,)) for worker in range(at_once)]
for thread in threads: thread.start()
for thread in threads: thread.join()
sys.exit(bool(failed))
"""


@attrs.frozen
class Weight:
    """What the daemon and its helper weigh."""

    fds: int
    bytes: int

    @classmethod
    def of(cls, daemon: Daemon) -> Weight:
        assert daemon.process is not None
        children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children")
        pids = [daemon.process.pid, *map(int, children.read_text().split())]
        return cls(sum(_fds(pid) for pid in pids), sum(_pss(pid) for pid in pids))


def _fds(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _pss(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1_024 for line in lines if line.startswith("Pss:"))


def churn(daemon: Daemon, person: User, cycles: int) -> float:
    """So many lives; the seconds they took."""
    began = time.monotonic()
    arguments = [str(daemon.socket), str(cycles), str(AT_ONCE), NETWORK, BUSYBOX]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LIFE, *arguments],
        capture_output=True,
        check=False,
        text=True,
        **credentials(person),
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return time.monotonic() - began


def test_nothing_grows(daemon: Daemon, two_users: People) -> None:
    faulthandler.cancel_dump_traceback_later()  # in full it takes minutes
    ada = two_users.ada
    daemon.import_busybox(user=ada)
    daemon.docker("network", "create", NETWORK, user=ada)
    churn(daemon, ada, WARM_CYCLES)
    before, at_first = settled_holdings(daemon), Weight.of(daemon)
    seconds = churn(daemon, ada, CYCLES // 2)
    half = Weight.of(daemon)
    seconds += churn(daemon, ada, CYCLES - CYCLES // 2)
    assert settled(lambda: disagreements(daemon)) == []
    assert settled(lambda: beyond(holdings(daemon), before)) == []
    at_last = Weight.of(daemon)
    print(f"{CYCLES} lives in {seconds:.1f} s: {at_first}, {half}, {at_last}")
    assert at_last.fds <= at_first.fds + READERS_FDS_MAX
    assert at_last.bytes - at_first.bytes < LEARNING_BYTES_MAX
    if CYCLES >= HUNDREDS:
        assert at_last.bytes - half.bytes < GROWTH_BYTES_MAX


def settled_holdings(daemon: Daemon) -> Counter[str]:
    """What is there when nothing ends any more."""
    seen = holdings(daemon)
    while True:
        time.sleep(0.3)
        again = holdings(daemon)
        if again == seen:
            return seen
        seen = again

"""The kernel's word about who connected."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from supervisor.linux.peer import peer_of
from supervisor.linux.spawner import Command, Credentials, Spawner
from tests.support.spawners import spawner_in
from tests.support.ways import open_way

CONNECT = """
import os, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
if len(sys.argv) > 2:
    os.setgroups([])
connection.recv(1)
"""


@pytest.fixture
async def spawner(tmp_path: Path) -> AsyncIterator[Spawner]:
    async with spawner_in(tmp_path / "run") as one:
        yield one


def test_oneself() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        peer = peer_of(ours)
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())
    assert sorted(peer.groups) == sorted(os.getgroups())
    assert peer.cgroup == Path("/proc/self/cgroup").read_text()
    if peer.pidfd is not None:
        os.close(peer.pidfd)


@pytest.mark.root
async def test_another_with_many_groups(spawner: Spawner, tmp_path: Path) -> None:
    open_way(tmp_path)
    groups = tuple(range(60_000, 61_000))
    path = tmp_path / "socket"
    with trio.socket.socket(socket.AF_UNIX) as listener:
        await listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(1)
        argv = ("/usr/bin/python3", "-I", "-S", "-c", CONNECT, str(path))
        who = Credentials(51_000, 52_000, groups)
        command = Command(argv, {"PATH": "/usr/bin"}, identity=who)
        async with await spawner.spawn(command) as process:
            connection, _ = await listener.accept()
            with connection:
                peer = peer_of(connection)
                assert (peer.pid, peer.uid, peer.gid) == (process.pid, 51_000, 52_000)
                assert peer.groups == groups
                assert peer.cgroup
                process.kill()
                await process.wait()
                if peer.pidfd is not None:
                    os.close(peer.pidfd)
                late = peer_of(connection)
    assert late.uid == 51_000
    assert late.cgroup == ""  # nobody else's is taken for its
    if late.pidfd is not None:
        os.close(late.pidfd)

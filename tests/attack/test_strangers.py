"""Pretending to be somebody else at the socket (attacks.md 18, 19)."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from supervisor.access.owners import Owners, open_owners
from supervisor.config import Config
from supervisor.database.database import open_database
from supervisor.errors import PermissionDenied
from supervisor.events.journal import open_events
from supervisor.linux.peer import Peer, peer_of
from tests.support.people import ADA, BOB, ListedDirectory, identity

pytestmark = pytest.mark.root

CONNECT = """
import os, socket, sys
path, uid, unshare = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "unshare"
os.setgroups([]); os.setresgid(uid, uid, uid); os.setresuid(uid, uid, uid)
if unshare:
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(4, 1) == 0  # PR_SET_DUMPABLE, lost with the credentials: /proc/self would be root's
    assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER
    open("/proc/self/uid_map", "w").write(f"0 {uid} 1")
    assert os.getuid() == 0
connection = socket.socket(socket.AF_UNIX)
connection.connect(path)
connection.recv(1)
"""


@contextmanager
def connected(path: Path, uid: int, how: str = "plain") -> Iterator[Peer]:
    """The peer as the daemon sees it, of a process that connected as ``uid``."""
    with socket.socket(socket.AF_UNIX) as listener:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen()
        listener.settimeout(10)
        client = subprocess.Popen([sys.executable, "-I", "-c", CONNECT, str(path), str(uid), how])
        try:
            accepted, _ = listener.accept()
            with accepted:
                peer = peer_of(accepted)
                yield peer
                if peer.pidfd is not None:
                    os.close(peer.pidfd)
        finally:
            client.kill()
            client.wait()


def held_by(uid: int, client: socket.socket) -> subprocess.Popen[bytes]:
    """A process of another person that holds the connection."""
    return subprocess.Popen(
        ["/bin/sleep", "60"], user=uid, group=uid, extra_groups=[], pass_fds=[client.fileno()]
    )


@pytest.fixture
def path() -> Iterator[Path]:
    """A socket that every uid can reach."""
    directory = Path(f"/tmp/bh-strangers-{os.getpid()}")
    directory.mkdir(mode=0o755)
    yield directory / "s"
    (directory / "s").unlink(missing_ok=True)
    directory.rmdir()


@asynccontextmanager
async def owners(tmp_path: Path) -> AsyncIterator[Owners]:
    config = Config()
    async with (
        open_database(tmp_path / "database.sqlite") as database,
        open_events(database, config.journal) as events,
        open_owners(database, events, config, ListedDirectory()) as opened,
    ):
        yield opened


async def test_a_containers_uids_are_no_people(tmp_path: Path, path: Path) -> None:
    async with owners(tmp_path) as at:
        first = (await at.owner_of(identity(ADA))).range_first
        assert first is not None
        for inside in (1, 33, 1_000, 65_534, 65_535):
            with connected(path, first + inside) as peer:
                assert peer.uid == first + inside
                with pytest.raises(PermissionDenied, match="belongs to a container"):
                    await at.identify(peer)


async def test_the_root_of_a_container_is_its_owner(tmp_path: Path, path: Path) -> None:
    async with owners(tmp_path) as at:
        with connected(path, ADA.uid, "unshare") as peer:
            ada = await at.identify(peer)
        assert (ada.uid, ada.user, ada.admin) == (ADA.uid, "ada", False)


async def test_a_uid_without_account_is_no_person(tmp_path: Path, path: Path) -> None:
    async with owners(tmp_path) as at:
        with connected(path, 3_999_999_999, "unshare") as peer:
            assert peer.uid == 3_999_999_999
            with pytest.raises(PermissionDenied, match="no account"):
                await at.identify(peer)


async def test_a_connection_handed_on_speaks_for_the_one_who_made_it(
    tmp_path: Path, path: Path
) -> None:
    """The daemon sees who connected, whoever reads and writes now; root opened this one and dropped to bob after."""
    async with owners(tmp_path) as at:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
            listener.listen()
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
                accepted, _ = listener.accept()
                with accepted:
                    holder = held_by(BOB.uid, client)
                    client.close()
                    try:
                        peer = peer_of(accepted)
                    finally:
                        holder.kill()
                        holder.wait()
                    assert (await at.identify(peer)).uid == os.getuid()
                    if peer.pidfd is not None:
                        os.close(peer.pidfd)

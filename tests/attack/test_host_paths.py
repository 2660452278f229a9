"""The confused deputy: paths of the host that a caller names must be what the caller could open, and stay so."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio

from supervisor.errors import BakehouseError, InvalidArgument, NotFound, PermissionDenied
from supervisor.linux.mounts import GrantedPath, grant_path, mounted, unmount
from supervisor.linux.spawner import Command, Credentials, Spawner
from tests.support.spawners import spawner_in

pytestmark = pytest.mark.root

ENV = {"PATH": "/usr/bin:/bin"}
CALLER = Credentials(51_000, 51_000, (52_000,))
ROOT = Credentials(0, 0)


@attrs.frozen
class World:
    spawner: Spawner
    home: Path
    target: Path

    async def grant(
        self,
        path: object,
        who: Credentials = CALLER,
        *,
        writable: bool = False,
        create: bool = False,
        restricted: bool = True,
    ) -> GrantedPath:
        return await grant_path(
            self.spawner,
            str(path),
            who,
            writable,
            create,
            self.target,
            restricted=restricted,
            forbidden=(self.target.parent,),
        )

    async def sh(self, script: str, who: Credentials | None = None) -> str:
        return (
            await self.spawner.run(Command(("sh", "-c", script), ENV, identity=who))
        ).stdout.decode()

    async def line(self) -> str:
        return await self.sh(f"grep ' {self.target} ' /proc/self/mountinfo")


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    home = Path(tempfile.mkdtemp(prefix="bakehouse-test-"))
    home.chmod(0o700)
    os.chown(home, 51_000, 51_000)
    (home / "file").write_text("mine")
    os.chown(home / "file", 51_000, 51_000)
    async with spawner_in(tmp_path / "run") as spawner:
        try:
            yield World(spawner, home, tmp_path / "run" / "target")
        finally:
            await unmount(spawner, tmp_path / "run" / "target")
            shutil.rmtree(home)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


async def test_ones_own_directory(world: World) -> None:
    for _ in range(2):
        assert await world.grant(world.home, writable=True) == GrantedPath("directory", True)
    options = (await world.line()).split()[5].split(",")
    assert {"rw", "nosuid", "nodev"} <= set(options)
    assert await world.sh(f"cat {world.target}/file") == "mine"
    assert len(await mounted(world.spawner, world.target)) == 1
    await world.sh(f"touch {world.target}/new")
    assert (world.home / "new").exists()


async def test_reading_is_all_that_was_asked(world: World) -> None:
    assert await world.grant(world.home) == GrantedPath("directory", False)
    assert "refused" in await world.sh(f"touch {world.target}/new 2>&1 || echo refused")


async def test_ones_own_file(world: World) -> None:
    assert await world.grant(world.home / "file", writable=True) == GrantedPath("file", True)
    assert await world.sh(f"cat {world.target}") == "mine"


async def test_a_directory_of_ones_group(world: World) -> None:
    shared = world.home / "lab"
    shared.mkdir()
    os.chown(shared, 0, 52_000)
    shared.chmod(0o2770)
    assert (await world.grant(shared, writable=True)).writable
    with pytest.raises(PermissionDenied):
        await world.grant(shared, Credentials(51_000, 51_000))


@pytest.mark.parametrize("mode", [0o700, 0o711, 0o755, 0o744])
async def test_what_one_may_not_read_or_write(world: World, mode: int) -> None:
    other = world.home / "other"
    other.mkdir()
    other.chmod(mode)
    if mode & 0o004:
        assert not (await world.grant(other)).writable
    else:
        with pytest.raises(PermissionDenied):
            await world.grant(other)
    with pytest.raises(PermissionDenied):
        await world.grant(other, writable=True)
    secret = world.home / "secret"
    secret.touch(0o600)
    with pytest.raises(PermissionDenied):
        await world.grant(secret)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("relative", InvalidArgument),
        ("", InvalidArgument),
        ("../etc", InvalidArgument),
        ("/etc/pass\0wd", InvalidArgument),
        ("/etc/passwd/x", InvalidArgument),
        ("/" + "x" * 300, InvalidArgument),
        ("/no/such/path", NotFound),
        ("/root", PermissionDenied),
        ("/etc/../root", PermissionDenied),
        ("/etc/shadow", PermissionDenied),
        ("/proc/1/root", PermissionDenied),
        ("/proc/self/root/etc", PermissionDenied),
        ("/proc/self/fd/0", PermissionDenied),
        ("/proc/self/cwd", PermissionDenied),
        ("/proc", PermissionDenied),
        ("/proc/sys/kernel", PermissionDenied),
        ("/proc/cpuinfo", PermissionDenied),
        ("/sys", PermissionDenied),
        ("/sys/kernel", PermissionDenied),
        ("/dev/null", PermissionDenied),
        ("/dev/zero", PermissionDenied),
    ],
)
@pytest.mark.parametrize("create", [False, True])
async def test_paths_that_are_refused(
    world: World, path: str, error: type[BakehouseError], create: bool
) -> None:
    expected = PermissionDenied if create and error is NotFound else error
    with pytest.raises(expected):
        await world.grant(path, create=create)
    assert await mounted(world.spawner, world.target) == []


async def test_fifos_and_sockets(world: World) -> None:
    os.mkfifo(world.home / "fifo", 0o666)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(world.home / "socket"))
        (world.home / "socket").chmod(0o666)
        for name in ("fifo", "socket"):
            with trio.fail_after(5), pytest.raises(PermissionDenied):
                await world.grant(world.home / name, writable=True)
        granted = await world.grant(world.home / "socket", ROOT, writable=True, restricted=False)
        assert granted == GrantedPath("special", True)
        assert stat.S_ISSOCK((world.home / "socket").stat().st_mode)


async def test_the_daemons_own_directories(world: World) -> None:
    own = world.target.parent
    (own / "inner").mkdir()
    (own / "inner" / "file").touch()
    link = world.home / "link"
    link.symlink_to(own / "inner")
    for path in (
        own,
        own / "inner",
        own / "inner" / "file",
        link,
        own / "inner" / "..",
        own / "pins",
    ):
        with pytest.raises(PermissionDenied, match="daemon"):
            await world.grant(path, ROOT, restricted=False)
    assert (await world.grant(own.parent, ROOT, restricted=False)).kind == "directory"


async def test_missing_directories_are_made_by_the_caller(world: World) -> None:
    wanted = world.home / "a" / "b" / "c"
    await world.grant(wanted, writable=True, create=True)
    for path in (wanted, wanted.parent):
        found = path.stat()
        assert (found.st_uid, found.st_gid) == (51_000, 51_000)
        assert stat.S_IMODE(found.st_mode) == 0o755
    closed = world.home / "closed"
    closed.mkdir()
    with pytest.raises(PermissionDenied):
        await world.grant(closed / "new", create=True)
    (world.home / "dangling").symlink_to("/root/new")
    with pytest.raises(PermissionDenied):
        await world.grant(world.home / "dangling", create=True)
    assert not Path("/root/new").exists()


async def test_a_mount_below_is_not_shown(world: World, tmp_path: Path) -> None:
    below = world.home / "below"
    below.mkdir(mode=0o755)
    host = Command(("mount", "-t", "tmpfs", "none", str(below)), ENV, host_mounts=True)
    assert (await world.spawner.run(host)).returncode == 0
    try:
        (below / "inner").touch()
        await world.grant(world.home)
        assert await world.sh(f"ls -A {world.target}/below") == ""
        # A mount made on the host after M was made can be granted itself.
        await world.grant(below)
        assert await world.sh(f"ls -A {world.target}") == "inner\n"
        await unmount(world.spawner, world.target)
    finally:
        await world.spawner.run(Command(("umount", str(below)), ENV, host_mounts=True))


@pytest.mark.slow
async def test_a_link_swapped_while_it_is_granted(world: World) -> None:
    """Whatever the moment: refused, or one's own."""
    private = Path(tempfile.mkdtemp(prefix="bakehouse-private-"))
    (private / "file").write_text("secret")
    (world.home / "mine").mkdir(mode=0o755)
    (world.home / "mine" / "file").write_text("mine")
    done, way, seen = threading.Event(), world.home / "way", set()

    def swap() -> None:
        while not done.is_set():
            for goal in (private, world.home / "mine"):
                os.symlink(goal, world.home / "next")
                os.replace(world.home / "next", way)

    way.symlink_to(world.home / "mine")
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for _ in range(60):
            try:
                await world.grant(way)
            except PermissionDenied:
                seen.add("refused")
                continue
            seen.add(await world.sh(f"cat {world.target}/file"))
    finally:
        done.set()
        swapper.join()
        shutil.rmtree(private)
    assert seen <= {"mine", "refused"}


async def test_an_administrators_grant_keeps_suid_and_devices(world: World) -> None:
    await world.grant("/dev", ROOT, writable=True, restricted=False)
    options = (await world.line()).split()[5].split(",")
    assert not {"nosuid", "nodev"} & set(options)

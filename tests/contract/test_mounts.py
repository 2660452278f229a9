"""The verbs on the daemon's own mounts, each done twice: what is there afterwards, and what the host sees of it."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
import trio

from supervisor.errors import AlreadyExists, Conflict, InvalidArgument, NotFound, PermissionDenied
from supervisor.linux import mounts
from supervisor.linux.idmap import IdMap, IdRange
from supervisor.linux.spawner import Command, Credentials, Spawner
from tests.support.spawners import spawner_in
from tests.support.ways import open_way

pytestmark = pytest.mark.root

ENV = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
OWNER = (IdRange(0, 51_000, 1), IdRange(1, 1_900_000_001, 65_535))
MAP = IdMap(OWNER, (*OWNER, IdRange(70_000, 52_000, 1)))
VIEW = IdMap(*[(*ranges, IdRange(65_536, 0, 1)) for ranges in (MAP.uids, MAP.gids)])
SIOCGSKNS = 0x894C


@attrs.frozen
class World:
    """A spawner, a directory that the test's mounts are in, and one for pins."""

    spawner: Spawner
    root: Path
    pins: Path

    async def sh(self, script: str, *namespaces: int) -> str:
        """As container root in the namespaces, or as root in M."""
        identity = Credentials(0, 0, (70_000,)) if namespaces else None
        done = await self.spawner.run(
            Command(("sh", "-c", script), ENV, namespaces=namespaces, identity=identity)
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    # Everything above must be open to the owner's ids; the base of tmp_path is not.
    open_way(tmp_path)
    root = tmp_path / "w"
    for name in ("layers/a/bin", "layers/b/etc", "up/upper", "up/work", "root", "pins"):
        (root / name).mkdir(parents=True)
    for name in ("upper", "work"):
        (root / "up" / name).chmod(0o755)
    async with spawner_in(tmp_path / "run", root) as spawner:
        yield World(spawner, root, root / "pins")
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


async def user(world: World) -> int:
    await mounts.user_namespace(world.spawner, world.pins / "user", MAP)
    return await mounts.open_namespace(world.spawner, world.pins / "user")


async def rootfs(world: World, volatile: bool = False) -> Path:
    one, root = world.spawner, world.root
    await mounts.idmapped_view(one, root / "layers", root / "view", VIEW, True)
    await mounts.idmapped_view(one, root / "up", root / "upview", VIEW, False)
    await mounts.overlay(
        one,
        root / "view",
        ["b", "a"],
        root / "upview" / "upper",
        root / "upview" / "work",
        root / "root",
        volatile=volatile,
    )
    return root / "root"


async def test_a_user_namespace_is_pinned_once_with_its_map(world: World) -> None:
    first, second = await user(world), await user(world)
    try:
        assert os.fstat(first).st_ino == os.fstat(second).st_ino
        shown = await world.sh("cat /proc/self/uid_map /proc/self/gid_map", first)
        assert [line.split() for line in shown.splitlines()] == [
            [str(one.inside), str(one.outside), str(one.count)] for one in (*MAP.uids, *MAP.gids)
        ]
    finally:
        os.close(first)
        os.close(second)
    with pytest.raises(AlreadyExists, match="another map"):
        await mounts.user_namespace(world.spawner, world.pins / "user", VIEW)
    assert os.stat(world.pins / "user").st_size == 0  # the host sees an empty file


async def test_many_may_pin_the_same_user_namespace_at_once(world: World) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(mounts.user_namespace, world.spawner, world.pins / "user", MAP)
    assert [*await mounts.mounted(world.spawner, world.pins)] == [world.pins / "user"]


async def test_a_map_of_many_ranges(world: World) -> None:
    groups = tuple(IdRange(70_000 + n, 200_000 + 2 * n, 1) for n in range(200))
    many = IdMap(OWNER, (*OWNER, *groups))
    await mounts.user_namespace(world.spawner, world.pins / "many", many)
    await mounts.user_namespace(world.spawner, world.pins / "many", many)


async def test_a_network_namespace_belongs_to_its_owner(world: World) -> None:
    owner = await user(world)
    for _ in range(2):
        await mounts.network_namespace(world.spawner, world.pins / "net", world.pins / "user")
    net = await mounts.open_namespace(world.spawner, world.pins / "net")
    try:
        shown = await world.sh(
            "ip -br link show lo; ip link set lo down; ip link set lo up", owner, net
        )
        assert shown.split()[:2] == ["lo", "UNKNOWN"]
    finally:
        os.close(owner)
        os.close(net)


async def test_a_network_namespace_of_the_hosts_user_namespace(world: World) -> None:
    await mounts.network_namespace(world.spawner, world.pins / "net", None)
    os.close(await mounts.open_namespace(world.spawner, world.pins / "net"))
    with pytest.raises(NotFound):
        await mounts.network_namespace(world.spawner, world.pins / "other", world.pins / "none")
    assert [*await mounts.mounted(world.spawner, world.pins)] == [world.pins / "net"]


async def test_a_netlink_socket_lives_in_its_namespace(world: World) -> None:
    await mounts.network_namespace(world.spawner, world.pins / "net", None)
    net = await mounts.open_namespace(world.spawner, world.pins / "net")
    with await mounts.netlink_socket(world.spawner, world.pins / "net") as netlink:
        assert not netlink.getblocking()
        lives_in = fcntl.ioctl(netlink, SIOCGSKNS)
    assert os.fstat(lives_in).st_ino == os.fstat(net).st_ino
    os.close(lives_in)
    os.close(net)
    # The spawner itself has come back.
    host = os.readlink("/proc/self/ns/net")
    assert (await world.sh("readlink /proc/self/ns/net")).strip() == host
    with pytest.raises(NotFound):
        await mounts.netlink_socket(world.spawner, world.pins / "none")


async def test_a_root_file_system_has_the_owners_ids_inside_and_canonical_ones_on_disk(
    world: World,
) -> None:
    owner = await user(world)
    place = await rootfs(world)
    assert await rootfs(world) == place
    try:
        shown = await world.sh(
            f"cd {place}; id -u; stat -c %u:%g bin; touch new; touch daemon; chown 33:33 daemon;"
            " cp /bin/true su; chmod 4755 su; rmdir etc; stat -c %u:%g:%a daemon su",
            owner,
        )
    finally:
        os.close(owner)
    assert shown.split() == ["0", "0:0", "33:33:644", "0:0:4755"]
    upper = world.root / "up" / "upper"
    found = {entry.name: entry.lstat() for entry in upper.iterdir()}
    assert (found["new"].st_uid, found["daemon"].st_uid) == (0, 33)
    assert stat.S_IMODE(found["su"].st_mode) == 0o4755
    assert stat.S_ISCHR(found["etc"].st_mode)  # a whiteout
    assert [*place.iterdir()] == []  # the host sees an empty directory


async def test_device_nodes_of_an_image_do_not_work(world: World) -> None:
    os.mknod(world.root / "layers" / "a" / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    place = await rootfs(world)
    assert "refused" in await world.sh(f"cat {place}/null 2>&1 || echo refused")


async def test_unmounting(world: World) -> None:
    place = await rootfs(world, volatile=True)
    fd = await mounts.open_in_mounts(world.spawner, place)
    assert sorted(os.listdir(fd)) == ["bin", "etc"]
    with pytest.raises(Conflict):
        await mounts.unmount(world.spawner, place)
    os.close(fd)
    await mounts.unmount(world.spawner, place)
    await mounts.unmount(world.spawner, place)
    await mounts.unmount(world.spawner, world.root / "never" / "was")
    assert place not in await mounts.mounted(world.spawner, world.root)


async def test_many_layers_and_too_many(world: World) -> None:
    names = [f"{number:012x}" for number in range(400)]
    for name in names:
        (world.root / "layers" / name).mkdir()
    plain = IdMap.IDENTITY
    await mounts.idmapped_view(
        world.spawner, world.root / "layers", world.root / "view", plain, True
    )

    async def mount(lowers: list[str]) -> None:
        await mounts.overlay(
            world.spawner, world.root / "view", lowers, None, None, world.root / "root"
        )

    await mount(names[:128])
    await mounts.unmount(world.spawner, world.root / "root")
    with pytest.raises(InvalidArgument, match="400 layers"):
        await mount(names)
    with pytest.raises(NotFound):
        await mount(["a", "nothing"])
    with pytest.raises(InvalidArgument):
        await mount(["a", "b,upperdir=/tmp"])
    # The spawner has not stayed where it mounted from.
    assert await world.sh("pwd") == "/\n"


async def test_a_read_only_view_is(world: World) -> None:
    await mounts.idmapped_view(
        world.spawner, world.root / "layers", world.root / "view", IdMap.IDENTITY, True
    )
    shown = await world.sh(f"touch {world.root}/view/x 2>&1 || echo refused")
    assert "refused" in shown


async def test_names_with_odd_characters(world: World) -> None:
    odd = world.root / "a b\\040\tc\nd"
    odd.mkdir()
    for _ in range(2):
        await mounts.idmapped_view(world.spawner, world.root / "layers", odd, IdMap.IDENTITY, False)
    assert await mounts.mounted(world.spawner, odd) == [odd]
    await mounts.unmount(world.spawner, odd)


async def test_open_as_is_the_callers_word(world: World) -> None:
    private, mine = world.root / "private", world.root / "mine"
    for path, who in ((private, 0), (mine, 51_000)):
        path.write_text("text")
        path.chmod(0o600)
        os.chown(path, who, who)
    caller = Credentials(51_000, 51_000)
    fd = await mounts.open_as(world.spawner, str(mine), caller, os.O_RDWR)
    assert os.read(fd, 10) == b"text"
    assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    os.close(fd)
    with pytest.raises(PermissionDenied):
        await mounts.open_as(world.spawner, str(private), caller, os.O_RDONLY)
    with pytest.raises(PermissionDenied):
        await mounts.open_as(world.spawner, "/proc/self/fd/0", caller, os.O_RDONLY)
    os.mkfifo(world.root / "fifo", 0o666)
    with pytest.raises(PermissionDenied):
        await mounts.open_as(world.spawner, str(world.root / "fifo"), caller, os.O_RDONLY)


async def test_cancelled_anywhere_no_child_and_no_fd_is_left(world: World) -> None:
    helper = int((await world.sh("echo $PPID")).strip())
    caller, target = Credentials(51_000, 51_000), world.root / "target"
    before = set(os.listdir("/proc/self/fd")), set(os.listdir(f"/proc/{helper}/fd"))
    for step in range(25):
        with trio.move_on_after(step * 0.0004):
            await mounts.network_namespace(world.spawner, world.pins / f"net{step}", None)
            os.close(await mounts.open_namespace(world.spawner, world.pins / f"net{step}"))
            await mounts.grant_path(world.spawner, "/usr", caller, False, False, target)
            os.close(await mounts.open_as(world.spawner, "/usr", caller, os.O_RDONLY))
        await mounts.unmount(world.spawner, world.pins / f"net{step}")
        await mounts.unmount(world.spawner, target)
    assert before == (set(os.listdir("/proc/self/fd")), set(os.listdir(f"/proc/{helper}/fd")))
    with trio.fail_after(5):
        while Path(f"/proc/{helper}/task/{helper}/children").read_text().strip():
            await trio.sleep(0.01)
    assert target not in await mounts.mounted(world.spawner, world.root)

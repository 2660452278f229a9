"""Volumes: made, held, filled, shown in their owner's ids, removed; on a real store."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
import trio

from supervisor.errors import Conflict, InvalidArgument, NotFound
from supervisor.linux.spawner import Command
from supervisor.store.volumes import Volume
from tests.support.stores import ADA_IDENTITY, BOB_IDENTITY, World, world_in

pytestmark = pytest.mark.root

ADA = ADA_IDENTITY.owner
BOB = BOB_IDENTITY.owner


async def rootfs_with(world: World, key: str) -> Path:
    owner = await world.owners.owner_of(ADA_IDENTITY)
    place = world.store.layers.new_place()
    (place / "data" / "sub").mkdir(parents=True)
    (place / "data").chmod(0o2775)
    (place / "data" / "sub" / "file").write_text("x" * 5000)
    os.chown(place / "data" / "sub" / "file", 33, 33)
    (place / "data" / "link").symlink_to("/etc/passwd")
    os.mkfifo(place / "data" / "fifo")
    (place / "out").symlink_to("/etc")
    layer = await world.store.layers.adopt(place)
    return (await world.store.snapshots.prepare(key, [layer.id], owner)).rootfs


async def test_a_volume_is_its_owners_alone(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        volumes = world.store.volumes
        made = await volumes.create(ADA, "data", labels={"a": "b"})
        assert await volumes.create(ADA, "data") == made
        await volumes.create(BOB, "data")
        assert [volume.name for volume in await volumes.list(ADA)] == ["data"]
        assert len(await volumes.list(None)) == 2
        assert volumes.path(ADA, "data") != volumes.path(BOB, "data")
        await volumes.create(BOB, "private")
        for operation in (volumes.get, volumes.remove):
            with pytest.raises(NotFound):
                await operation(ADA, "private")
        await volumes.remove(ADA, "private", force=True)
        assert (await volumes.get(BOB, "private")).owner == BOB


@pytest.mark.parametrize("name", ["../x", ".x", "a/b", "-x", "a" * 300, "a\0", "ü", "a b"])
async def test_names_that_are_no_names(tmp_path: Path, name: str) -> None:
    async with world_in(tmp_path) as world:
        with pytest.raises(InvalidArgument, match=r"invalid characters|too short"):
            await world.store.volumes.create(ADA, name)
        with pytest.raises(InvalidArgument, match="is not served"):
            await world.store.volumes.create(ADA, "ok", options={"device": "/dev/sda"})


async def test_what_is_held_stays_and_what_is_anonymous_goes(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        volumes = world.store.volumes
        owner = await world.owners.owner_of(ADA_IDENTITY)
        named = await volumes.hold(owner, "named", "c1")
        anonymous = await volumes.hold(owner, "", "c1", anonymous=True)
        assert await volumes.hold(owner, anonymous, "c2", anonymous=True) == anonymous
        with pytest.raises(Conflict, match="in use"):
            await volumes.remove(ADA, named)
        await volumes.release("c1", remove_anonymous=True)
        assert [volume.name for volume in await volumes.list(ADA)] == sorted([named, anonymous])
        await volumes.release("c2", remove_anonymous=True)
        await volumes.release("c2", remove_anonymous=True)
        assert [volume.name for volume in await volumes.list(ADA)] == [named]
        assert not volumes.path(ADA, anonymous).exists()
        removed, _ = await volumes.prune(ADA, lambda volume: volume.anonymous)
        assert removed == []
        removed, _ = await volumes.prune(ADA, lambda _: True)
        assert [volume.name for volume in removed] == [named]
        page = await world.events.page(0, visible_to=ADA, limit=50)
        kinds = [event.type for event in page.events if event.type.startswith("volume")]
        assert kinds == [
            *("volume.create", "volume.create", "volume.destroy", "volume.prune"),
            *("volume.destroy", "volume.prune"),
        ]


async def test_the_first_use_fills_it_from_the_image(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        volumes = world.store.volumes
        owner = await world.owners.owner_of(ADA_IDENTITY)
        rootfs = await rootfs_with(world, "c1")
        name = await volumes.hold(owner, "vessel", "c1")
        await volumes.fill(owner, name, rootfs, "/data")
        disk = volumes.path(ADA, name)
        assert (disk / "sub" / "file").read_text() == "x" * 5000
        status = (disk / "sub" / "file").stat()
        assert (status.st_uid, status.st_gid) == (33, 33)
        assert (disk / "link").readlink() == Path("/etc/passwd")
        assert stat.S_ISFIFO((disk / "fifo").lstat().st_mode)
        assert stat.S_IMODE(disk.stat().st_mode) == 0o2775
        shown = await volumes.path_in_mounts(owner, name)
        command = Command(("/usr/bin/stat", "-c", "%u", str(shown), str(shown / "sub" / "file")))
        done = await world.spawner.run(command)
        assert done.stdout.split() == [b"1000", str(owner.id_map.uid_outside(33)).encode()]
        (disk / "sub" / "file").unlink()
        await volumes.fill(owner, name, rootfs, "/data")
        assert not (disk / "sub" / "file").exists()


async def test_a_hostile_image_fills_nothing_of_the_host(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        volumes = world.store.volumes
        owner = await world.owners.owner_of(ADA_IDENTITY)
        rootfs = await rootfs_with(world, "c1")
        for number, target in enumerate(
            ("/out", "/out/ssl", "../../../../etc", "/nowhere", "/data/link")
        ):
            name = await volumes.hold(owner, f"v{number}", "c1")
            await volumes.fill(owner, name, rootfs, target)
            found = {path.name for path in volumes.path(ADA, name).iterdir()}
            assert found <= {"hosts", "hostname", "resolv.conf"}, (
                target
            )  # the container's own /etc, at most


async def test_rows_and_directories_agree_after_a_crash(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        kept = await world.store.volumes.create(ADA, "kept")
    (tmp_path / "data" / "volumes" / f"u{ADA}" / "half" / "_data").mkdir(parents=True)
    async with world_in(tmp_path) as world:
        assert await world.store.volumes.list(ADA) == [kept]
        directory = tmp_path / "data" / "volumes" / f"u{ADA}"
        assert [path.name for path in directory.iterdir()] == ["kept"]


async def test_many_at_once_agree(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        volumes = world.store.volumes
        made: list[Volume] = []

        async def churn(number: int) -> None:
            made.append(await volumes.create(ADA, "same"))
            if number % 3 == 0:
                await volumes.remove(ADA, "same", force=True)

        async with trio.open_nursery() as nursery:
            for number in range(12):
                nursery.start_soon(churn, number)
        assert len(made) == 12
        for volume in await volumes.list(ADA):
            assert volumes.path(ADA, volume.name).is_dir()

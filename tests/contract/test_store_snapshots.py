"""Snapshots: prepared, written to, committed, removed, recovered, on real overlays and idmapped views."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest
import trio

from supervisor.access.owners import Owner
from supervisor.errors import Conflict, NotFound
from supervisor.linux import mounts
from supervisor.linux.spawner import Command, Credentials
from supervisor.store import layers as layer_store
from supervisor.store.layers import Layer
from tests.support.spawners import spawner_in
from tests.support.stores import ADA_IDENTITY, ROOT_IDENTITY, World, world_in

pytestmark = pytest.mark.root

KEY = "ab" * 32


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Where other users may look: pytest's own directory is closed to them, which would hide what ours are."""
    place = Path(tempfile.mkdtemp(prefix="bakehouse-", dir="/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)


async def layer_of(world: World, files: dict[str, str], mode: int = 0o755) -> Layer:
    place = world.store.layers.new_place()
    place.chmod(mode)
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return await world.store.layers.adopt(place)


async def shell(world: World, rootfs: Path, script: str, owner: Owner | None = None) -> str:
    """Run a script in M, in the root file system; as the owner's container root when told whose."""
    who = None
    if owner is not None:
        ids = owner.id_map
        who = Credentials(ids.uid_outside(0), ids.gid_outside(0)) if owner.remapped else None
    command = Command(
        ("/bin/sh", "-ec", script),
        env={"PATH": "/usr/bin:/bin"},
        cwd=str(rootfs),
        identity=who,
    )
    done = await world.spawner.run(command)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


async def test_what_is_written_becomes_a_layer_in_canonical_ids(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        owner = await world.owners.owner_of(ADA_IDENTITY)
        base = await layer_of(world, {"file": "old", "gone": "x", "dir/a": "1"})
        snapshot = await world.store.snapshots.prepare(KEY, [base.id], owner)
        again = await world.store.snapshots.prepare(KEY, [base.id], owner)
        assert again == snapshot
        told = await shell(world, snapshot.rootfs, "stat -c %u:%g file; cat file")
        assert told == "1000:1000\nold"
        await shell(world, snapshot.rootfs, "echo new > made; rm gone; rm -r dir; mkdir dir", owner)
        layer = await world.store.snapshots.commit(KEY)
        upper = world.store.layers.path(layer.id)
        assert (upper / "made").stat().st_uid == 0
        assert stat.S_ISCHR((upper / "gone").lstat().st_mode)
        assert os.getxattr(upper / "dir", "trusted.overlay.opaque") == b"y"
        with pytest.raises(NotFound):
            world.store.snapshots.get(KEY)
        second = await world.store.snapshots.prepare("s2", [base.id, layer.id], owner)
        assert (
            await shell(world, second.rootfs, "cat made; ls; ls dir")
            == "new\ndev\ndir\netc\nfile\nmade\nproc\nsys\n"
        )
        await world.store.snapshots.remove("s2")
        await world.store.snapshots.remove("s2")
        assert await mounts.mounted(world.spawner, tmp_path / "run" / "rootfs") == []


async def test_the_init_layer_hides_links_and_is_no_part_of_a_commit(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        owner = await world.owners.owner_of(ROOT_IDENTITY)
        place = world.store.layers.new_place()
        (place / "etc").symlink_to("/host")
        (place / "dev").symlink_to("../../x")
        (place / "proc").write_text("a file")
        base = await world.store.layers.adopt(place)
        snapshot = await world.store.snapshots.prepare(KEY, [base.id], owner)
        script = (
            "for d in etc dev proc sys; do test -d $d && test ! -L $d; done; test -f etc/hosts;"
        )
        await shell(world, snapshot.rootfs, script + "touch etc/hosts etc/mine; chmod 700 proc")
        layer = await world.store.snapshots.commit(KEY)
        found = sorted(
            str(p.relative_to(world.store.layers.path(layer.id)))
            for p in world.store.layers.path(layer.id).rglob("*")
        )
        assert found == ["etc", "etc/mine"]


async def test_an_opaque_root_hides_the_layers_below(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        owner = await world.owners.owner_of(ROOT_IDENTITY)
        hidden, top = await layer_of(world, {"old": "x"}), await layer_of(world, {"new": "x"})
        os.setxattr(world.store.layers.path(top.id), "trusted.overlay.opaque", b"y")
        snapshot = await world.store.snapshots.prepare(
            KEY, [hidden.id, top.id], owner, init_layer=False
        )
        assert await shell(world, snapshot.rootfs, "ls") == "new\n"


async def test_the_root_has_the_mode_of_the_topmost_layer(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        owner = await world.owners.owner_of(ROOT_IDENTITY)
        base = await layer_of(world, {"f": "x"}, mode=0o711)
        snapshot = await world.store.snapshots.prepare(KEY, [base.id], owner, kept=False)
        assert (await shell(world, snapshot.rootfs, "stat -c %a .")).strip() == "711"


async def test_no_other_user_comes_near_a_root_file_system(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        owner = await world.owners.owner_of(ADA_IDENTITY)
        base = await layer_of(world, {"f": "x"})
        snapshot = await world.store.snapshots.prepare(KEY, [base.id], owner)
        assert list(snapshot.rootfs.iterdir()) == []  # the host sees no mount
        gate = snapshot.rootfs.parents[1].stat()
        assert (gate.st_uid, gate.st_gid, stat.S_IMODE(gate.st_mode)) == (0, 1000, 0o710)
        stranger = attrs.evolve(
            Command(("/bin/ls", str(snapshot.rootfs))), identity=Credentials(65534, 65534)
        )
        assert (await world.spawner.run(stranger)).returncode != 0
        own = attrs.evolve(stranger, identity=Credentials(1000, 1000))
        assert (await world.spawner.run(own)).returncode == 0
        views = attrs.evolve(stranger, argv=("/bin/ls", str(tmp_path / "run" / "views" / "u1000")))
        assert (await world.spawner.run(views)).returncode != 0


async def test_kept_snapshots_outlive_the_daemon_and_a_reboot(tmp_path: Path) -> None:
    async with spawner_in(tmp_path / "run") as spawner:
        async with world_in(tmp_path, spawner) as world:
            owner = await world.owners.owner_of(ADA_IDENTITY)
            base = await layer_of(world, {"f": "x"})
            unused = await layer_of(world, {"u": "x"})
            for key, kept in (("keep", True), ("drop", True), ("step", False)):
                await world.store.snapshots.prepare(key, [base.id], owner, kept=kept)
            await shell(world, world.store.snapshots.get("keep").rootfs, "echo 1 > w", owner)
        (tmp_path / "data" / "layers" / "halfmade").mkdir()
        async with world_in(tmp_path, spawner) as world:
            await world.store.snapshots.recover({"keep"})
            below = await mounts.mounted(spawner, tmp_path / "run" / "rootfs")
            assert [place.parent.name for place in below] == ["keep"]
            layers = {path.name for path in (tmp_path / "data" / "layers").iterdir()}
            assert layers == {base.id, layer_store.INIT_LAYER}
            assert unused.id not in layers
    async with world_in(tmp_path) as world:  # another mount namespace: what a reboot leaves
        snapshot = await world.store.snapshots.mount("keep")
        assert await shell(world, snapshot.rootfs, "cat f w") == "x1\n"
        await world.store.snapshots.unmount("keep")
        await world.store.snapshots.unmount("keep")
        await world.store.snapshots.recover(())
        await wait_empty(tmp_path / "data" / "trash")
        assert list((tmp_path / "data" / "snapshots" / "u1000").iterdir()) == []


async def test_layers_go_when_nothing_needs_them(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        layers = world.store.layers
        owner = await world.owners.owner_of(ROOT_IDENTITY)
        fresh, leased, busy = [await layer_of(world, {"f": str(n)}) for n in range(3)]
        await layers.lease("build", [leased.id])
        await world.store.snapshots.prepare("step", [busy.id], owner, kept=False)
        layers.used([leased.id, busy.id])
        assert await layers.collect() == 0
        await layers.settle([fresh.id])
        await world.store.snapshots.remove("step")
        await layers.release("build")
        assert await layers.collect() == 2
        with pytest.raises(NotFound):
            await world.store.snapshots.prepare("late", [leased.id], owner)
        with pytest.raises(NotFound):
            await world.store.snapshots.prepare("late", [leased.id], owner, kept=False)


async def test_a_key_means_one_snapshot(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        owner = await world.owners.owner_of(ROOT_IDENTITY)
        one, two = await layer_of(world, {"f": "1"}), await layer_of(world, {"f": "2"})
        await world.store.snapshots.prepare(KEY, [one.id], owner)
        with pytest.raises(Conflict):
            await world.store.snapshots.prepare(KEY, [two.id], owner)
        assert await world.store.snapshots.usage(KEY) == 0


async def wait_empty(directory: Path) -> None:
    with trio.fail_after(20):
        while any(directory.iterdir()):
            await trio.sleep(0.02)


async def test_what_changed_in_one_that_goes_meanwhile(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        owner = await world.owners.owner_of(ADA_IDENTITY)
        base = await layer_of(world, {"file": "old"})
        snapshots = world.store.snapshots
        assert await snapshots.changes("never") == []
        await snapshots.prepare(KEY, [base.id], owner)
        assert await snapshots.changes(KEY) == []
        await snapshots.unmount(KEY)
        shutil.rmtree(snapshots.upper(KEY))
        with pytest.raises(NotFound):
            await snapshots.changes(KEY)
        await snapshots.remove(KEY)


async def test_who_holds_one_has_it_mounted_and_who_removes_it_cuts_them_off(
    tmp_path: Path,
) -> None:
    async with world_in(tmp_path) as world, trio.open_nursery() as nursery:
        owner = await world.owners.owner_of(ADA_IDENTITY)
        base = await layer_of(world, {"file": "old"})
        snapshots = world.store.snapshots

        async def mounted() -> bool:
            return bool(await mounts.mounted(world.spawner, world.config.run_root / "rootfs"))

        async with snapshots.held(KEY, [base.id], owner, lambda: True):
            assert await mounted()
            async with snapshots.held(KEY, [base.id], owner, lambda: True):
                await snapshots.unmount(KEY)
            assert await mounted()
        assert not await mounted()
        async with snapshots.held(KEY, [base.id], owner, lambda: True):
            await snapshots.prepare(KEY, [base.id], owner)  # it is started meanwhile
        assert await mounted()
        await snapshots.unmount(KEY)
        with pytest.raises(NotFound):
            async with snapshots.held(KEY, [base.id], owner, lambda: False):
                raise AssertionError

        async def hold() -> None:
            async with snapshots.held(KEY, [base.id], owner, lambda: True):
                nursery.start_soon(snapshots.remove, KEY)
                await trio.sleep_forever()

        with pytest.raises(Conflict, match="it was removed"):
            await hold()
    assert not (tmp_path / "run" / "rootfs" / "u1000" / KEY).exists()

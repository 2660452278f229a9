"""Snapshots and cgroups, cancelled anywhere: their own undoing leaves nothing, and doing it again succeeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.linux import mounts
from supervisor.linux.cgroup_model import CgroupLimits
from tests.support.cancelling import cancel_everywhere
from tests.support.engines import ADA_IDENTITY, IMAGE, Engine, engine_in

pytestmark = pytest.mark.root

KEY = "ab" * 32
GROUP = "u1000/abcdef"


async def layers_of(made: Engine) -> tuple[str, ...]:
    return tuple((await made.parts.store.images.resolve(ADA_IDENTITY, IMAGE)).layers)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_prepared_snapshot(kept: bool, root: Path) -> None:
    async with engine_in(root) as made:
        store, ground = made.parts.store, made.ground
        owner = await made.parts.owners.owner_of(ADA_IDENTITY)
        layers = await layers_of(made)
        runs = 0

        async def operation() -> None:
            await store.snapshots.prepare(KEY, layers, owner, kept=kept)

        async def check(completed: bool) -> None:
            nonlocal runs
            runs += 1
            if runs == 1:  # an owner's first one makes their views
                await store.snapshots.remove(KEY)
                await ground.remember()
                return
            if not completed and runs % 2:
                snapshot = await store.snapshots.prepare(KEY, layers, owner, kept=kept)
                assert snapshot.rootfs in await mounts.mounted(made.parts.spawner, snapshot.rootfs)
            await store.snapshots.remove(KEY)
            await ground.check_nothing_remains()

        assert await cancel_everywhere(operation, check) >= 4


async def test_a_snapshot_mounted_unmounted_committed_and_removed(root: Path) -> None:
    async with engine_in(root) as made:
        store, ground = made.parts.store, made.ground
        owner = await made.parts.owners.owner_of(ADA_IDENTITY)
        layers = await layers_of(made)
        runs = 0

        async def operation() -> None:
            await store.snapshots.prepare(KEY, layers, owner)
            await store.snapshots.unmount(KEY)
            await store.snapshots.mount(KEY)
            if runs % 2:
                layer = await store.snapshots.commit(KEY)
                await store.layers.settle([layer.id])
            await store.snapshots.remove(KEY)

        async def check(_: bool) -> None:
            nonlocal runs
            runs += 1
            await store.snapshots.remove(KEY)
            await store.layers.settle(list(store.layers._fresh))
            if runs == 1:
                await ground.remember()
            await ground.check_nothing_remains()

        assert await cancel_everywhere(operation, check) >= 10


async def test_a_group_created_and_cleared_while_something_runs_in_it(root: Path) -> None:
    async with engine_in(root) as made:
        tree, ground = made.parts.tree, made.ground
        await tree.create(1000, GROUP, CgroupLimits())
        await tree.clear(GROUP)
        await ground.remember()

        async def operation() -> None:
            await tree.create(1000, GROUP, CgroupLimits(pids=10))
            await tree.clear(GROUP)

        async def check(_: bool) -> None:
            await tree.clear(GROUP)
            await ground.check_nothing_remains()

        assert await cancel_everywhere(operation, check) >= 2

"""Copies out of and into containers and images of them, cancelled anywhere: no mount is left, nor anything else."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest

from supervisor.access.requests import CommitRequest, MountKind, MountRequest
from supervisor.oci.image import Execution
from supervisor.runtime import copies
from supervisor.runtime.commits import commit
from supervisor.store.spool import in_pieces
from tests.support.archives import tar_of
from tests.support.cancelling import Operation, cancel_everywhere
from tests.support.engines import ADA_IDENTITY, Engine, engine_in

pytestmark = [pytest.mark.root, pytest.mark.slow]

POINTS = 20
ARCHIVE = tar_of({f"directory/file{number}": bytes(100_000) for number in range(20)})


async def cancelled(made: Engine, operation: Operation) -> None:
    """At every checkpoint, of its own and of all tasks; afterwards nothing is left, and it still works."""
    await operation()  # what an owner and a container keep must not count
    ground = made.ground
    await ground.remember()

    async def check(_: bool) -> None:
        await ground.check_nothing_remains()

    for every_task in (False, True):
        await cancel_everywhere(operation, check, points=POINTS, every_task=every_task)
    await operation()


async def test_copying_out(root: Path) -> None:
    async with engine_in(root) as made:
        keeper = await made.create("true")

        async def operation() -> None:
            async with copies.outgoing(keeper, "/bin") as outgoing:
                assert outgoing.found.is_directory
                async for _ in outgoing.pieces:
                    pass

        await cancelled(made, operation)
        await made.remove(keeper)


async def test_copying_in(root: Path) -> None:
    async with engine_in(root) as made:
        await made.parts.store.volumes.create(1_000, "named")
        mounts = (MountRequest(MountKind.VOLUME, "/data", source="named"),)
        keeper = await made.create("true", mounts=mounts)

        async def operation() -> None:
            async with aclosing(in_pieces(ARCHIVE)) as archive:  # type: ignore[type-var]  # a generator
                await copies.incoming(keeper, "/data", archive, keep_kinds=True, as_user=False)

        await cancelled(made, operation)
        await made.remove(keeper)


async def test_committing_what_runs(root: Path) -> None:
    """It runs on, and is not left standing still; there is a whole image, or none and no layer."""
    async with engine_in(root) as made:
        keeper = await made.run("sh", "-c", "echo x > /new; exec sleep 600")
        images, cgroups = made.parts.store.images, made.parts.tree.cgroups

        async def operation() -> None:
            await commit(keeper, ADA_IDENTITY.uid, CommitRequest(reference="made"), Execution())

        async def check(completed: bool) -> None:
            assert await images.exists(ADA_IDENTITY, "made") or not completed
            if await images.exists(ADA_IDENTITY, "made"):
                await images.remove(ADA_IDENTITY, "made")
            assert not cgroups.frozen(keeper.group)
            if not ground.before.things:
                await ground.remember()
            await ground.check_nothing_remains()

        ground = made.ground
        for every_task in (False, True):
            await cancel_everywhere(operation, check, points=POINTS, every_task=every_task)
        assert keeper.alive
        await made.remove(keeper)


async def test_exporting_what_runs(root: Path) -> None:
    async with engine_in(root) as made:
        keeper = await made.run("sleep", "600")

        async def operation() -> None:
            async with copies.exported(keeper) as pieces:
                async for _ in pieces:
                    pass

        await cancelled(made, operation)
        assert keeper.alive
        await made.remove(keeper)

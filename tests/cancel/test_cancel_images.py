"""Images that come in, go out and go away, cancelled anywhere: they are whole or not there, and no layer is nobody's."""

from __future__ import annotations

from contextlib import aclosing
from pathlib import Path

import pytest

from supervisor.store.spool import in_pieces
from tests.support.archives import tar_of
from tests.support.cancelling import Operation, cancel_everywhere
from tests.support.engines import ADA_IDENTITY, IMAGE, Engine, engine_in

pytestmark = [pytest.mark.root, pytest.mark.slow]

POINTS = 20
MADE = "made:latest"
TREE = tar_of({f"directory/file{number}": bytes(100_000) for number in range(20)})


async def cancelled(made: Engine, operation: Operation, *, there: bool) -> None:
    """At every checkpoint, of its own and of all tasks: the image is there or not, and goes without a trace."""
    images, ground = made.parts.store.images, made.ground
    await ground.remember()
    before = blobs(made)

    async def check(completed: bool) -> None:
        found = await images.exists(ADA_IDENTITY, MADE)
        if completed:
            assert found is there
        if found:
            await images.remove(ADA_IDENTITY, MADE)
        await ground.check_nothing_remains()
        assert blobs(made) == before

    for every_task in (False, True):
        await cancel_everywhere(operation, check, points=POINTS, every_task=every_task)


def blobs(made: Engine) -> list[str]:
    """Contents that were kept or begun, and layers that were begun."""
    root = made.parts.data_root
    return sorted(str(path) for name in ("content", "partial") for path in (root / name).rglob("*"))


async def pieces_of(made: Engine, name: str) -> bytes:
    saved = b""
    async with aclosing(await made.parts.store.saving.save(ADA_IDENTITY, [name])) as pieces:
        async for piece in pieces:
            saved += piece
    return saved


async def import_tree(made: Engine) -> None:
    await made.parts.store.transfer.import_(ADA_IDENTITY, in_pieces(TREE, 100_000), MADE)


async def test_importing(root: Path) -> None:
    async with engine_in(root) as made:
        await cancelled(made, lambda: import_tree(made), there=True)


async def test_loading(root: Path) -> None:
    async with engine_in(root) as made:
        await import_tree(made)
        archive = await pieces_of(made, MADE)
        await made.parts.store.images.remove(ADA_IDENTITY, MADE)

        async def load() -> None:
            await made.parts.store.transfer.load(ADA_IDENTITY, in_pieces(archive))

        await cancelled(made, load, there=True)


async def test_saving(root: Path) -> None:
    async with engine_in(root) as made:

        async def save() -> None:
            assert await pieces_of(made, IMAGE)

        await save()  # what is known of a layer once it was packed stays known
        await cancelled(made, save, there=False)
        assert not made.parts.store.layers._busy


async def test_removing(root: Path) -> None:
    """It is there with all its layers, or nothing of it is."""
    async with engine_in(root) as made:
        images = made.parts.store.images
        await import_tree(made)
        await images.remove(ADA_IDENTITY, MADE)
        ground = made.ground
        await ground.remember()
        await import_tree(made)

        async def check(completed: bool) -> None:
            there = await images.exists(ADA_IDENTITY, MADE)
            assert not (completed and there)
            if not there:
                await ground.check_nothing_remains()
                await import_tree(made)

        for every_task in (False, True):
            await cancel_everywhere(
                lambda: images.remove(ADA_IDENTITY, MADE), check, every_task=every_task
            )

"""A build cancelled at its checkpoints: there is an image or none, and nothing else of it once its cache is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from supervisor.access.requests import BuildRequest
from supervisor.build.builds import open_builds
from supervisor.store.spool import in_pieces
from tests.support.archives import tar_of
from tests.support.cancelling import cancel_everywhere
from tests.support.engines import ADA_IDENTITY, Engine, engine_in

pytestmark = [pytest.mark.root, pytest.mark.slow]

POINTS = 20
PATIENCE_SECONDS = 30
MADE = "made:latest"
RECIPE = b"""FROM busybox AS first
COPY file /first
RUN cat /first > /second
FROM busybox
COPY --from=first /second /third
RUN --network=none test -s /third
"""
CONTEXT = tar_of({"Dockerfile": RECIPE, "file": b"content"})


async def test_a_build(root: Path) -> None:
    async with engine_in(root) as made, open_builds(made.parts) as builds:
        images, ground, known = made.parts.store.images, made.ground, layers(made)

        async def hear(_: object) -> None:
            await trio.lowlevel.checkpoint()

        async def build() -> None:
            request = BuildRequest(tags=(MADE,), no_cache=True)
            await builds.build(ADA_IDENTITY, request, in_pieces(CONTEXT), hear)

        async def check(completed: bool) -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                there = await images.exists(ADA_IDENTITY, MADE)
                assert there or not completed
                if there:
                    await images.remove(ADA_IDENTITY, MADE)
                await builds.prune(ADA_IDENTITY)
                if not ground.before.things:
                    await ground.remember()
                assert builds.at_work().get(ADA_IDENTITY.owner, 0) == 0
                await ground.check_nothing_remains()
            assert left(made) == []
            assert layers(made) == known

        await cancel_everywhere(build, check, points=POINTS, every_task=True)


def left(made: Engine) -> list[Path]:
    """Contexts, bundles and half-made layers."""
    data, run = made.parts.data_root, made.parts.run_root
    places = [*(data / "builds").glob("*"), *(data / "partial").glob("*")]
    return [*places, *(run / "builds").glob("u*/*")]


def layers(made: Engine) -> set[str]:
    return {path.name for path in (made.parts.data_root / "layers").iterdir()}

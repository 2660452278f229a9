"""Seating a container, cancelled at one moment after another: it is seated whole, or nothing of it remains."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from supervisor.access.requests import PortRequest
from supervisor.linux import mounts
from tests.support.cancelling import run_cancelled
from tests.support.networking import ANN, links_of, networks_in

pytestmark = pytest.mark.root
CHECKPOINTS_MIN, CHECKPOINTS_MAX = 10, 500
WITHIN_A_DETACH = 12


@pytest.mark.slow
async def test_a_cancelled_attach_leaves_nothing(tmp_path: Path) -> None:
    async with networks_in(tmp_path) as world:
        networks, config = world.networks, world.config
        pins = config.run_root / "ns" / "net"
        for at in range(1, CHECKPOINTS_MAX):
            container = f"{at:064x}"
            attach = partial(
                networks.attach, container, "c", ANN, "bridge", [PortRequest(80)], None
            )
            attached = await run_cancelled(attach, at)
            if networks.sandbox(container) is None:
                assert not attached.completed
                assert await mounts.mounted(world.spawner, pins) == []
                assert list(pins.iterdir()) == []
            await run_cancelled(partial(networks.detach, container), 1 + at % WITHIN_A_DETACH)
            await networks.detach(container)
            assert networks.sandbox(container) is None
            assert list(pins.iterdir()) == []
            if attached.completed:
                break
        assert CHECKPOINTS_MIN < at < CHECKPOINTS_MAX - 1
        await networks.attach("f" * 64, "c", ANN, "bridge", [], None)
        await networks.detach("f" * 64)
    assert await links_of(config) == set()

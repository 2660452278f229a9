"""Seating a container, cancelled at one moment after another: it is seated whole, or nothing of it remains."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from supervisor.access.owners import Owner, open_owners
from supervisor.access.requests import PortRequest
from supervisor.config import Config
from supervisor.database.database import open_database
from supervisor.events.journal import open_events
from supervisor.linux import mounts
from supervisor.linux.idmap import IdMap
from supervisor.linux.netlink import Netlink
from supervisor.network.networks import open_networks
from tests.support.spawners import spawner_in

pytestmark = pytest.mark.root
STEP_SECONDS = 0.0005
STEPS = 60
ANN = Owner(51_001, 51_001, "ann", (51_001,), None, IdMap.IDENTITY, IdMap.IDENTITY)


@pytest.mark.slow
async def test_a_cancelled_attach_leaves_nothing(tmp_path: Path) -> None:
    config = Config(data_root=tmp_path / "data", run_root=tmp_path / "run")
    config.data_root.mkdir()
    links = Netlink()
    outcomes = set()
    async with (
        spawner_in(config.run_root) as spawner,
        open_database(config.data_root / "db.sqlite") as database,
        open_events(database, config.journal) as events,
        open_owners(database, events, config) as owners,
        open_networks(database, events, spawner, owners, config) as networks,
    ):
        await networks.recover(())
        pins = config.run_root / "ns" / "net"
        for step in range(STEPS):
            container = f"{step:064x}"
            with trio.move_on_after(step * STEP_SECONDS):
                await networks.attach(container, "c", ANN, "bridge", [PortRequest(80)], None)
            endpoint = networks.sandbox(container)
            outcomes.add(endpoint is not None)
            if endpoint is None:
                assert await mounts.mounted(spawner, pins) == []
                assert list(pins.iterdir()) == []
            with trio.move_on_after(step * STEP_SECONDS / 8):
                await networks.detach(container)
            await networks.detach(container)
            assert networks.sandbox(container) is None
            assert list(pins.iterdir()) == []
        assert outcomes == {True, False}
        await networks.attach("f" * 64, "c", ANN, "bridge", [], None)
        await networks.detach("f" * 64)
    prefixes = (f"bh{config.instance_tag}-", f"bv{config.instance_tag}-")
    left = [link.name for link in await links.links() if link.name.startswith(prefixes)]
    links.close()
    assert left == []

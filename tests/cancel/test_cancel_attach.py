"""Seating a container, cancelled at one moment after another: it is seated whole, or nothing of it remains."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from supervisor.access.owners import Owner, open_owners
from supervisor.access.requests import PortRequest
from supervisor.config import Config
from supervisor.database.database import open_database
from supervisor.events.journal import open_events
from supervisor.linux import mounts
from supervisor.linux.idmap import IdMap
from supervisor.linux.netlink import Netlink
from supervisor.network.networks import open_networks
from tests.support.cancelling import run_cancelled
from tests.support.spawners import spawner_in

pytestmark = pytest.mark.root
CHECKPOINTS_MIN, CHECKPOINTS_MAX = 10, 500
WITHIN_A_DETACH = 12
ANN = Owner(51_001, 51_001, "ann", (51_001,), None, IdMap.IDENTITY, IdMap.IDENTITY)


@pytest.mark.slow
async def test_a_cancelled_attach_leaves_nothing(tmp_path: Path) -> None:
    config = Config(data_root=tmp_path / "data", run_root=tmp_path / "run")
    config.data_root.mkdir()
    async with (
        spawner_in(config.run_root) as spawner,
        open_database(config.data_root / "db.sqlite") as database,
        open_events(database, config.journal) as events,
        open_owners(database, events, config) as owners,
        open_networks(database, events, spawner, owners, config) as networks,
    ):
        await networks.recover(())
        pins = config.run_root / "ns" / "net"
        for at in range(1, CHECKPOINTS_MAX):
            container = f"{at:064x}"
            attach = partial(
                networks.attach, container, "c", ANN, "bridge", [PortRequest(80)], None
            )
            attached = await run_cancelled(attach, at)
            if networks.sandbox(container) is None:
                assert not attached.completed
                assert await mounts.mounted(spawner, pins) == []
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
    links = Netlink()
    prefixes = (f"bh{config.instance_tag}-", f"bv{config.instance_tag}-")
    left = [link.name for link in await links.links() if link.name.startswith(prefixes)]
    links.close()
    assert left == []

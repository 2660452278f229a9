"""The network floor alone, with what it makes on the host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from supervisor.access.owners import Owner, open_owners
from supervisor.config import Config
from supervisor.database.database import Database, open_database
from supervisor.events.journal import open_events
from supervisor.linux.idmap import IdMap
from supervisor.linux.netlink import Netlink
from supervisor.linux.spawner import Command, Spawner
from supervisor.network.networks import Networks, open_networks
from tests.support.people import ADA
from tests.support.spawners import spawner_in

ANN = Owner(ADA.uid, ADA.gid, "ann", (ADA.gid,), None, IdMap.IDENTITY, IdMap.IDENTITY)
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


@attrs.define
class NetworkWorld:
    """The networks, and what they stand on."""

    networks: Networks
    database: Database
    spawner: Spawner
    config: Config

    async def links(self) -> set[str]:
        """Ours on the host."""
        return await links_of(self.config)

    async def table(self) -> str:
        """Our rules."""
        command = Command(("nft", "list", "table", "inet", self.config.instance), ENV)
        return (await self.spawner.run(command)).stdout.decode()


async def links_of(config: Config) -> set[str]:
    """The links of an instance on the host."""
    sock = Netlink()
    try:
        found = {link.name for link in await sock.links()}
    finally:
        sock.close()
    tag = config.instance_tag
    return {name for name in found if name.startswith((f"bh{tag}-", f"bv{tag}-"))}


@asynccontextmanager
async def networks_in(root: Path) -> AsyncIterator[NetworkWorld]:
    """Recovered networks that have their data below ``root``."""
    config = Config(data_root=root / "data", run_root=root / "run")
    config.data_root.mkdir()
    async with (
        spawner_in(config.run_root) as spawner,
        open_database(config.data_root / "db.sqlite") as database,
        open_events(database, config.journal) as events,
        open_owners(database, events, config) as owners,
        open_networks(database, events, spawner, owners, config) as networks,
    ):
        await networks.recover(())
        yield NetworkWorld(networks, database, spawner, config)

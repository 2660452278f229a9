"""A whole store for a test: real database, journal, spawner, mounts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from supervisor.access.identity import Role
from supervisor.access.owners import Owners, open_owners
from supervisor.config import Config, StoreConfig
from supervisor.database.database import Database, open_database
from supervisor.events.journal import Events, open_events
from supervisor.linux.spawner import Spawner
from supervisor.store.store import Store, open_store
from tests.support.people import ADA, BOB, ROOT, ListedDirectory, identity
from tests.support.spawners import spawner_in

ADA_IDENTITY = identity(ADA)
BOB_IDENTITY = identity(BOB)
ROOT_IDENTITY = identity(ROOT, Role.ADMIN)
BOUNDS = StoreConfig(layer_bytes_max=64 << 20, layer_entries_max=20_000, layers_per_image_max=125)


@attrs.frozen
class World:
    """What a test of the store stands on."""

    config: Config
    database: Database
    events: Events
    owners: Owners
    spawner: Spawner
    store: Store


def config_in(path: Path) -> Config:
    return Config(data_root=path / "data", run_root=path / "run", store=BOUNDS)


@asynccontextmanager
async def world_in(path: Path, spawner: Spawner | None = None) -> AsyncIterator[World]:
    """A store below ``path``; with a ``spawner``, one more daemon's life in the same mount namespace."""
    if spawner is None:
        async with spawner_in(path / "run") as own, world_in(path, own) as world:
            yield world
        return
    config = config_in(path)
    config.data_root.mkdir(mode=0o700, exist_ok=True)
    async with (
        open_database(config.data_root / "database.sqlite") as database,
        open_events(database, config.journal) as events,
        open_owners(database, events, config, ListedDirectory()) as owners,
        open_store(database, events, spawner, owners, config) as store,
    ):
        yield World(config, database, events, owners, spawner, store)

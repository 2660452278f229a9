"""The store: everything that is on disk, opened and closed as one.

Words: see the modules of this package. Rules: opening is recovery: what has no row goes, what was half done is undone.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from supervisor.access.owners import Owners
from supervisor.config import Config
from supervisor.database.database import Database
from supervisor.events.journal import Events
from supervisor.linux.spawner import Spawner
from supervisor.store.bootstrap import Bootstrap
from supervisor.store.content import Content
from supervisor.store.images import Images
from supervisor.store.layers import Layers
from supervisor.store.saving import Saving
from supervisor.store.scan import Bounds
from supervisor.store.snapshots import Snapshots
from supervisor.store.spool import Spool
from supervisor.store.transfer import Transfer
from supervisor.store.trash import Trash
from supervisor.store.unpack import Unpacker
from supervisor.store.views import Views
from supervisor.store.volumes import Volumes
from supervisor.tasks import in_thread


@attrs.frozen
class Store:
    """What is on disk."""

    content: Content
    layers: Layers
    snapshots: Snapshots
    images: Images
    volumes: Volumes
    transfer: Transfer
    saving: Saving
    bootstrap: Bootstrap


@asynccontextmanager
async def open_store(
    database: Database, events: Events, spawner: Spawner, owners: Owners, config: Config
) -> AsyncIterator[Store]:
    """Open the store below ``config.data_root``.

    Raises:
        OSError: The disk is full or broken.
    """
    trash = Trash(config.data_root / "trash")
    await in_thread(trash.open)
    content = Content(config.data_root / "content")
    layers = Layers(config.data_root / "layers", content, database, trash)
    views = Views(config.data_root, config.run_root, spawner)
    snapshots = Snapshots(database, spawner, owners, layers, views, trash)
    images = Images(database, events, layers)
    await snapshots.open()
    volumes = Volumes(database, events, spawner, views, trash, owners.limits)
    bounds = Bounds(config.store.layer_bytes_max, config.store.layer_entries_max)
    spool = Spool(config.data_root, config.store.layer_bytes_max)
    transfer = Transfer(images, layers, spool, Unpacker(spawner, bounds), config.store)
    await layers.open()
    await volumes.open()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trash.empty_for_ever)
        yield Store(
            content=content,
            layers=layers,
            snapshots=snapshots,
            images=images,
            volumes=volumes,
            transfer=transfer,
            saving=Saving(images, layers),
            bootstrap=Bootstrap(spawner, transfer),
        )
        nursery.cancel_scope.cancel()

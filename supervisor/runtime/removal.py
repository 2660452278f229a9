"""Removing a container: what it held goes first, its row last."""

from __future__ import annotations

import shutil
from pathlib import Path

from protocol.events import ContainerDestroy, ContainerRemoveFail
from supervisor.access.requests import MountKind
from supervisor.errors import BakehouseError
from supervisor.runtime.assembly import dismantle
from supervisor.runtime.parts import Parts
from supervisor.runtime.row import Row
from supervisor.runtime.status import Cause
from supervisor.tasks import in_thread


async def remove_all(parts: Parts, row: Row, log_directory: Path, *, bare: bool) -> bool:
    """From ``removing`` on the container goes, with all it held; whether its layers have become needless with it.

    What is gone already is no trouble, so that recovery may do it again.

    Args:
        parts: What it was made with.
        row: Its row.
        log_directory: Where its log is.
        bare: Nothing of a run is left.

    Raises:
        BakehouseError: Something cannot be removed; the container is ``dead`` then.
    """
    record = row.record
    try:
        if not bare:
            await dismantle(parts, record)
        await parts.store.snapshots.remove(record.id)
        if any(mount.kind is MountKind.VOLUME for mount in record.mounts):
            await parts.store.volumes.release(record.id, remove_anonymous=row.state.volumes_too)
        await in_thread(lambda: shutil.rmtree(log_directory, ignore_errors=True))
    except BakehouseError as error:
        told = ContainerRemoveFail(reason=error.message)
        await row.advance(Cause.REMOVE_FAIL, told, error=error.message)
        raise
    return await row.delete(ContainerDestroy())

"""Images of containers: ``docker commit``.

Rules: what was written to the container becomes a layer by copying, so that it goes on as it was; its ids are canonical
already. While it is copied the container stands still, if that is asked for, without being paused: a daemon that ends
meanwhile leaves a container that runs, because the next one goes by its status.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from protocol.events import ContainerCommit
from supervisor import clock
from supervisor.access.requests import CommitRequest
from supervisor.oci import image as oci
from supervisor.oci.image import Execution, HealthCheck, History, ImageConfig
from supervisor.runtime.copies import GONE
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.spec import merge_environment
from supervisor.store.image_records import Image
from supervisor.store.images import wanted_name

DEFAULT_SIGNALS = frozenset({"", "SIGTERM", "15"})


def execution_of(record: ContainerRecord) -> Execution:
    """How a container is run, as an image says it; pure."""
    health = record.health
    return Execution(
        env=merge_environment(record.env),
        cmd=record.command,
        entrypoint=record.entrypoint,
        working_dir=record.working_dir,
        user=record.user,
        labels=record.labels,
        exposed_ports=record.exposed_ports,
        volumes=tuple(mount.target for mount in record.mounts if mount.anonymous),
        stop_signal="" if record.stop_signal in DEFAULT_SIGNALS else record.stop_signal,
        stop_seconds=record.request.stop_seconds,
        shell=record.shell or None,
        health=None
        if health is None
        else HealthCheck(
            test=health.test,
            interval_ns=health.interval_ns,
            timeout_ns=health.timeout_ns,
            start_period_ns=health.start_period_ns,
            retries=health.retries,
        ),
    )


def merged(said: Execution, own: Execution) -> Execution:
    """What is ``said`` over the container's own, by dockerd's rules; pure."""
    names = {entry.partition("=")[0] for entry in said.env}
    inherited = tuple(entry for entry in own.env if entry.partition("=")[0] not in names)
    return Execution(
        env=(*said.env, *inherited),
        cmd=said.cmd or (None if said.entrypoint else own.cmd),
        entrypoint=own.entrypoint if said.entrypoint is None else said.entrypoint,
        working_dir=said.working_dir or own.working_dir,
        user=said.user or own.user,
        labels={**own.labels, **said.labels},
        exposed_ports=tuple(dict.fromkeys((*said.exposed_ports, *own.exposed_ports))),
        volumes=tuple(dict.fromkeys((*said.volumes, *own.volumes))),
        stop_signal=said.stop_signal or own.stop_signal,
        stop_seconds=own.stop_seconds if said.stop_seconds is None else said.stop_seconds,
        shell=said.shell or own.shell,
        health=said.health or own.health,
        on_build=said.on_build,
    )


async def commit(keeper: Keeper, owner: int, request: CommitRequest, execution: Execution) -> Image:
    """Make an image of what a container's files are now.

    Args:
        keeper: The container's.
        owner: Whose the image is.
        request: What was asked for.
        execution: How containers of the image are run.

    Raises:
        InvalidArgument: The name is none.
        Conflict: The container is removed meanwhile.
        ResourceExhausted: The disk is full.
    """
    parts, record = keeper.parts, keeper.record
    names = [wanted_name(request.reference)] if request.reference else []
    base = await parts.store.images.config_of(record.image_id) or ImageConfig()
    layers = parts.store.layers
    made: list[str] = []
    try:
        async with layers.place() as place:
            async with _standing(keeper, request), _held(keeper):
                written = await parts.store.snapshots.copy_written(record.id, place)
            if written:
                made.append((await layers.adopt(place)).id)
        image = await parts.store.images.create_from(
            _config(base, record, request, execution, written=written),
            [*record.layers, *made],
            owner,
            names,
            parent=record.image_id,
        )
    finally:
        await layers.settle(made)
    reference = names[0].canonical if names else ""
    await keeper.row.tell(
        ContainerCommit(image=image.id, reference=reference, comment=request.comment)
    )
    return image


@asynccontextmanager
async def _standing(keeper: Keeper, request: CommitRequest) -> AsyncIterator[None]:
    if not request.pause:
        yield
        return
    async with keeper.frozen():
        yield


@asynccontextmanager
async def _held(keeper: Keeper) -> AsyncIterator[None]:
    parts, record = keeper.parts, keeper.record
    owner = await parts.owners.owner(record.owner, remapped=record.remapped)
    async with parts.store.snapshots.held(
        record.id, record.layers, owner, lambda: keeper.state.status not in GONE
    ):
        yield


def _config(
    base: ImageConfig,
    record: ContainerRecord,
    request: CommitRequest,
    execution: Execution,
    *,
    written: bool,
) -> ImageConfig:
    now = clock.rfc3339(clock.now_ns())
    step = History(
        created=now,
        created_by=" ".join(record.command or ()),
        comment=request.comment,
        author=request.author,
        empty_layer=not written,
    )
    told = {
        "container": record.id,
        "container_config": {
            "Hostname": record.hostname,
            "Image": record.image_reference,
            **oci.execution_table(execution_of(record)),
        },
    }
    return attrs.evolve(
        base,
        created=now,
        author=request.author,
        config=execution,
        history=(*base.history, step),
        extra={**base.extra, **told},
    )

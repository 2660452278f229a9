"""Looking at containers: list, inspect, prune."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from protocol.events import ContainerPrune
from supervisor.api.call import Call
from supervisor.api.docker.container_filters import FILTERS, Listed, Named, shows_all, wanted_by
from supervisor.api.docker.containers import found
from supervisor.api.docker.filter_tests import passes_labels
from supervisor.api.docker.shape_build import Filters, filters
from supervisor.api.docker.times import parse_moment
from supervisor.api.docker.view_container import Seen, inspect, listed
from supervisor.api.http import JsonObject, Response, json_response
from supervisor.clock import now_ns
from supervisor.errors import Conflict, InvalidArgument, NotFound
from supervisor.runtime.assembly import session_paths
from supervisor.runtime.log_settings import JSON_FILE
from supervisor.runtime.status import Status

if TYPE_CHECKING:
    from supervisor.runtime.keeper import Keeper

PRUNED = frozenset({Status.CREATED, Status.EXITED, Status.DEAD})


def seen(call: Call, keeper: Keeper, size_bytes: tuple[int, int] | None = None) -> Seen:
    """What is shown of a container."""
    return Seen(
        record=keeper.record,
        state=keeper.state,
        sandbox=keeper.sandbox,
        volume_path=functools.partial(call.services.store.volumes.path, keeper.record.owner),
        log_path=str(keeper.log) if keeper.record.request.log.driver in {"", JSON_FILE} else "",
        exec_ids=tuple(call.services.containers.execs_of(keeper)),
        size_bytes=size_bytes,
        run_directory=session_paths(keeper.parts.run_root, keeper.record).directory
        if keeper.alive
        else None,
        runtime=call.services.facts.runtime,
    )


async def size_bytes(call: Call, keeper: Keeper) -> tuple[int, int] | None:
    """What it has written, and that with its image's layers; what is being removed has no size."""
    return await with_layers(call, keeper, await _written_bytes(call, keeper))


async def with_layers(call: Call, keeper: Keeper, written: int) -> tuple[int, int] | None:
    """``written``, and that with the layers of its image; what is being removed has none."""
    try:
        layers = await call.services.store.layers.get(keeper.record.layers)
    except NotFound:
        return None
    return written, written + sum(layer.bytes for layer in layers)


async def _written_bytes(call: Call, keeper: Keeper) -> int:
    """What it has written; what has never run has nothing."""
    try:
        return await call.services.store.snapshots.usage(keeper.record.id)
    except NotFound:
        return 0


async def inspect_one(call: Call) -> Response:
    """``GET /containers/{id}/json``."""
    keeper = found(call)
    sizes = await size_bytes(call, keeper) if call.query.flag("size") else None
    return json_response(inspect(seen(call, keeper, sizes)))


async def list_all(call: Call) -> Response:
    """``GET /containers/json``: newest first."""
    chosen = filters(call.query, *FILTERS)
    limit, with_size = call.query.number("limit"), call.query.flag("size")
    everything = call.query.flag("all") or limit > 0 or shows_all(chosen)
    wanted = wanted_by(chosen, await _looked_up(call, chosen))
    keepers = [
        keeper
        for keeper in call.services.containers.visible_to(call.identity)
        if everything or keeper.active
    ]
    keepers.sort(key=lambda keeper: keeper.record.created_ns, reverse=True)
    images = await _image_names(call, keepers)
    now, entries = now_ns(), list[JsonObject]()
    for keeper in keepers:
        entry = listed(seen(call, keeper), now)
        await trio.lowlevel.checkpoint()  # expressions take their time
        if not all(test(_candidate(keeper, entry)) for test in wanted):
            continue
        entry["Image"] = images.get((keeper.record.owner, _made_of(keeper)), entry["Image"])
        if with_size and (sizes := await size_bytes(call, keeper)):
            entry |= {"SizeRw": sizes[0], "SizeRootFs": sizes[1]}
        entries.append(entry)
        if 0 < limit <= len(entries):
            break
    return json_response(entries)


def _candidate(keeper: Keeper, entry: JsonObject) -> Listed:
    record, state = keeper.record, keeper.state
    ended = not keeper.active and state.started_ns
    return Listed(
        entry,
        record.created_ns,
        record.layers,
        exit_code=state.exit_code if ended else None,
        health=state.health.status.value if state.health else "none",
    )


async def _looked_up(call: Call, chosen: Filters) -> Named:
    """What the filters name.

    Raises:
        NotFound: A container that ``before`` or ``since`` name, to the caller.
    """
    before, since = (
        [call.services.containers.find(call.identity, value) for value in chosen.get(name, ())]
        for name in ("before", "since")
    )
    ancestors = []
    for value in chosen.get("ancestor", ()):
        with suppress(NotFound, InvalidArgument):
            image = await call.services.store.images.resolve(call.identity, value)
            ancestors.append(image.layers)
    return Named(
        before_ns=min((keeper.record.created_ns for keeper in before), default=None),
        since_ns=max((keeper.record.created_ns for keeper in since), default=None),
        ancestors=ancestors,
    )


def _made_of(keeper: Keeper) -> tuple[str, str]:
    return keeper.record.image_reference, keeper.record.image_id


async def _image_names(
    call: Call, keepers: Sequence[Keeper]
) -> Mapping[tuple[int, tuple[str, str]], str]:
    """What the caller's containers' images are called, where that is not what they were: by owner and image.

    A name that was given to another image since, or taken away, would tell something that is not so.
    """
    names: dict[tuple[int, tuple[str, str]], str] = {}
    own = call.identity.owner
    for reference, image_id in {_made_of(one) for one in keepers if one.record.owner == own}:
        found_id = ""
        with suppress(NotFound, InvalidArgument):
            found_id = (await call.services.store.images.resolve(call.identity, reference)).id
        if found_id != image_id:
            names[own, (reference, image_id)] = image_id
    return names


async def prune(call: Call) -> Response:
    """``POST /containers/prune``: remove the caller's own that do not run."""
    chosen = filters(call.query, "label", "label!", "until")
    until_ns = prune_until(chosen)
    removed, reclaimed = list[str](), 0
    for keeper in call.services.containers.visible_to(call.identity):
        record = keeper.record
        if record.owner != call.identity.owner or keeper.state.status not in PRUNED:
            continue
        if until_ns is not None and record.created_ns > until_ns:
            continue
        if not passes_labels(record.labels, chosen):
            continue
        written = await _written_bytes(call, keeper)
        try:
            await keeper.perform(functools.partial(keeper.remove, force=False, volumes=False))
        except (Conflict, NotFound):
            continue  # started or removed by somebody else meanwhile
        removed.append(record.id)
        reclaimed += written
    await call.services.events.emit(
        ContainerPrune(reclaimed_bytes=reclaimed),
        owner=call.identity.owner,
        subject="",
        attributes={"reclaimed": str(reclaimed)},
    )
    return json_response({"ContainersDeleted": removed, "SpaceReclaimed": reclaimed})


def prune_until(chosen: Filters) -> int | None:
    """The ``until`` of a prune, nanoseconds since 1970; None if there is none.

    Raises:
        InvalidArgument: There are several, or it is no time; dockerd's wording.
    """
    values = chosen.get("until", ())
    if len(values) > 1:
        raise InvalidArgument("more than one until filter specified")
    return parse_moment("until", values[0], now_ns()) if values else None

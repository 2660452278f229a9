"""Looking at containers: list, inspect, prune."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from supervisor.api.call import Call
from supervisor.api.docker.containers import found
from supervisor.api.docker.shape_build import Filters, filters, labelled
from supervisor.api.docker.times import parse_time
from supervisor.api.docker.view_container import (
    Seen,
    inspect,
    listed,
    matches_name,
    network_name,
    spoken,
)
from supervisor.api.http import Response, json_response
from supervisor.clock import now_ns
from supervisor.errors import Conflict, InvalidArgument, NotFound
from supervisor.runtime.log_settings import JSON_FILE
from supervisor.runtime.status import Status

if TYPE_CHECKING:
    from supervisor.runtime.keeper import Keeper

FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
    "publish", "since", "status", "volume",
)  # fmt: skip
STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTHS = ("none", "starting", "healthy", "unhealthy")
PRUNED = frozenset({Status.CREATED, Status.EXITED, Status.DEAD})


def seen(call: Call, keeper: Keeper, size_bytes: tuple[int, int] | None = None) -> Seen:
    """What is shown of a container."""
    return Seen(
        record=keeper.record,
        state=keeper.state,
        endpoint=keeper.endpoint,
        volume_path=functools.partial(call.services.store.volumes.path, keeper.record.owner),
        log_path=str(keeper.log) if keeper.record.request.log.driver in {"", JSON_FILE} else "",
        exec_ids=tuple(call.services.containers.execs_of(keeper)),
        size_bytes=size_bytes,
    )


async def _size_bytes(call: Call, keeper: Keeper) -> tuple[int, int] | None:
    """What it has written, and that with its image's layers; what is being removed has no size."""
    try:
        layers = await call.services.store.layers.get(keeper.record.layers)
    except NotFound:
        return None
    written = await _written_bytes(call, keeper)
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
    size_bytes = await _size_bytes(call, keeper) if call.query.flag("size") else None
    return json_response(inspect(seen(call, keeper, size_bytes)))


async def list_all(call: Call) -> Response:
    """``GET /containers/json``: newest first."""
    chosen = filters(call.query, *FILTERS)
    limit = call.query.number("limit")
    keepers = call.services.containers.visible_to(call.identity)
    wanted = _tests(call, chosen)
    everything = call.query.flag("all") or limit > 0 or "status" in chosen or "exited" in chosen
    shown = [
        keeper
        for keeper in keepers
        if (everything or keeper.active) and all(test(keeper) for test in wanted)
    ]
    shown.sort(key=lambda keeper: keeper.record.created_ns, reverse=True)
    now = now_ns()
    with_size = call.query.flag("size")
    entries = [
        listed(seen(call, keeper, await _size_bytes(call, keeper) if with_size else None), now)
        for keeper in (shown[:limit] if limit > 0 else shown)
    ]
    return json_response(entries)


Test = Callable[["Keeper"], bool]


def _tests(call: Call, chosen: Filters) -> list[Test]:
    """One test for each filter: any of its values will do, of labels all must."""
    known: Mapping[str, Callable[[Sequence[str]], Test]] = {
        "ancestor": lambda values: (
            lambda keeper: any(_made_from(keeper, value) for value in values)
        ),
        "before": lambda values: _earlier(call, values),
        "exited": _exited,
        "expose": lambda values: lambda keeper: any(_exposes(keeper, value) for value in values),
        "health": _health,
        "id": lambda values: (
            lambda keeper: any(keeper.record.id.startswith(value) for value in values)
        ),
        "is-task": lambda values: lambda _: "false" in values,
        "isolation": lambda values: lambda _: "default" in values,
        "label": lambda values: lambda keeper: labelled(keeper.record.labels, tuple(values)),
        "name": lambda values: (
            lambda keeper: any(matches_name(keeper.record.name, value) for value in values)
        ),
        "network": lambda values: lambda keeper: any(_is_on(keeper, value) for value in values),
        "publish": lambda values: lambda keeper: any(_publishes(keeper, value) for value in values),
        "since": lambda values: _later(call, values),
        "status": _status,
        "volume": lambda values: lambda keeper: any(_mounts(keeper, value) for value in values),
    }
    return [known[name](values) for name, values in chosen.items() if values]


def _made_from(keeper: Keeper, value: str) -> bool:
    names = {keeper.record.image_reference, keeper.record.image_reference.removesuffix(":latest")}
    return value in names or keeper.record.image_id.removeprefix("sha256:").startswith(
        value.removeprefix("sha256:")
    )


def _earlier(call: Call, values: Sequence[str]) -> Test:
    created_ns = min(_named(call, value).record.created_ns for value in values)
    return lambda keeper: keeper.record.created_ns < created_ns


def _later(call: Call, values: Sequence[str]) -> Test:
    created_ns = max(_named(call, value).record.created_ns for value in values)
    return lambda keeper: keeper.record.created_ns > created_ns


def _named(call: Call, reference: str) -> Keeper:
    return call.services.containers.find(call.identity, reference)


def _exited(values: Sequence[str]) -> Test:
    codes = {
        int(value)
        for value in values
        if value.removeprefix("-").isdecimal() and len(value) <= len("-2147483648")
    }
    if not codes:
        raise InvalidArgument("invalid filter 'exited'", "an exit code, like exited=137")
    return lambda keeper: keeper.state.status is Status.EXITED and keeper.state.exit_code in codes


def _status(values: Sequence[str]) -> Test:
    for value in values:
        if value not in STATUSES:
            raise InvalidArgument(f"invalid filter 'status={value[:40]}'", ", ".join(STATUSES))
    return lambda keeper: spoken(keeper.state).value in values


def _health(values: Sequence[str]) -> Test:
    for value in values:
        if value not in HEALTHS:
            raise InvalidArgument(f"invalid filter 'health={value[:40]}'", ", ".join(HEALTHS))
    return lambda keeper: (
        (keeper.state.health.status.value if keeper.state.health else "none") in values
    )


def _exposes(keeper: Keeper, value: str) -> bool:
    return _with_protocol(value) in keeper.record.exposed_ports


def _publishes(keeper: Keeper, value: str) -> bool:
    ports = keeper.endpoint.ports if keeper.endpoint else ()
    return any(f"{port.container_port}/{port.protocol}" == _with_protocol(value) for port in ports)


def _with_protocol(value: str) -> str:
    return value if "/" in value else f"{value}/tcp"


def _is_on(keeper: Keeper, value: str) -> bool:
    network_id = keeper.endpoint.network_id if keeper.endpoint else ""
    return value in {network_name(keeper.record), network_id}


def _mounts(keeper: Keeper, value: str) -> bool:
    return any(value in {mount.source, mount.target} for mount in keeper.record.mounts)


async def prune(call: Call) -> Response:
    """``POST /containers/prune``: remove the caller's own that do not run."""
    chosen = filters(call.query, "label", "label!", "until")
    until_ns = parse_time("until", next(iter(chosen.get("until", ())), ""))
    removed, reclaimed = list[str](), 0
    for keeper in call.services.containers.visible_to(call.identity):
        record = keeper.record
        unwanted = "label!" in chosen and labelled(record.labels, chosen["label!"])
        if record.owner != call.identity.owner or keeper.state.status not in PRUNED or unwanted:
            continue
        if not labelled(record.labels, chosen.get("label", ())) or (
            until_ns and record.created_ns >= until_ns
        ):
            continue
        written = await _written_bytes(call, keeper)
        try:
            await keeper.perform(functools.partial(keeper.remove, force=False, volumes=False))
        except (Conflict, NotFound):
            continue  # started or removed by somebody else meanwhile
        removed.append(record.id)
        reclaimed += written
    return json_response({"ContainersDeleted": removed, "SpaceReclaimed": reclaimed})

"""The filters of ``GET /containers/json``, as tests of what would be listed. Pure.

They look at the entry that clients are shown, so that what is filtered by is what is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

from attrs import frozen

from supervisor.api.docker.filter_tests import labelled, named, ports
from supervisor.api.docker.shape_build import Filters, flag_filter
from supervisor.api.http import JsonObject
from supervisor.errors import InvalidArgument

FILTERS = (
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "name", "network",
    "publish", "since", "status", "volume",
)  # fmt: skip
STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTHS = ("none", "starting", "healthy", "unhealthy")
EXIT_CODE_LENGTH_MAX = len("-2147483648")


@frozen
class Listed:
    """A container that may be listed.

    Attributes:
        entry: What is shown of it.
        created_ns: For what came before and after.
        layers: Of its image, bottom first.
        exit_code: Of its last run; None if it runs, or never ran.
        health: Docker's word for it.
    """

    entry: JsonObject
    created_ns: int
    layers: tuple[str, ...] = ()
    exit_code: int | None = None
    health: str = "none"


@frozen
class Named:
    """What the filters name, looked up for the caller.

    Attributes:
        before_ns: When what ``before`` names was created, likewise ``since_ns``.
        ancestors: The layers of each image that ``ancestor`` names; what is not there is left out.
    """

    before_ns: int | None = None
    since_ns: int | None = None
    ancestors: Sequence[tuple[str, ...]] = ()


Test = Callable[[Listed], bool]


def wanted_by(chosen: Filters, looked_up: Named) -> list[Test]:
    """One test for each filter.

    Raises:
        InvalidArgument: A value makes no sense; dockerd's wording.
    """
    known: Mapping[str, Callable[[Sequence[str]], Test]] = {
        "ancestor": lambda _: lambda one: _descends(one, looked_up.ancestors),
        "before": lambda _: _created(lambda time_ns: time_ns < (looked_up.before_ns or 0)),
        "exited": _exited,
        "health": _health,
        "id": lambda values: lambda one: _text(one, "Id").startswith(tuple(values)),
        "is-task": lambda _: _is_task(chosen),
        "isolation": lambda _: lambda _: True,  # there is one kind on Linux, as dockerd says
        "label": lambda values: (
            lambda one: labelled(cast("Mapping[str, str]", one.entry["Labels"]), values)
        ),
        "name": _named,
        "network": _on_network,
        "since": lambda _: _created(lambda time_ns: time_ns > (looked_up.since_ns or 0)),
        "status": _status,
        "volume": _mounts,
    }
    found = [known[name](values) for name, values in chosen.items() if values and name in known]
    return [*found, *_at_ports(chosen)]


def shows_all(chosen: Filters) -> bool:
    """Whether what does not run is listed, too, because of what is asked for."""
    return bool(chosen.get("status") or chosen.get("exited"))


def _text(one: Listed, field: str) -> str:
    return str(one.entry[field])


def _objects(one: Listed, field: str) -> Sequence[JsonObject]:
    return cast("Sequence[JsonObject]", one.entry[field])


def _created(test: Callable[[int], bool]) -> Test:
    return lambda one: test(one.created_ns)


def _descends(one: Listed, ancestors: Sequence[tuple[str, ...]]) -> bool:
    return any(one.layers[: len(layers)] == layers for layers in ancestors)


def _exited(values: Sequence[str]) -> Test:
    for value in values:
        if not value.removeprefix("-").isdecimal() or len(value) > EXIT_CODE_LENGTH_MAX:
            raise InvalidArgument(
                f"invalid filter 'exited={value[:40]}'", "an exit code, like exited=137"
            )
    codes = frozenset(map(int, values))
    return lambda one: one.exit_code in codes


def _health(values: Sequence[str]) -> Test:
    for value in values:
        if value not in HEALTHS:
            raise InvalidArgument(
                f"Unrecognised filter value for health: {value[:40]}", ", ".join(HEALTHS)
            )
    return lambda one: one.health in values


def _is_task(chosen: Filters) -> Test:
    wanted = flag_filter(chosen, "is-task")
    return lambda _: wanted is not True


def _named(values: Sequence[str]) -> Test:
    test = named(values)
    return lambda one: any(
        test(name) or test(name.removeprefix("/"))
        for name in cast("Sequence[str]", one.entry["Names"])
    )


def _on_network(values: Sequence[str]) -> Test:
    ids = tuple(filter(None, values))

    def test(one: Listed) -> bool:
        settings = cast("Mapping[str, Mapping[str, JsonObject]]", one.entry["NetworkSettings"])
        return any(
            name in values or str(network["NetworkID"] or "-").startswith(ids)
            for name, network in settings["Networks"].items()
        )

    return test


def _status(values: Sequence[str]) -> Test:
    for value in values:
        if value not in STATUSES:
            raise InvalidArgument(f"invalid filter 'status={value[:40]}'", ", ".join(STATUSES))
    return lambda one: one.entry["State"] in values


def _mounts(values: Sequence[str]) -> Test:
    def test(one: Listed) -> bool:
        return any(
            mount["Destination"] in values or (mount.get("Name") or mount["Source"]) in values
            for mount in _objects(one, "Mounts")
        )

    return test


def _at_ports(chosen: Filters) -> list[Test]:
    """One test for both kinds: dockerd takes what passes either."""
    published = ports("publish", chosen.get("publish", ()))
    exposed = ports("expose", chosen.get("expose", ()))

    def test(one: Listed) -> bool:
        return any(
            f"{port.get('PublicPort', 0)}/{port['Type']}" in published
            or f"{port['PrivatePort']}/{port['Type']}" in exposed
            for port in _objects(one, "Ports")
        )

    return [test] if published or exposed else []

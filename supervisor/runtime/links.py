"""Links on the default bridge, where nobody has a name: lines in ``/etc/hosts`` and variables, as Docker had them first.

Rules: a link is settled when its container is created, by the other's id, among one's own; it is told anew at each start,
when the other must run. What it tells, address, ports and variables, is of that moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from supervisor.errors import Conflict, InvalidArgument, NotFound
from supervisor.network.endpoints import DEFAULT_BRIDGE, linked
from supervisor.runtime.connections import network_name
from supervisor.runtime.status import ALIVE

if TYPE_CHECKING:
    from supervisor.access.requests import ContainerRequest
    from supervisor.network.networks import Networks
    from supervisor.runtime.joining import Find
    from supervisor.runtime.keeper import Keeper
    from supervisor.runtime.records import ContainerRecord


def settled_links(request: ContainerRequest, owner: int, find: Find) -> tuple[tuple[str, str], ...]:
    """The links a new container asks for: the other's id, and what it is called.

    Raises:
        NotFound: There is no such container of theirs; Docker's wording.
        InvalidArgument: It is none, or the container is not on the default bridge; Docker's wording.
    """
    mode = network_name(request.network_mode)
    if request.links and mode != DEFAULT_BRIDGE:
        kind = "host type networking" if mode == "host" else "container type network"
        raise InvalidArgument(
            f"conflicting options: {kind} can't be used with links. This would result in undefined behavior"
        )
    settled = []
    for text, (alias, _) in zip(request.links, linked(request.links), strict=True):
        name = text.partition(":")[0]
        missing = NotFound(f"could not get container for {name}: No such container: {name}")
        try:
            other, _ = find(name)
        except NotFound:
            raise missing from None
        if other.owner != owner:
            raise missing
        settled.append((other.id, alias))
    return tuple(settled)


def with_links(networks: Networks, record: ContainerRecord, find: Find) -> ContainerRecord:
    """The container as it is run: with what its links tell of the others.

    Raises:
        Conflict: One of them does not run; Docker's wording.
    """
    names: list[str] = []
    variables: list[str] = []
    for other_id, alias in record.links:
        try:
            other, state = find(other_id)
        except NotFound:
            continue  # it was removed, and the link with it
        sandbox = networks.sandbox(other_id)
        if state.status not in ALIVE or sandbox is None:
            raise Conflict(
                f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}"
            )
        there = [one for one in sandbox.endpoints if one.network_name == DEFAULT_BRIDGE]
        for endpoint in there:
            called = dict.fromkeys((alias, other.hostname, other.name))
            names += [f"{name}:{endpoint.address}" for name in called]
            variables += _variables(record.name, alias, other, endpoint.address)
    request = attrs.evolve(record.request, extra_hosts=(*record.request.extra_hosts, *names))
    return attrs.evolve(record, request=request, env=(*variables, *record.env))


async def unlink(keeper: Keeper, alias: str) -> None:
    """The container calls nobody so from its next start on.

    Raises:
        NotFound: It did not; Docker's wording.
    """
    async with keeper.turn:
        record = keeper.record
        left = tuple(link for link in record.links if link[1] != alias)
        if left == record.links:
            raise NotFound(f"No such link: /{record.name}/{alias}")
        await keeper.row.recast(attrs.evolve(record, links=left))


def _variables(name: str, alias: str, other: ContainerRecord, address: str) -> Iterator[str]:
    prefix = alias.replace("-", "_").upper()
    yield f"{prefix}_NAME=/{name}/{alias}"
    exposed = sorted(other.exposed_ports, key=lambda port: int(port.partition("/")[0]))
    for position, port in enumerate(exposed):
        number, _, protocol = port.partition("/")
        whole = f"{protocol}://{address}:{number}"
        if position == 0:
            yield f"{prefix}_PORT={whole}"
        one = f"{prefix}_PORT_{number}_{protocol.upper()}"
        yield f"{one}={whole}"
        yield f"{one}_ADDR={address}"
        yield f"{one}_PORT={number}"
        yield f"{one}_PROTO={protocol}"
    for variable in other.env:
        key, equals, value = variable.partition("=")
        if equals and key != "PATH":
            yield f"{prefix}_ENV_{key}={value}"

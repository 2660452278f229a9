"""Networks over HTTP: list, create, inspect, remove, prune; connecting containers and disconnecting them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from supervisor.access.policy import Action
from supervisor.api.call import Call
from supervisor.api.docker.filter_tests import labelled, named, passes_labels
from supervisor.api.docker.shape_build import Filters, filters, flag_filter
from supervisor.api.docker.shape_network import (
    connect_request,
    disconnect_request,
    network_request,
)
from supervisor.api.docker.times import parse_moment
from supervisor.api.http import JsonObject, Response, empty_response, json_response
from supervisor.clock import now_ns, rfc3339
from supervisor.errors import Conflict, InvalidArgument, NotFound
from supervisor.network.endpoints import Network
from supervisor.runtime.connecting import connect as connect_container
from supervisor.runtime.connecting import disconnect as disconnect_container
from supervisor.runtime.connecting import forget_network

if TYPE_CHECKING:
    from supervisor.network.endpoints import AddressPool, Endpoint, NetworkView
    from supervisor.runtime.keeper import Keeper

FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
TYPES = ("builtin", "custom")


def view(network: NetworkView, *, with_members: bool) -> JsonObject:
    """A network in Docker's JSON."""
    members = {
        member.container_id: _member(member.name, member.endpoint) for member in network.members
    }
    record = network.record
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_ns),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": bool(record and record.ipv6),
        "IPAM": {
            "Driver": "default",
            "Options": None,
            "Config": [_pool(pool) for pool in record.pools] if record else [],
        },
        "Internal": bool(record and record.internal),
        "Attachable": bool(record and record.attachable),
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": members if with_members else {},
        "Options": dict(record.options) if record else {},
        "Labels": dict(record.labels) if record else {},
    }


def _pool(pool: AddressPool) -> JsonObject:
    shown: JsonObject = {"Subnet": str(pool.subnet)}
    if pool.ip_range is not None:
        shown["IPRange"] = str(pool.ip_range)
    shown["Gateway"] = str(pool.gateway)
    if pool.auxiliary:
        shown["AuxiliaryAddresses"] = dict(pool.auxiliary)
    return shown


def _member(name: str, endpoint: Endpoint) -> JsonObject:
    ipv4 = f"{endpoint.address}/{endpoint.prefix_length}" if endpoint.address else ""
    ipv6 = f"{endpoint.ipv6_address}/{endpoint.ipv6_prefix_length}" if endpoint.ipv6_address else ""
    return {
        "Name": name,
        "EndpointID": endpoint.endpoint_id,
        "MacAddress": endpoint.mac,
        "IPv4Address": ipv4,
        "IPv6Address": ipv6,
    }


def list_all(call: Call) -> Response:
    """``GET /networks``."""
    chosen = filters(call.query, *FILTERS)
    shown = [
        view(network, with_members=False)
        for network in call.services.networks.list(call.identity)
        if _passes(network, chosen)
    ]
    return json_response(shown)


def _passes(network: NetworkView, chosen: Filters) -> bool:
    dangling = flag_filter(chosen, "dangling")
    for value in chosen.get("type", ()):
        if value not in TYPES:
            raise InvalidArgument(f"invalid filter: 'type'='{value[:40]}'", ", ".join(TYPES))
    tests: dict[str, Callable[[str], bool]] = {
        "name": lambda value: named([value])(network.name),
        "id": lambda value: value in network.id,
        "driver": lambda value: value == network.driver,
        "scope": lambda value: value == "local",
        "type": lambda value: (value == "builtin") is network.builtin,
    }
    labels = network.record.labels if network.record else {}
    return (
        (dangling is None or dangling is (not network.members and not network.builtin))
        and labelled(labels, chosen.get("label", ()))
        and all(any(map(tests[name], chosen[name])) for name in tests if chosen.get(name))
    )


async def create(call: Call) -> Response:
    """``POST /networks/create``."""
    request = network_request(await call.json())
    await call.allow(Action.NETWORK_CREATE, request, request.name)
    made = await call.services.networks.create(call.identity.owner, request)
    return json_response({"Id": made.id, "Warning": ""}, 201)


def inspect_one(call: Call) -> Response:
    """``GET /networks/{id}``."""
    scope = call.query.text("scope")
    if scope not in {"", "local", "swarm", "global"}:
        raise InvalidArgument(f"invalid scope {scope[:40]!r}", "local")
    return json_response(
        view(call.services.networks.inspect(call.identity, call["id"]), with_members=True)
    )


async def remove(call: Call) -> Response:
    """``DELETE /networks/{id}``."""
    await call.services.networks.remove(call.identity, call["id"])
    return empty_response()


async def prune(call: Call) -> Response:
    """``POST /networks/prune``: remove the caller's own that nobody is on."""
    chosen = filters(call.query, "label", "label!", "until")
    now = now_ns()
    until_ns = [parse_moment("until", value, now) for value in chosen.get("until", ())]

    def unwanted(network: Network) -> bool:
        old = all(network.created_ns < one for one in until_ns)
        return old and passes_labels(network.labels, chosen)

    removed = await call.services.networks.prune(call.identity.owner, unwanted)
    return json_response({"NetworksDeleted": removed or None})


async def connect(call: Call) -> Response:
    """``POST /networks/{id}/connect``."""
    container, request = connect_request(await call.json(), call["id"])
    await call.allow(Action.NETWORK_CONNECT, request, call["id"])
    keeper, network = await _both(call, container)
    wished = attrs.evolve(request, network=network.id)
    await keeper.perform(lambda: connect_container(keeper, network, wished))
    return empty_response(200)


async def disconnect(call: Call) -> Response:
    """``POST /networks/{id}/disconnect``."""
    container, force = disconnect_request(await call.json(), call["id"])
    try:
        keeper, network = await _both(call, container)
    except NotFound:
        if not force:
            raise
        # A container that does not run may still be said to be on a network that has gone.
        keeper, gone = call.services.containers.find(call.identity, container), call["id"]
        await keeper.perform(lambda: forget_network(keeper, gone))
        return empty_response(200)
    await keeper.perform(lambda: disconnect_container(keeper, network))
    return empty_response(200)


async def _both(call: Call, container: str) -> tuple[Keeper, Network]:
    """The container, and its owner's network.

    Raises:
        NotFound: The caller may know of no such one.
        Conflict: The network is no bridge; Docker's wording.
    """
    keeper = call.services.containers.find(call.identity, container)
    network = await call.services.networks.network(keeper.record.owner, call["id"])
    if not isinstance(network, Network):
        raise Conflict(
            "container cannot be disconnected from host network or connected to host network"
            if network.name == "host"
            else "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    return keeper, network

"""Networks over HTTP: everybody has the three that Docker always has; making others is not served yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from supervisor.api.call import Call
from supervisor.api.docker.shape_build import Filters, filters
from supervisor.api.http import JsonObject, Response, json_response
from supervisor.clock import rfc3339

if TYPE_CHECKING:
    from supervisor.network.endpoints import NetworkView

FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")


def view(network: NetworkView, *, with_members: bool) -> JsonObject:
    """A network in Docker's JSON."""
    members = {
        member.container_id: {
            "Name": member.name,
            "EndpointID": member.endpoint_id,
            "MacAddress": member.mac,
            "IPv4Address": f"{member.address}/{member.prefix_length}" if member.address else "",
            "IPv6Address": "",
        }
        for member in network.members
    }
    addresses = [{"Subnet": network.subnet, "Gateway": network.gateway}] if network.subnet else []
    return {
        "Name": network.name,
        "Id": network.id,
        "Created": rfc3339(network.created_ns),
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": False,
        "IPAM": {"Driver": "default", "Options": None, "Config": addresses},
        "Internal": False,
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": members if with_members else {},
        "Options": {},
        "Labels": {},
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
    tests: dict[str, Callable[[str], bool]] = {
        "name": lambda value: value in network.name,
        "id": network.id.startswith,
        "driver": lambda value: value == network.driver,
        "scope": lambda value: value == "local",
        "type": lambda value: value == "builtin",
        "label": lambda _: False,
        "dangling": lambda value: value in {"0", "false"},
    }
    return all(any(map(tests[name], values)) for name, values in chosen.items() if values)


def inspect_one(call: Call) -> Response:
    """``GET /networks/{id}``."""
    return json_response(
        view(call.services.networks.inspect(call.identity, call["id"]), with_members=True)
    )


def prune(call: Call) -> Response:
    """``POST /networks/prune``: there are none that could go."""
    filters(call.query, "label", "label!", "until")
    return json_response({"NetworksDeleted": None})

"""A container's networks and ports as Docker's JSON. Pure.

What there is none of is there all the same, empty: clients are written against that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.api.http import JsonObject
from supervisor.runtime.connections import SHARED, WITHOUT, network_name

if TYPE_CHECKING:
    from supervisor.network.endpoints import Connection, Endpoint, Sandbox
    from supervisor.runtime.records import ContainerRecord

DEFAULT = "bridge"


def network_settings(record: ContainerRecord, sandbox: Sandbox | None) -> JsonObject:
    """``NetworkSettings``; the fields beside ``Networks`` are those of the default bridge."""
    networks = endpoint_settings(record, sandbox)
    default = networks.get(DEFAULT, {})
    empty: JsonObject = {
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "MacAddress": "",
        "EndpointID": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "IPv6Gateway": "",
    }
    return {
        "Bridge": "",
        "SandboxID": record.id if sandbox else "",
        "SandboxKey": str(sandbox.netns_pin or "") if sandbox else "",
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        "Ports": port_map(record, sandbox),
        **{name: default.get(name, value) for name, value in empty.items()},
        "Networks": networks,
    }


def endpoint_settings(record: ContainerRecord, sandbox: Sandbox | None) -> dict[str, JsonObject]:
    """``Networks`` by name; a container that does not run has endpoints without addresses."""
    mode = network_name(record.request.network_mode)
    if mode.startswith(SHARED):
        return {}
    there = {} if sandbox is None else {one.network_name: one for one in sandbox.endpoints}
    wished = {one.name: one for one in record.connections or ()}
    if mode not in there and (mode in WITHOUT or record.connections is None):
        return {mode: _settings(record, None, None)}
    names = dict.fromkeys((*wished, *there))
    return {name: _settings(record, wished.get(name), there.get(name)) for name in names}


def _settings(
    record: ContainerRecord, wished: Connection | None, endpoint: Endpoint | None
) -> JsonObject:
    network_id = endpoint.network_id if endpoint else wished.network_id if wished else ""
    return {
        "IPAMConfig": _addresses_asked(wished),
        "Links": list(wished.links) or None if wished else None,
        "Aliases": _aliases(record, wished, endpoint),
        "NetworkID": network_id,
        "EndpointID": endpoint.endpoint_id if endpoint else "",
        "Gateway": endpoint.gateway if endpoint else "",
        "IPAddress": endpoint.address if endpoint else "",
        "IPPrefixLen": endpoint.prefix_length if endpoint else 0,
        "IPv6Gateway": endpoint.ipv6_gateway if endpoint else "",
        "GlobalIPv6Address": endpoint.ipv6_address if endpoint else "",
        "GlobalIPv6PrefixLen": endpoint.ipv6_prefix_length if endpoint else 0,
        "MacAddress": endpoint.mac if endpoint else wished.mac_address if wished else "",
        "DriverOpts": dict(wished.driver_options) or None if wished else None,
    }


def _aliases(
    record: ContainerRecord, wished: Connection | None, endpoint: Endpoint | None
) -> list[str] | None:
    """Where containers have names, the beginning of its id is one as soon as it runs."""
    if wished is None or wished.name == DEFAULT:
        return None
    own = (record.short_id,) if endpoint else ()
    return list(dict.fromkeys((*wished.aliases, *own))) or None


def _addresses_asked(wished: Connection | None) -> JsonObject | None:
    if wished is None:
        return None
    asked = (("IPv4Address", wished.ipv4_address), ("IPv6Address", wished.ipv6_address))
    return {name: address for name, address in asked if address} or (
        None if wished.name == DEFAULT else {}
    )


def port_map(record: ContainerRecord, sandbox: Sandbox | None) -> JsonObject:
    """``Ports``: exposed ones with null, published ones with where they are on the host, while it runs."""
    if sandbox is None:
        return {}
    found: dict[str, list[JsonObject]] = {}
    for port in sandbox.ports:
        binding: JsonObject = {"HostIp": port.host_address, "HostPort": str(port.host_port)}
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(binding)
    return {**dict.fromkeys(record.exposed_ports), **found}


def listed_ports(record: ContainerRecord, sandbox: Sandbox | None) -> list[JsonObject]:
    """``Ports`` in a list of containers."""
    if sandbox is None:
        return []
    published: list[JsonObject] = [
        {
            "IP": port.host_address,
            "PrivatePort": port.container_port,
            "PublicPort": port.host_port,
            "Type": port.protocol,
        }
        for port in sandbox.ports
    ]
    taken = {f"{port.container_port}/{port.protocol}" for port in sandbox.ports}
    bare = [port.partition("/") for port in record.exposed_ports if port not in taken]
    return published + [
        {"PrivatePort": int(number), "Type": protocol} for number, _, protocol in bare
    ]

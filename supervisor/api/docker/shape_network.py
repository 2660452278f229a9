"""Docker's JSON for networks and places on them, as our requests. Pure."""

from __future__ import annotations

import re

from protocol.errors import Fault
from supervisor.access.requests import EndpointRequest, NetworkRequest, PoolRequest
from supervisor.api.docker.fields import Fields, check
from supervisor.api.http import JsonObject

NETWORK_NAME = re.compile(r"(?=.*\S)[^/\x00-\x1f\x7f]+")
NAME_LENGTH_MAX = 255
_FROM_DAEMON = (
    "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen",
    "IPv6Gateway", "NetworkID", "DNSNames",
)  # fmt: skip


def network_request(body: JsonObject) -> NetworkRequest:
    """The body of ``POST /networks/create``.

    Raises:
        InvalidArgument: Everything that is wrong with it.
    """
    faults: list[Fault] = []
    top = Fields(body, "", faults)
    name = top.text("Name")
    if not NETWORK_NAME.fullmatch(name) or len(name) > NAME_LENGTH_MAX:
        top.fault("Name", f"is {name[:80]!r}", "letters and others, without / and line ends")
    top.known("CheckDuplicate", "EnableIPv4")
    top.refuse({"ConfigOnly": (), "Scope": ("local",)})
    top.child("ConfigFrom").refuse({"Network": ()})
    top.known("ConfigFrom")
    ipam = top.child("IPAM")
    request = NetworkRequest(
        name=name,
        driver=top.text("Driver") or "bridge",
        internal=top.flag("Internal"),
        attachable=top.flag("Attachable"),
        ingress=top.flag("Ingress"),
        enable_ipv6=top.flag("EnableIPv6"),
        ipam_driver=ipam.text("Driver") or "default",
        ipam_options=ipam.mapping("Options"),
        pools=tuple(map(_pool, ipam.children("Config"))),
        options=top.mapping("Options"),
        labels=top.mapping("Labels"),
        unknown_fields=tuple(top.unread()),
    )
    check(faults, f"create network{name and ' '}{name}")
    return request


def _pool(config: Fields) -> PoolRequest:
    pool = PoolRequest(
        subnet=config.text("Subnet"),
        ip_range=config.text("IPRange"),
        gateway=config.text("Gateway"),
        auxiliary={
            **config.mapping("AuxiliaryAddresses"),
            **config.mapping("AuxAddress"),
        },
    )
    if not pool.subnet and pool != PoolRequest():
        config.fault("Subnet", "is missing", "name the subnet of these addresses")
    return pool


def connect_request(body: JsonObject, network: str) -> tuple[str, EndpointRequest]:
    """The body of ``POST /networks/{id}/connect``: the container, and what is wished for it there.

    Raises:
        InvalidArgument: Everything that is wrong with it.
    """
    faults: list[Fault] = []
    top = Fields(body, "", faults)
    container = _container(top)
    request = endpoint_request(top.child("EndpointConfig"), network)
    check(faults, f"connect to network {network}")
    return container, request


def disconnect_request(body: JsonObject, network: str) -> tuple[str, bool]:
    """The body of ``POST /networks/{id}/disconnect``: the container, and whether by force.

    Raises:
        InvalidArgument: Everything that is wrong with it.
    """
    faults: list[Fault] = []
    top = Fields(body, "", faults)
    container, force = _container(top), top.flag("Force")
    check(faults, f"disconnect from network {network}")
    return container, force


def _container(top: Fields) -> str:
    container = top.text("Container")
    if not container:
        top.fault("Container", "is missing")
    return container


def endpoint_request(endpoint: Fields, network: str) -> EndpointRequest:
    """Docker's ``EndpointSettings``; what the daemon itself says in them means nothing here."""
    addresses = endpoint.child("IPAMConfig")
    addresses.refuse({"LinkLocalIPs": ()})
    endpoint.refuse({"GwPriority": ()})
    endpoint.known(*_FROM_DAEMON)
    return EndpointRequest(
        network=network,
        aliases=endpoint.texts("Aliases"),
        ipv4_address=addresses.text("IPv4Address"),
        ipv6_address=addresses.text("IPv6Address"),
        mac_address=endpoint.text("MacAddress"),
        links=endpoint.texts("Links"),
        driver_options=endpoint.mapping("DriverOpts"),
    )

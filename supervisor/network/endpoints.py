"""Networks and endpoints as values, and as rows.

Words: a **network** is what containers can be on; an **endpoint** is one container's place on one; its **mode** is how
it was asked for.

Rules: the functions are called inside a unit or a read of the database. A row is written when its effects are there: what
is in the kernel without a row was half made, and recovery takes it down.
"""

from __future__ import annotations

import hashlib
import sqlite3
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import attrs

from supervisor.network.addresses import gateway_of
from supervisor.network.publishing import BoundPort
from supervisor.network.ruleset import Publication


class Mode(StrEnum):
    """How a container is connected."""

    BRIDGE = "bridge"
    HOST = "host"
    NONE = "none"


@attrs.frozen
class Network:
    """A network with a bridge: an owner's.

    Attributes:
        number: Names the bridge.
        id: 64 hex digits.
        owner: Whose it is; a host uid.
        name: As its owner calls it.
        subnet: Where its addresses come from.
        created_ns: Nanoseconds since 1970.
    """

    number: int
    id: str
    owner: int
    name: str
    subnet: IPv4Network
    created_ns: int

    @property
    def gateway(self) -> IPv4Address:
        """The host's address on the bridge."""
        return gateway_of(self.subnet)


@attrs.frozen
class Seat:
    """One container's place, as recorded. ``network``, ``address`` and ``link`` are None where there is no bridge."""

    container_id: str
    container_name: str
    owner: int
    mode: Mode
    network: int | None = None
    address: IPv4Address | None = None
    link: int | None = None
    ports: tuple[BoundPort, ...] = ()

    @property
    def publications(self) -> list[Publication]:
        """What the packet filter has to map."""
        if self.address is None:
            return []
        return [
            Publication(
                port.protocol,
                IPv4Address(port.host_address),
                port.host_port,
                self.address,
                port.container_port,
            )
            for port in self.ports
        ]


@attrs.frozen
class Endpoint:
    """What a container has of the network.

    Attributes:
        network_id: 64 hex digits.
        network_name: ``bridge``, ``host`` or ``none``.
        netns_pin: Its network namespace, pinned in the daemon's mount namespace; None for the host's.
        address: IPv4 address; empty where there is no bridge. So with ``gateway``, ``mac`` and ``interface``.
        interface: The link's name inside.
        ports: What is published.
        resolvers: For ``/etc/resolv.conf``.
        search: Domains to try behind a short name.
        resolver_options: Further options of ``resolv.conf``.
        endpoint_id: 64 hex digits.
    """

    network_id: str
    network_name: str
    netns_pin: Path | None
    address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    mac: str = ""
    interface: str = ""
    ports: tuple[BoundPort, ...] = ()
    resolvers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    resolver_options: tuple[str, ...] = ()
    endpoint_id: str = ""


@attrs.frozen
class Member:
    """A container on a network, as Docker's ``network inspect`` tells of it."""

    container_id: str
    name: str
    endpoint_id: str
    mac: str
    address: str
    prefix_length: int


@attrs.frozen
class NetworkView:
    """A network, as its owner sees it. ``subnet`` and ``gateway`` are empty where there is none (yet).

    Attributes:
        driver: ``bridge``, ``host`` or ``null``, as Docker calls them.
        members: Containers of that owner alone.
        interface: The host's link; empty where there is none.
    """

    id: str
    name: str
    driver: str
    owner: int
    created_ns: int
    subnet: str = ""
    gateway: str = ""
    interface: str = ""
    members: tuple[Member, ...] = ()


def network_id(epoch: str, owner: int, name: str) -> str:
    """The id of a network: the same for as long as this database lives."""
    return hashlib.sha256(f"{epoch}/network/{owner}/{name}".encode()).hexdigest()


def endpoint_id(network: str, container: str) -> str:
    """The id of a container's place on a network."""
    return hashlib.sha256(f"{network}/{container}".encode()).hexdigest()


def load_networks(connection: sqlite3.Connection) -> list[Network]:
    """All networks recorded."""
    rows = connection.execute("SELECT * FROM networks")
    return [
        Network(
            number=row["number"],
            id=row["id"],
            owner=row["owner"],
            name=row["name"],
            subnet=IPv4Network(row["subnet"]),
            created_ns=row["created_ns"],
        )
        for row in rows
    ]


def load_seats(connection: sqlite3.Connection) -> list[Seat]:
    """All seats recorded, with their ports."""
    ports: dict[str, list[BoundPort]] = {}
    for row in connection.execute("SELECT * FROM published_ports ORDER BY rowid"):
        ports.setdefault(row["container_id"], []).append(
            BoundPort(row["container_port"], row["protocol"], row["host_address"], row["host_port"])
        )
    return [
        Seat(
            container_id=row["container_id"],
            container_name=row["container_name"],
            owner=row["owner"],
            mode=Mode(row["mode"]),
            network=row["network"],
            address=None if row["address"] is None else IPv4Address(row["address"]),
            link=row["link"],
            ports=tuple(ports.get(row["container_id"], ())),
        )
        for row in connection.execute("SELECT * FROM endpoints")
    ]


def store_network(connection: sqlite3.Connection, network: Network) -> None:
    """Record a network; one of that number is written over."""
    connection.execute(
        "INSERT INTO networks (number, id, owner, name, subnet, created_ns) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (number) DO UPDATE SET subnet = excluded.subnet",
        (
            network.number,
            network.id,
            network.owner,
            network.name,
            str(network.subnet),
            network.created_ns,
        ),
    )


def store_seat(connection: sqlite3.Connection, seat: Seat) -> None:
    """Record a seat and its ports; what was recorded of that container before is written over."""
    remove_seat(connection, seat.container_id)
    connection.execute(
        "INSERT INTO endpoints (container_id, container_name, owner, mode, network, address, link)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            seat.container_id,
            seat.container_name,
            seat.owner,
            seat.mode.value,
            seat.network,
            None if seat.address is None else str(seat.address),
            seat.link,
        ),
    )
    connection.executemany(
        "INSERT INTO published_ports (container_id, container_port, protocol, host_address, host_port)"
        " VALUES (?, ?, ?, ?, ?)",
        [
            (
                seat.container_id,
                port.container_port,
                port.protocol,
                port.host_address,
                port.host_port,
            )
            for port in seat.ports
        ],
    )


def remove_seat(connection: sqlite3.Connection, container_id: str) -> bool:
    """Forget a seat and its ports; whether there was one."""
    statement = "DELETE FROM endpoints WHERE container_id = ?"
    return connection.execute(statement, (container_id,)).rowcount > 0


def store_name(connection: sqlite3.Connection, container_id: str, name: str) -> None:
    """Record what a container is called now."""
    connection.execute(
        "UPDATE endpoints SET container_name = ? WHERE container_id = ?", (name, container_id)
    )

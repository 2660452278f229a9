"""Networks and seats as rows of the database.

Rules: the functions are called inside a unit or a read of the database. A row is written when its effects are there: what
is in the kernel without a row was half made, and recovery takes it down.
"""

from __future__ import annotations

import sqlite3
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import attrs
import cattrs
import orjson
from cattrs.preconf.orjson import make_converter

from supervisor.network.addresses import gateway_of, mac_of
from supervisor.network.endpoints import Address, AddressPool, Mode, Network, Seat, Subnet, Wire
from supervisor.network.publishing import BoundPort


@attrs.frozen
class _Settings:
    """What of a network is kept as JSON: all that is not searched by."""

    ipv4: AddressPool | None = None
    ipv6: AddressPool | None = None
    internal: bool = False
    attachable: bool = False
    options: dict[str, str] = attrs.field(factory=dict)
    labels: dict[str, str] = attrs.field(factory=dict)


def _make() -> cattrs.Converter:
    converter = make_converter()
    converter.omit_if_default = True
    converter.register_unstructure_hook(Address, str)
    converter.register_unstructure_hook(Subnet, str)
    converter.register_structure_hook(Address, lambda text, _: ip_address(text))
    converter.register_structure_hook(Subnet, lambda text, _: ip_network(text))
    converter.register_unstructure_hook(Subnet | None, lambda value: value and str(value))
    converter.register_structure_hook(Subnet | None, lambda text, _: text and ip_network(text))
    return converter


_CONVERTER = _make()


def load_networks(connection: sqlite3.Connection) -> list[Network]:
    """All networks recorded."""
    return [_network(row) for row in connection.execute("SELECT * FROM networks")]


def _network(row: sqlite3.Row) -> Network:
    settings = _CONVERTER.structure(orjson.loads(row["settings"]), _Settings)
    subnet = ip_network(row["subnet"])
    return Network(
        number=row["number"],
        id=row["id"],
        owner=row["owner"],
        name=row["name"],
        ipv4=settings.ipv4 or AddressPool(subnet, gateway_of(subnet)),
        created_ns=row["created_ns"],
        ipv6=settings.ipv6,
        internal=settings.internal,
        attachable=settings.attachable,
        options=settings.options,
        labels=settings.labels,
    )


def store_network(connection: sqlite3.Connection, network: Network) -> None:
    """Record a network; one of that number is written over."""
    settings = _Settings(
        ipv4=network.ipv4,
        ipv6=network.ipv6,
        internal=network.internal,
        attachable=network.attachable,
        options=dict(network.options),
        labels=dict(network.labels),
    )
    connection.execute(
        "INSERT INTO networks (number, id, owner, name, subnet, created_ns, settings)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (number) DO UPDATE SET subnet = excluded.subnet, settings = excluded.settings",
        (
            network.number,
            network.id,
            network.owner,
            network.name,
            str(network.ipv4.subnet),
            network.created_ns,
            orjson.dumps(_CONVERTER.unstructure(settings)).decode(),
        ),
    )


def remove_network(connection: sqlite3.Connection, number: int) -> bool:
    """Forget a network that nobody is on; whether there was one."""
    return connection.execute("DELETE FROM networks WHERE number = ?", (number,)).rowcount > 0


def load_seats(connection: sqlite3.Connection) -> list[Seat]:
    """All seats recorded, with their wires and ports."""
    ports: dict[str, list[BoundPort]] = {}
    for row in connection.execute("SELECT * FROM published_ports ORDER BY rowid"):
        ports.setdefault(row["container_id"], []).append(
            BoundPort(row["container_port"], row["protocol"], row["host_address"], row["host_port"])
        )
    wires: dict[str, list[Wire]] = {}
    for row in connection.execute("SELECT * FROM endpoints ORDER BY rowid"):
        wires.setdefault(row["container_id"], []).append(_wire(row))
    return [
        Seat(
            container_id=row["container_id"],
            container_name=row["container_name"],
            owner=row["owner"],
            mode=Mode(row["mode"]),
            host=row["host"],
            servers=tuple(orjson.loads(row["servers"])),
            wires=tuple(wires.get(row["container_id"], ())),
            ports=tuple(ports.get(row["container_id"], ())),
        )
        for row in connection.execute("SELECT * FROM seats ORDER BY rowid")
    ]


def _wire(row: sqlite3.Row) -> Wire:
    return Wire(
        number=row["link"],
        network=row["network"],
        interface=row["interface"],
        mac=row["mac"] or mac_of(IPv4Address(row["address"])),
        ipv4=IPv4Address(row["address"]),
        ipv6=None if row["address6"] is None else IPv6Address(row["address6"]),
        aliases=tuple(orjson.loads(row["aliases"])),
        links=tuple((alias, name) for alias, name in orjson.loads(row["links"])),
    )


def store_seat(connection: sqlite3.Connection, seat: Seat) -> None:
    """Record a seat, its wires and its ports; what was recorded of that container before is written over."""
    remove_seat(connection, seat.container_id)
    connection.execute(
        "INSERT INTO seats (container_id, container_name, owner, mode, host, servers)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (
            seat.container_id,
            seat.container_name,
            seat.owner,
            seat.mode.value,
            seat.host,
            orjson.dumps(seat.servers).decode(),
        ),
    )
    connection.executemany(
        "INSERT INTO endpoints (container_id, network, link, interface, mac, address, address6, aliases, links)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
            (
                seat.container_id,
                wire.network,
                wire.number,
                wire.interface,
                wire.mac,
                str(wire.ipv4),
                None if wire.ipv6 is None else str(wire.ipv6),
                orjson.dumps(wire.aliases).decode(),
                orjson.dumps(wire.links).decode(),
            )
            for wire in seat.wires
        ],
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
    """Forget a seat with its wires and ports; whether there was one."""
    statement = "DELETE FROM seats WHERE container_id = ?"
    return connection.execute(statement, (container_id,)).rowcount > 0


def store_name(connection: sqlite3.Connection, container_id: str, name: str) -> None:
    """Record what a container is called now."""
    connection.execute(
        "UPDATE seats SET container_name = ? WHERE container_id = ?", (name, container_id)
    )

"""Networks and who is on them, as values.

Words: a **network** is what containers can be on; a **wire** is a container's link to one network, with its addresses
there; a **seat** is all that a container has of networks while it runs; its **mode** is whose network namespace it has;
a **connection** is what is settled about a container's place on a network, also while it does not run. Docker's words
for what is shown of these: an **endpoint** is a container's place on one network, its **sandbox** all of them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from pathlib import Path

import attrs

from supervisor.errors import InvalidArgument
from supervisor.network.names import SHORT_ID_DIGITS
from supervisor.network.publishing import BoundPort
from supervisor.network.ruleset import Publication

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network

DEFAULT_BRIDGE = "bridge"
ID = re.compile(r"[0-9a-f]{64}")


class Mode(StrEnum):
    """Whose network namespace a container has: its own, with wires or without, the host's, another container's."""

    BRIDGE = "bridge"
    HOST = "host"
    NONE = "none"
    CONTAINER = "container"


@attrs.frozen
class AddressPool:
    """Where a network's addresses of one kind come from.

    Attributes:
        gateway: The host's address on the bridge.
        ip_range: The part of the subnet that addresses are chosen from; None for all of it.
        auxiliary: Addresses that nobody is given, by what they are for.
        chosen: The subnet was named by who made the network; only in such a one can an address be asked for.
    """

    subnet: Subnet
    gateway: Address
    ip_range: Subnet | None = None
    auxiliary: Mapping[str, str] = attrs.field(factory=dict)
    chosen: bool = False


@attrs.frozen
class Network:
    """A network with a bridge.

    Attributes:
        number: Names the bridge.
        id: 64 hex digits.
        owner: Whose it is; a host uid.
        name: As its owner calls it.
        ipv4: Where its addresses come from.
        ipv6: The same for IPv6; None where it has none.
        created_ns: Nanoseconds since 1970.
        internal: Without a way out.
        options: Of the bridge driver, as they were given.
    """

    number: int
    id: str
    owner: int
    name: str
    ipv4: AddressPool
    created_ns: int
    ipv6: AddressPool | None = None
    internal: bool = False
    attachable: bool = False
    options: Mapping[str, str] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)

    @property
    def default(self) -> bool:
        """It is its owner's default bridge, which has no names and is never removed."""
        return self.name == DEFAULT_BRIDGE

    @property
    def pools(self) -> tuple[AddressPool, ...]:
        """One for each kind of address."""
        return (self.ipv4,) if self.ipv6 is None else (self.ipv4, self.ipv6)


@attrs.frozen
class Connection:
    """What is settled about a container's place on one network.

    Attributes:
        name: Of the network, when it was settled.
        ipv4_address: Asked for; empty for one that is chosen. Likewise ``ipv6_address`` and ``mac_address``.
    """

    network_id: str
    name: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    links: tuple[str, ...] = ()
    driver_options: Mapping[str, str] = attrs.field(factory=dict)

    def names(self, network: Network) -> bool:
        """Whether it is to this network; one that was not there then is known by its name."""
        return self.network_id == network.id if self.network_id else self.name == network.name

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Those asked for."""
        four = (IPv4Address(self.ipv4_address),) if self.ipv4_address else ()
        return (*four, IPv6Address(self.ipv6_address)) if self.ipv6_address else four


def linked(links: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Links as they are asked for, ``name:alias`` or ``name``, as alias and name.

    Raises:
        InvalidArgument: One is neither; Docker's wording.
    """
    pairs = []
    for text in links:
        name, _, alias = text.partition(":")
        if not name or ":" in alias:
            raise InvalidArgument(f"bad format for links: {text[:80]}")
        pairs.append((alias or name, name[:SHORT_ID_DIGITS] if ID.fullmatch(name) else name))
    return tuple(pairs)


@attrs.frozen
class Wire:
    """A container's link to a network.

    Attributes:
        number: Names the host's end.
        network: The network's number.
        interface: Name of the container's end.
        aliases: Further names the container has there.
        links: What the container calls others there: alias to name.
    """

    number: int
    network: int
    interface: str
    mac: str
    ipv4: IPv4Address
    ipv6: IPv6Address | None = None
    aliases: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """All it has."""
        return (self.ipv4,) if self.ipv6 is None else (self.ipv4, self.ipv6)


@attrs.frozen
class Seat:
    """What a container has of networks, as recorded.

    Attributes:
        host: The container whose namespace it shares; empty but in the mode ``container``.
        wires: In the order in which they were made.
        ports: Published; they lead to the wire that is the way out.
        servers: Resolvers it was given.
    """

    container_id: str
    container_name: str
    owner: int
    mode: Mode
    host: str = ""
    servers: tuple[str, ...] = ()
    wires: tuple[Wire, ...] = ()
    ports: tuple[BoundPort, ...] = ()

    def wire(self, network: int) -> Wire | None:
        """Its wire to a network."""
        return next((wire for wire in self.wires if wire.network == network), None)


def publications(ports: Sequence[BoundPort], wire: Wire | None) -> list[Publication]:
    """What the packet filter has to map so that the ports lead to the wire."""
    if wire is None:
        return []
    found = []
    for port in ports:
        host_address = ip_address(port.host_address)
        address = wire.ipv4 if isinstance(host_address, IPv4Address) else wire.ipv6
        if address is not None:  # published on IPv6 while the way out spoke it
            found.append(
                Publication(
                    port.protocol, host_address, port.host_port, address, port.container_port
                )
            )
    return found


def way_out(wires: Sequence[Wire], networks: Mapping[int, Network]) -> Wire | None:
    """The wire through which a container reaches what is on none of its networks.

    Docker's rule: of the networks that are not internal, the first by name.
    """
    open_ones = [wire for wire in wires if not networks[wire.network].internal]
    return min(open_ones, key=lambda wire: networks[wire.network].name, default=None)


@attrs.frozen
class Endpoint:
    """A container's place on one network, as it is shown. What there is none of is empty.

    Attributes:
        network_id: 64 hex digits.
        endpoint_id: 64 hex digits.
        interface: The link's name inside.
    """

    network_id: str
    network_name: str
    endpoint_id: str = ""
    interface: str = ""
    mac: str = ""
    address: str = ""
    prefix_length: int = 0
    gateway: str = ""
    ipv6_address: str = ""
    ipv6_prefix_length: int = 0
    ipv6_gateway: str = ""
    aliases: tuple[str, ...] = ()


@attrs.frozen
class Sandbox:
    """What a container has of networks while it runs, as it is shown.

    Attributes:
        netns_pin: Its network namespace, pinned in the daemon's mount namespace; None for the host's.
        endpoints: In the order in which they were made; ``none`` and ``host`` have one without addresses.
        out: Which of them is the way out; None without one.
        ports: What is published.
        named: It is on a network on which containers have names.
        resolvers: For ``/etc/resolv.conf``.
        search: Domains to try behind a short name.
        resolver_options: Further options of ``resolv.conf``.
    """

    netns_pin: Path | None
    endpoints: tuple[Endpoint, ...] = ()
    out: Endpoint | None = None
    ports: tuple[BoundPort, ...] = ()
    named: bool = False
    resolvers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    resolver_options: tuple[str, ...] = ()

    @property
    def first(self) -> Endpoint | None:
        """The endpoint that speaks for all: the way out, or the first that was made."""
        return self.out or (self.endpoints[0] if self.endpoints else None)

    @property
    def address(self) -> str:
        """Its IPv4 address there; empty where it has none."""
        return self.first.address if self.first else ""

    @property
    def gateway(self) -> str:
        """The host's address there; empty where there is none."""
        return self.first.gateway if self.first else ""


@attrs.frozen
class Member:
    """A container on a network, as Docker's ``network inspect`` tells of it."""

    container_id: str
    name: str
    endpoint: Endpoint


@attrs.frozen
class NetworkView:
    """A network, as its owner sees it.

    Attributes:
        driver: ``bridge``, ``host`` or ``null``, as Docker calls them.
        record: What there is of it; None of ``host`` and ``none``, and of a default bridge that nobody has used.
        members: Containers of that owner alone.
        interface: The host's link; empty where there is none.
    """

    id: str
    name: str
    driver: str
    owner: int
    created_ns: int
    record: Network | None = None
    interface: str = ""
    members: tuple[Member, ...] = ()

    @property
    def builtin(self) -> bool:
        """It is there without anybody having made it."""
        return self.record is None or self.record.default


def network_id(epoch: str, owner: int, name: str) -> str:
    """The id of a network that is always there: the same for as long as this database lives."""
    return hashlib.sha256(f"{epoch}/network/{owner}/{name}".encode()).hexdigest()


def endpoint_id(network: str, container: str) -> str:
    """The id of a container's place on a network."""
    return hashlib.sha256(f"{network}/{container}".encode()).hexdigest()

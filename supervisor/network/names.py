"""Who is called what on which network: what our name server answers from. Pure.

Words: a **named endpoint** is one container's place on one network, as far as names go; the **asker** is who sent a
question, known by the address it came from and the network whose gateway it came to.

Rules:

* A container is found by its name, the first 12 digits of its id and its aliases, in any letter case, with or without
  ``.network`` behind; an alias that several have stands for all of them.
* An asker is answered for all networks it is on, whichever of their gateways it asks, and for no other: names of
  somebody else's networks, or of networks it is not on, do not exist for it.
* On the default bridge nobody has a name, as with Docker: :attr:`NamedNetwork.named` is False there. A container that
  is on the default bridge and on others gets the names of the others, also from the default bridge's gateway.
* Every change costs the same, however many networks and containers there are.

How it is fed (:class:`Names` is one object of the whole daemon)::

    names.open(NamedNetwork(number, "backend", subnets, internal=False))    # before its first endpoint
    names.enter(NamedEndpoint(number, container_id, "web", addresses, aliases))     # connect; again: replaces it
    names.rename(container_id, "site")                                      # on all its networks
    names.leave(number, container_id)                                       # disconnect, stop
    names.close(number)                                                     # the network is removed

Docker also lets a container be found by a host name it was given (``--hostname``): put it among the aliases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias

import attrs

Address: TypeAlias = IPv4Address | IPv6Address
Subnet: TypeAlias = IPv4Network | IPv6Network

SHORT_ID_DIGITS = 12
"""What of its id is a name of a container."""


@attrs.frozen
class NamedNetwork:
    """A network, as far as names go.

    Attributes:
        number: Of the network, as recorded.
        name: What may stand behind a container's name.
        subnets: Where its addresses come from, of either family.
        named: Whether those on it have names; False for the default bridge.
        internal: It leads nowhere outside: nor do questions from it.
    """

    number: int
    name: str
    subnets: tuple[Subnet, ...]
    named: bool = True
    internal: bool = False


@attrs.frozen
class NamedEndpoint:
    """One container's place on one network.

    Attributes:
        network: The network's number.
        container_id: 64 hex digits.
        name: The container's.
        addresses: On this network, of either family.
        aliases: Other names of it there; others may have the same.
        links: What this container alone calls others there: alias to name (``--link name:alias``).
        servers: The resolvers it was given (``--dns``), asked instead of the host's.
    """

    network: int
    container_id: str
    name: str
    addresses: tuple[Address, ...]
    aliases: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    servers: tuple[str, ...] = ()


@attrs.frozen
class Asker:
    """Who asks.

    Attributes:
        networks: The numbers of the networks it is on, the one it was given first in front.
        container_id: Empty where nobody is recorded at the address.
    """

    networks: tuple[int, ...]
    container_id: str = ""


@attrs.define(eq=False)
class _Table:
    """One network's names, lower case, and addresses."""

    network: NamedNetwork
    endpoints: dict[str, NamedEndpoint] = attrs.field(factory=dict)
    by_name: dict[str, dict[str, NamedEndpoint]] = attrs.field(factory=dict)
    by_address: dict[Address, NamedEndpoint] = attrs.field(factory=dict)

    def enter(self, endpoint: NamedEndpoint) -> None:
        self.leave(endpoint.container_id)
        self.endpoints[endpoint.container_id] = endpoint
        for name in _names(endpoint):
            self.by_name.setdefault(name, {})[endpoint.container_id] = endpoint
        for address in endpoint.addresses:
            self.by_address[address] = endpoint

    def leave(self, container_id: str) -> None:
        gone = self.endpoints.pop(container_id, None)
        if gone is None:
            return
        for name in _names(gone):
            there = self.by_name[name]
            del there[container_id]
            if not there:
                del self.by_name[name]
        for address in gone.addresses:
            if self.by_address.get(address) is gone:
                del self.by_address[address]


@attrs.define(eq=False)
class Names:
    """All names of all networks of this daemon."""

    _tables: dict[int, _Table] = attrs.field(factory=dict)
    _networks_of: dict[str, dict[int, None]] = attrs.field(factory=dict)

    def open(self, network: NamedNetwork) -> None:
        """The network is there; what is known of its endpoints stays."""
        table = self._tables.setdefault(network.number, _Table(network))
        table.network = network

    def close(self, number: int) -> None:
        """The network is not there, nor is any endpoint on it."""
        table = self._tables.get(number)
        for container_id in list(table.endpoints) if table else ():
            self.leave(number, container_id)
        self._tables.pop(number, None)

    def enter(self, endpoint: NamedEndpoint) -> None:
        """The container has that place on an open network, and no other there."""
        self._tables[endpoint.network].enter(endpoint)
        self._networks_of.setdefault(endpoint.container_id, {})[endpoint.network] = None

    def leave(self, number: int, container_id: str) -> None:
        """The container is not on the network; it need not have been."""
        if number in self._tables:
            self._tables[number].leave(container_id)
        there = self._networks_of.get(container_id, {})
        there.pop(number, None)
        if not there:
            self._networks_of.pop(container_id, None)

    def rename(self, container_id: str, name: str) -> None:
        """The container is called so, on every network it is on."""
        for number in self._networks_of.get(container_id, ()):
            table = self._tables[number]
            table.enter(attrs.evolve(table.endpoints[container_id], name=name))

    def network(self, number: int) -> NamedNetwork:
        """An open network."""
        return self._tables[number].network

    def asker(self, number: int, address: Address) -> Asker | None:
        """Who asks from an address at a network's gateway; None when nobody there can have it."""
        table = self._tables.get(number)
        if table is None or not any(address in subnet for subnet in table.network.subnets):
            return None
        endpoint = table.by_address.get(address)
        if endpoint is None:
            return Asker((number,))
        return Asker(tuple(self._networks_of[endpoint.container_id]), endpoint.container_id)

    def container(self, container_id: str) -> Asker:
        """A container as an asker, whatever networks it is on now."""
        return Asker(tuple(self._networks_of.get(container_id, ())), container_id)

    def addresses_of(self, asker: Asker, name: str) -> tuple[Address, ...] | None:
        """Where those called ``name`` are, of either family; None when that is no name here.

        The first network on which it is a name counts, as with Docker.
        """
        for table, wanted in self._readings(asker, name.lower().removesuffix(".")):
            found = self._found(table, asker, wanted)
            if found:
                return found
        return None

    def names_of(self, asker: Asker, address: Address) -> Sequence[str] | None:
        """What the container at an address is called, ``name.network``; None when that is no address here."""
        for table in self._named(asker):
            endpoint = table.by_address.get(address)
            if endpoint is not None:
                return (f"{endpoint.name}.{table.network.name}",)
        return None

    def asks_outside(self, asker: Asker) -> bool:
        """Whether questions of the asker may go on to resolvers: one of its networks leads outside."""
        return not all(self._tables[number].network.internal for number in asker.networks)

    def servers_of(self, asker: Asker) -> tuple[str, ...] | None:
        """The resolvers the asker was given, less those it may not reach; None where it was given none.

        They are asked from the host's own network: its loopback is not for the asker, nor are networks it is not on.
        """
        for number in asker.networks if asker.container_id else ():
            given = self._tables[number].endpoints[asker.container_id].servers
            if given:
                return tuple(server for server in given if self._may_be_asked(asker, server))
        return None

    def _may_be_asked(self, asker: Asker, server: str) -> bool:
        try:
            address = ip_address(server)
        except ValueError:
            return False
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        here = address.is_loopback or address.is_unspecified
        if here or address.is_multicast or address.is_link_local:
            return False
        return not any(
            address in subnet
            for number, table in self._tables.items()
            if number not in asker.networks
            for subnet in table.network.subnets
        )

    def _named(self, asker: Asker) -> Iterator[_Table]:
        tables = (self._tables[number] for number in asker.networks)
        return (table for table in tables if table.network.named)

    def _readings(self, asker: Asker, name: str) -> Iterator[tuple[_Table, str]]:
        """``a.b.c`` is that name on any network, ``a.b`` on network ``c``, or ``a`` on network ``b.c``."""
        tables = list(self._named(asker))
        yield from ((table, name) for table in tables)
        for table in tables:
            behind = f".{table.network.name.lower()}"
            if name.endswith(behind):
                yield table, name.removesuffix(behind)

    def _found(self, table: _Table, asker: Asker, name: str) -> tuple[Address, ...]:
        own = table.endpoints.get(asker.container_id)
        linked = (target for alias, target in own.links if alias.lower() == name) if own else ()
        for wanted in (*(target.lower() for target in linked), name):
            there = table.by_name.get(wanted, {})
            found = tuple(address for one in there.values() for address in one.addresses)
            if found:
                return found
        return ()


def _names(endpoint: NamedEndpoint) -> set[str]:
    given = (endpoint.name, endpoint.container_id[:SHORT_ID_DIGITS], *endpoint.aliases)
    return {name.lower() for name in given if name}

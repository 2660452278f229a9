"""The networks there are and who is on them, by what they are looked up by. No effects; nothing here takes longer for many.

Rules: a look-up takes an identity and finds nothing that is not its own; administrators find others' by id. Everybody has
``bridge``, ``host`` and ``none``, as with Docker; the first is made when it is first used, with an id known before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import attrs

from supervisor.errors import InvalidArgument, NotFound
from supervisor.network.endpoints import DEFAULT_BRIDGE, Mode, Network, network_id

if TYPE_CHECKING:
    from supervisor.access.identity import Identity

PREDEFINED = (Mode.BRIDGE, Mode.HOST, Mode.NONE)
DRIVERS = {Mode.BRIDGE: "bridge", Mode.HOST: "host", Mode.NONE: "null"}
"""What Docker calls them."""


@attrs.frozen
class Builtin:
    """A network that everybody has without a record: ``host``, ``none``, and ``bridge`` before it is used."""

    id: str
    owner: int
    mode: Mode

    @property
    def name(self) -> str:
        """As its owner calls it."""
        return self.mode.value


Known = Network | Builtin


@attrs.define(eq=False)
class Registry:
    """All networks of this daemon.

    Attributes:
        numbered: By number.
        members: By number, the ids of the containers that have a wire to it or are about to.
    """

    epoch: str
    numbered: dict[int, Network] = attrs.field(factory=dict)
    members: dict[int, dict[str, None]] = attrs.field(factory=dict)
    _named: dict[int, dict[str, Network]] = attrs.field(factory=dict)
    _ids: dict[str, Network] = attrs.field(factory=dict)
    _last: int = 0

    def add(self, network: Network) -> None:
        """It is there; one of that number is replaced."""
        self.numbered[network.number] = self._ids[network.id] = network
        self._named.setdefault(network.owner, {})[network.name] = network
        self.members.setdefault(network.number, {})
        self._last = max(self._last, network.number)

    def remove(self, network: Network) -> None:
        """It is not there."""
        self.numbered.pop(network.number, None)
        self._ids.pop(network.id, None)
        self.members.pop(network.number, None)
        named = self._named.get(network.owner, {})
        if named.get(network.name) is not None and named[network.name].id == network.id:
            del named[network.name]
        if not named:
            self._named.pop(network.owner, None)

    def next_number(self) -> int:
        """A number no network has had in this daemon's life."""
        self._last += 1
        return self._last

    def named(self, owner: int, name: str) -> Network | None:
        """An owner's network by its name."""
        return self._named.get(owner, {}).get(name)

    def made_by(self, owner: int) -> int:
        """How many networks an owner has made."""
        return sum(1 for network in self._named.get(owner, {}).values() if not network.default)

    def id_of(self, owner: int, mode: Mode) -> str:
        """The id of a network that everybody has: the same before and after it is first used."""
        return network_id(self.epoch, owner, mode.value)

    def own(self, owner: int) -> Iterator[Known]:
        """An owner's networks: those that everybody has, then those they have made."""
        named = self._named.get(owner, {})
        for mode in PREDEFINED:
            yield named.get(mode.value) or Builtin(self.id_of(owner, mode), owner, mode)
        yield from (network for network in named.values() if not network.default)

    def find(self, identity: Identity, reference: str) -> Known:
        """One network by name, id, or the beginning of its id, in this order.

        Raises:
            NotFound: The caller has none such.
            InvalidArgument: It is the beginning of several.
        """
        try:
            return self.of_owner(identity.owner, reference)
        except NotFound:
            if not identity.admin:
                raise
        owners = {network.owner for network in self.numbered.values()} - {identity.owner}
        return _only(reference, (one for owner in owners for one in self.own(owner)))

    def of_owner(self, owner: int, reference: str) -> Known:
        """The same among one owner's."""
        named = self.named(owner, reference)
        if named is not None:
            return named
        exact = self._ids.get(reference)
        if exact is not None and exact.owner == owner:
            return exact
        known = list(self.own(owner))
        by_name = next((one for one in known if one.name == reference), None)
        return by_name or _only(reference, known)

    def get(self, identifier: str, name: str) -> Network:
        """A network with a bridge, by its whole id.

        Raises:
            NotFound: It has gone, or everybody has it and nobody has used it.
        """
        network = self._ids.get(identifier)
        if network is None:
            raise NotFound(f"network {name} not found")
        return network


def _only(reference: str, networks: Iterable[Known]) -> Known:
    found = [one for one in networks if reference and one.id.startswith(reference)]
    if not found:
        raise NotFound(f"network {reference} not found")
    if len(found) > 1:
        raise InvalidArgument(
            f"network {reference} is ambiguous ({len(found)} matches found on id)"
        )
    return found[0]


def is_default_bridge(identifier: str, owner: int, epoch: str) -> bool:
    """Whether an id is that of an owner's default bridge."""
    return identifier == network_id(epoch, owner, DEFAULT_BRIDGE)

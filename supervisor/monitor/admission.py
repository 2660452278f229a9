"""Whose turn it is: a queue that is fair between owners, by weight; pure.

Words: a *ticket* is leave to start a piece of work. *Deficit round robin* (Shreedhar and Varghese, 1995): owners who
want tickets stand in a ring; each time an owner comes round they are credited their weight, and a ticket costs what a
normal weight brings in one round. Unused credit lapses when an owner wants nothing more, so nobody saves up.

Rules: within an owner, first come, first served. Nobody starves: who may start at all is credited each round. An owner
who may not start now (see :func:`may_start`) is passed over without credit and without losing their place.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Generic, TypeVar

import attrs

from supervisor.monitor.detect import Level

T = TypeVar("T")

COST = 100


@attrs.define
class _Line(Generic[T]):
    """One owner's place in the ring."""

    weight: int
    credit: int = 0
    items: deque[T] = attrs.field(factory=deque)


class FairQueue(Generic[T]):
    """What waits, by owner. Touched by one task only."""

    def __init__(self) -> None:
        self._ring: OrderedDict[int, _Line[T]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def waiting(self, owner: int) -> int:
        """How many of this owner's wait."""
        line = self._ring.get(owner)
        return len(line.items) if line else 0

    def push(self, owner: int, weight: int, item: T) -> None:
        """Put ``item`` last in its owner's line. ``weight`` (1 or more; 100 is normal) holds for all the line."""
        line = self._ring.setdefault(owner, _Line(weight))
        line.weight = max(weight, 1)
        line.items.append(item)
        self._length += 1

    def pop(self, eligible: Callable[[int], bool]) -> tuple[int, T] | None:
        """The next item and its owner, among owners who are ``eligible``; ``None`` if there is no such item."""
        able = [owner for owner in self._ring if eligible(owner)]
        if not able:
            return None
        chosen = next((owner for owner in able if self._ring[owner].credit >= COST), None)
        if chosen is None:
            chosen = self._credit_rounds(able)
        return chosen, self._serve(chosen)

    def remove(self, owner: int, item: T) -> bool:
        """Take an item out that waits no more; whether it was there."""
        line = self._ring.get(owner)
        if line is None or item not in line.items:
            return False
        line.items.remove(item)
        self._length -= 1
        if not line.items:
            del self._ring[owner]
        return True

    def in_turn(self) -> list[tuple[int, T]]:
        """All that waits, in the order in which it would be served if everybody were eligible and nobody else came."""
        copy: FairQueue[T] = FairQueue()
        for owner, line in self._ring.items():
            copy._ring[owner] = attrs.evolve(line, items=deque(line.items))
        return list(iter(lambda: copy.pop(lambda _: True), None))

    def _credit_rounds(self, able: list[int]) -> int:
        """Credit whole rounds at once until somebody can pay; the first such in the ring."""
        lines = [self._ring[owner] for owner in able]
        rounds = min(-(-(COST - line.credit) // line.weight) for line in lines)
        for line in lines:
            line.credit += rounds * line.weight
        return next(owner for owner in able if self._ring[owner].credit >= COST)

    def _serve(self, owner: int) -> T:
        line = self._ring[owner]
        line.credit -= COST
        item = line.items.popleft()
        self._length -= 1
        if not line.items:
            del self._ring[owner]
        elif line.credit < COST:
            self._ring.move_to_end(owner)
        return item


def may_start(level: Level, *, held: int, held_by_owner: int, tickets_max: int) -> bool:
    """Whether one more ticket may be given to an owner now.

    When the host is calm, all may hold ``tickets_max`` together, and who holds none always gets one: one person's long
    builds never keep another waiting. When it is tight, one each. When it is critical, one at a time: work still moves.
    """
    match level:
        case Level.CALM:
            return held < tickets_max or held_by_owner == 0
        case Level.TIGHT:
            return held < tickets_max and held_by_owner == 0
        case Level.CRITICAL:
            return held == 0

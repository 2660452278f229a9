"""How ids inside a user namespace, or on disk, stand for ids of the host. Pure.

Words: *inside* is the id a container sees (for a view of a file system: the id on disk), *outside* the id the host
sees. A map is a set of ranges that do not overlap on either side.

Follows user_namespaces(7): at most 340 ranges, written as lines ``inside outside count`` in less than a page.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import ClassVar

import attrs

RANGES_MAX = 340
MAP_TEXT_BYTES_MAX = 4095
ID_LAST = 2**32 - 2  # the last value is -1, "no id"


@attrs.frozen
class IdRange:
    """``count`` ids from ``inside`` on stand for those from ``outside`` on."""

    inside: int
    outside: int
    count: int

    def __attrs_post_init__(self) -> None:
        first = min(self.inside, self.outside)
        last = max(self.inside, self.outside) + self.count - 1
        if self.count < 1 or first < 0 or last > ID_LAST:
            message = f"no such range of ids: {self.inside} {self.outside} {self.count}"
            raise ValueError(message)


Ranges = tuple[IdRange, ...]


@attrs.frozen
class IdMap:
    """A user namespace's two maps; empty ones mean that ids are the host's own.

    Raises:
        ValueError: Ranges overlap, are too many, or only one of the two maps is empty.
    """

    IDENTITY: ClassVar[IdMap]
    """No user namespace at all: ids are the host's (containers of administrators)."""

    uids: Ranges
    gids: Ranges

    def __attrs_post_init__(self) -> None:
        if bool(self.uids) != bool(self.gids):
            message = "a map needs both uids and gids"
            raise ValueError(message)
        for ranges in (self.uids, self.gids):
            _check(ranges)

    @property
    def remapped(self) -> bool:
        """Whether there is a user namespace."""
        return bool(self.uids)

    def uid_outside(self, inside: int) -> int:
        """The host's uid for one inside; LookupError when it is not mapped."""
        return _outside(self.uids, inside) if self.remapped else inside

    def gid_outside(self, inside: int) -> int:
        """The host's gid for one inside; LookupError when it is not mapped."""
        return _outside(self.gids, inside) if self.remapped else inside

    def uid_inside(self, outside: int) -> int:
        """The inverse of :meth:`uid_outside`."""
        return _outside(_turned(self.uids), outside) if self.remapped else outside

    def gid_inside(self, outside: int) -> int:
        """The inverse of :meth:`gid_outside`."""
        return _outside(_turned(self.gids), outside) if self.remapped else outside


def map_text(ranges: Iterable[IdRange]) -> str:
    """The content of ``/proc/<pid>/uid_map``, in ascending order as the kernel shows it."""
    ordered = sorted(ranges, key=lambda one: one.inside)
    return "".join(f"{one.inside} {one.outside} {one.count}\n" for one in ordered)


def _check(ranges: Ranges) -> None:
    if len(ranges) > RANGES_MAX or len(map_text(ranges)) > MAP_TEXT_BYTES_MAX:
        message = f"a map of {len(ranges)} ranges is more than the kernel takes"
        raise ValueError(message)
    for side in (ranges, _turned(ranges)):
        ordered = sorted(side, key=lambda one: one.inside)
        for one, following in pairwise(ordered):
            if one.inside + one.count > following.inside:
                message = f"ranges overlap: {one} and {following}"
                raise ValueError(message)


def _turned(ranges: Ranges) -> Ranges:
    return tuple(IdRange(one.outside, one.inside, one.count) for one in ranges)


def _outside(ranges: Ranges, inside: int) -> int:
    for one in ranges:
        if one.inside <= inside < one.inside + one.count:
            return one.outside + inside - one.inside
    message = f"id {inside} is not mapped"
    raise LookupError(message)


IdMap.IDENTITY = IdMap((), ())

"""The ids of an owner's containers: which range they get, and how it is mapped. Pure.

Words: a *range* is 65,536 host ids in a row, for uids and gids alike, called by its first; *inside* is what a container
sees, *outside* the host. Container uid 0 is the owner's own uid, so 1 to 65,535 are ``first + 1`` to ``first + 65,535``
and ``first`` itself stays free. It stands in where container 0 must not be the host's (root's own containers when
remapped, a primary group that is root's).

A supplementary group of the owner is at 70,000 and above inside: nothing is given by mapping it that the owner does
not have as a member already. The group of root is never mapped. See user_namespaces(7).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterable, Mapping

from supervisor.linux.idmap import IdMap, IdRange

RANGE_IDS = 65_536

GROUP_FIRST_INSIDE = 70_000
"""Inside id of the first supplementary group; above everything an image can mean by itself."""

GROUPS_MAX = 180
"""Supplementary groups mapped; the kernel takes 340 lines, but also no more than a page of text in one write."""

RESERVED: tuple[range, ...] = (
    range(60_001, 65_536),  # systemd: homes, dynamic users; nobody; 16-bit -1
    range(524_288, 1_879_048_192),  # systemd: containers' automatic ranges
    range(2_147_352_576, 2_147_418_112),  # systemd: foreign ids
    range(2_147_483_648, 4_294_967_296),  # many programs take these for negative numbers
)
"""Where no range may lie; see https://systemd.io/UIDS-GIDS."""

UNMAPPABLE_GROUPS = frozenset({0, 65_534, 65_535, 4_294_967_295})

_SUBORDINATE = re.compile(r"^[^:#]*:(\d+):(\d+)\s*$", re.MULTILINE)


def subordinate(text: str) -> tuple[range, ...]:
    """The ranges a subuid(5) or subgid(5) file hands out; lines that say nothing are passed over."""
    return tuple(
        range(int(first), int(first) + int(count)) for first, count in _SUBORDINATE.findall(text)
    )


def choose(
    pool: Iterable[int], allotted: Collection[int], avoid_ids: Iterable[int], avoid: Iterable[range]
) -> int | None:
    """The first id of the first range of ``pool`` that nothing else lies in; ``None`` when there is none.

    Args:
        pool: First ids, in the order of preference; a multiple of 65,536 apart.
        allotted: First ids of ranges given out before.
        avoid_ids: Single ids that somebody has.
        avoid: Ranges that somebody has.
    """
    ids = set(avoid_ids)
    ranges = [*RESERVED, *avoid, *(range(first, first + RANGE_IDS) for first in allotted)]
    for first in pool:
        wanted = range(first, first + RANGE_IDS)
        if any(_overlap(wanted, other) for other in ranges) or any(
            number in wanted for number in ids
        ):
            continue
        return first
    return None


def pool(first_id: int, owners_max: int, turn: int) -> Iterable[int]:
    """First ids of all ranges of a pool, beginning ``turn`` ranges into it and going round."""
    for index in range(owners_max):
        yield first_id + (index + turn) % owners_max * RANGE_IDS


def group_slots(known: Mapping[int, int], groups: Iterable[int], gid: int) -> dict[int, int]:
    """Where each supplementary group is inside: as ``known``, new ones at the lowest free places, in order.

    Args:
        known: Host gid to inside gid, as it was before.
        groups: The owner's groups now.
        gid: The owner's primary group, which is 0 inside.
    """
    taken = set(known.values())
    free = (inside for inside in itertools.count(GROUP_FIRST_INSIDE) if inside not in taken)
    new = sorted(set(groups) - {gid} - UNMAPPABLE_GROUPS - set(known))
    return {**known, **dict(zip(new, free, strict=False))}


def id_map(uid: int, gid: int, range_first: int, slots: Mapping[int, int]) -> IdMap:
    """How the ids of an owner's containers map.

    Args:
        uid: The owner; 0 (root) is never mapped, the range's first stands in.
        gid: Their primary group; 0 likewise.
        range_first: Their range.
        slots: Host gid to inside gid of the groups they are in now.
    """
    own = range(range_first, range_first + RANGE_IDS)
    rest = IdRange(inside=1, outside=range_first + 1, count=RANGE_IDS - 1)
    groups = sorted((inside, group) for group, inside in slots.items() if group not in own)
    return IdMap(
        uids=(_zero(uid, own), rest),
        gids=(
            _zero(gid, own),
            rest,
            *(
                IdRange(inside=inside, outside=group, count=1)
                for inside, group in groups[:GROUPS_MAX]
            ),
        ),
    )


def _zero(number: int, own: range) -> IdRange:
    """What 0 inside is: ``number``, unless that is the host's root or came to lie in the range itself."""
    return IdRange(inside=0, outside=own.start if number == 0 or number in own else number, count=1)


def view_map(mapped: IdMap) -> IdMap:
    """The same for mounts of the store: overlay's own 65,536 (whiteouts, work directories) is host root's."""
    own = IdRange(inside=RANGE_IDS, outside=0, count=1)
    return IdMap(uids=(*mapped.uids, own), gids=(*mapped.gids, own))


def _overlap(one: range, other: range) -> bool:
    return one.start < other.stop and other.start < one.stop

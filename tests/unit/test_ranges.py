"""Which ids an owner gets, and how they map."""

from __future__ import annotations

import pytest

from supervisor.access import ranges
from supervisor.linux.idmap import IdRange, map_text

FIRST = 1_879_048_192


def test_a_container_is_root_as_its_owner() -> None:
    mapped = ranges.id_map(1_000, 1_000, FIRST, {})
    assert map_text(mapped.uids) == f"0 1000 1\n1 {FIRST + 1} 65535\n"
    assert map_text(mapped.gids) == map_text(mapped.uids)


def test_supplementary_groups_are_mapped_at_their_slots() -> None:
    slots = ranges.group_slots({}, (1_000, 5_000, 4_000), 1_000)
    assert slots == {4_000: 70_000, 5_000: 70_001}
    assert ranges.id_map(1_000, 1_000, FIRST, slots).gid_outside(70_001) == 5_000


def test_a_slot_never_comes_to_mean_another_group() -> None:
    before = ranges.group_slots({}, (4_000, 5_000), 1_000)
    after = ranges.group_slots(before, (3_000, 5_000), 1_000)
    assert after == {4_000: 70_000, 5_000: 70_001, 3_000: 70_002}


def test_the_group_of_root_is_never_mapped() -> None:
    slots = ranges.group_slots({}, (0, 27, 65_534), 1_000)
    assert slots == {27: 70_000}
    assert ranges.id_map(1_000, 0, FIRST, {}).gid_outside(0) == FIRST


def test_roots_remapped_containers_are_not_root() -> None:
    mapped = ranges.id_map(0, 0, FIRST, {})
    assert (mapped.uid_outside(0), mapped.gid_outside(0)) == (FIRST, FIRST)


def test_a_group_that_came_to_lie_in_the_range_is_not_mapped_twice() -> None:
    mapped = ranges.id_map(1_000, FIRST + 5, FIRST, {FIRST + 7: 70_000})
    assert mapped.gid_outside(0) == FIRST
    assert mapped.gid_outside(7) == FIRST + 7
    with pytest.raises(LookupError):
        mapped.gid_outside(70_000)


def test_ids_above_two_thousand_million_work() -> None:
    uid = 4_294_967_290
    mapped = ranges.id_map(uid, uid, FIRST, {uid - 1: 70_000})
    assert mapped.uid_outside(0) == uid
    assert mapped.gid_outside(70_000) == uid - 1


def test_more_groups_than_the_kernel_takes_are_left_out() -> None:
    slots = ranges.group_slots({}, range(4_000_000_000, 4_000_065_536), 1_000)
    view = ranges.view_map(
        ranges.id_map(1_000, 1_000, FIRST, slots)
    )  # IdMap itself refuses what is too much
    assert len(view.gids) == 3 + ranges.GROUPS_MAX


def test_a_view_gives_overlays_own_files_to_root() -> None:
    view = ranges.view_map(ranges.id_map(1_000, 1_000, FIRST, {}))
    assert view.uids[-1] == view.gids[-1] == IdRange(65_536, 0, 1)


def test_subordinate_files_are_read_line_by_line() -> None:
    text = "ada:100000:65536\n# bob:1:1\nbroken\n1000:165536:65536\n"
    assert ranges.subordinate(text) == (range(100_000, 165_536), range(165_536, 231_072))


def test_a_range_lies_in_nobodys_way() -> None:
    step = ranges.RANGE_IDS
    pool = [FIRST + index * step for index in range(6)]
    avoid = [range(pool[2] - 1, pool[2] + 1)]
    assert ranges.choose(pool, [pool[0]], [pool[3] + step - 1], avoid) == pool[4]
    assert ranges.choose(pool[:4], [pool[0]], [pool[3] + step - 1], avoid) is None


@pytest.mark.parametrize(
    "first", [65_500, 524_288, 1_879_048_191, 2_147_400_000, 2_147_483_648, 4_294_900_000]
)
def test_reserved_ids_are_left_alone(first: int) -> None:
    assert ranges.choose([first], [], [], []) is None


def test_the_default_pool_is_all_usable() -> None:
    pool = list(ranges.pool(FIRST, 4_000, 0))
    assert [ranges.choose([first], [], [], []) for first in pool] == pool


def test_the_pool_goes_round() -> None:
    assert list(ranges.pool(0, 3, 2)) == [131_072, 0, 65_536]

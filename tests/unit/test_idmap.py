"""Ids inside and outside: ranges, their refusal, and the text the kernel reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.linux.idmap import ID_LAST, RANGES_MAX, IdMap, IdRange, map_text

OWNER = (IdRange(0, 1000, 1), IdRange(1, 100_001, 65_535))
MAP = IdMap(OWNER, (*OWNER, IdRange(70_000, 5000, 1)))


def test_container_root_is_the_owner() -> None:
    assert MAP.remapped
    assert MAP.uid_outside(0) == 1000
    assert MAP.uid_outside(65_535) == 165_535
    assert MAP.gid_outside(70_000) == 5000
    assert MAP.gid_inside(5000) == 70_000
    assert MAP.uid_inside(1000) == 0


def test_what_is_not_mapped_is_nobody() -> None:
    for ask, number in (
        (MAP.uid_outside, 70_000),
        (MAP.uid_outside, 65_536),
        (MAP.uid_inside, 0),
        (MAP.uid_inside, 100_000),
    ):
        with pytest.raises(LookupError):
            ask(number)


def test_no_user_namespace_keeps_ids() -> None:
    assert not IdMap.IDENTITY.remapped
    assert IdMap.IDENTITY.uid_outside(33) == 33
    assert IdMap.IDENTITY.gid_inside(33) == 33


@pytest.mark.parametrize(
    "ranges",
    [
        (IdRange(0, 1000, 2), IdRange(1, 5000, 1)),  # the same id inside
        (IdRange(0, 1000, 10), IdRange(10, 1009, 1)),  # the same id outside
        tuple(IdRange(2 * n, 2 * n, 1) for n in range(RANGES_MAX + 1)),
        tuple(IdRange(2 * n, 2_000_000_000 + 2 * n, 1) for n in range(RANGES_MAX)),  # text too long
    ],
)
def test_what_the_kernel_would_refuse_is_refused(ranges: tuple[IdRange, ...]) -> None:
    with pytest.raises(ValueError, match=r"overlap|more than"):
        IdMap(ranges, (IdRange(0, 0, 1),))


@pytest.mark.parametrize("numbers", [(0, 0, 0), (-1, 0, 1), (0, -1, 1), (0, ID_LAST, 2)])
def test_no_such_range(numbers: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="no such range"):
        IdRange(*numbers)


def test_half_a_map_is_none() -> None:
    with pytest.raises(ValueError, match="both"):
        IdMap(OWNER, ())


def test_the_text_is_in_order() -> None:
    assert map_text(reversed(OWNER)) == "0 1000 1\n1 100001 65535\n"


@given(st.integers(0, 65_535))
def test_there_and_back(inside: int) -> None:
    assert MAP.uid_inside(MAP.uid_outside(inside)) == inside

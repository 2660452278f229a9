"""The table of statuses: what may follow what."""

from __future__ import annotations

import pytest

from supervisor.errors import Conflict
from supervisor.runtime.status import ACTIVE, ALIVE, TABLE, Cause, Status, advance, diagram


@pytest.mark.parametrize("status", Status)
@pytest.mark.parametrize("cause", Cause)
def test_every_pair_is_in_the_table_or_refused(status: Status, cause: Cause) -> None:
    if (status, cause) in TABLE:
        assert advance(status, cause) is TABLE[status, cause]
    else:
        with pytest.raises(Conflict, match=cause.value):
            advance(status, cause)


def test_whoever_lives_can_die_and_only_they() -> None:
    for dying in (Cause.DIE, Cause.DIE_TO_RESTART):
        assert {status for status, cause in TABLE if cause is dying} == ALIVE


def test_whatever_is_active_can_be_brought_to_rest() -> None:
    ends = {status for (status, _), after in TABLE.items() if after is Status.EXITED}
    assert ends >= ACTIVE


def test_every_status_is_reached_and_only_removed_is_final() -> None:
    reached = {Status.CREATING}
    while more := {after for (before, _), after in TABLE.items() if before in reached} - reached:
        reached |= more
    assert reached == set(Status)
    final = set(Status) - {before for before, _ in TABLE}
    assert final == {Status.REMOVED}


def test_the_diagram_says_every_pair_once() -> None:
    assert sum("-->" in line for line in diagram().splitlines()) == len(TABLE) + 2

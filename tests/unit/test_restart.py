"""Restart policies: when, how long after, and how often."""

from __future__ import annotations

import pytest

from supervisor.access.requests import RestartRequest
from supervisor.runtime.restart import (
    DELAY_NS_MAX,
    DELAY_NS_MIN,
    LONG_RUN_NS,
    Backoff,
    Ended,
    after_run,
    at_daemon_start,
    next_delay_ns,
)

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
POLICIES = [RestartRequest(name) for name in ("no", "always", "unless-stopped", "on-failure")]


@pytest.mark.parametrize(
    ("name", "attempts_max", "code", "count", "again"),
    [
        ("no", 0, 1, 0, False),
        ("always", 0, 0, 0, True),
        ("always", 0, 1, 1_000, True),
        ("unless-stopped", 0, 0, 0, True),
        ("on-failure", 0, 0, 0, False),
        ("on-failure", 0, 1, 1_000, True),
        ("on-failure", 3, 1, 2, True),
        ("on-failure", 3, 1, 3, False),
        ("on-failure", 0, 255, 0, True),  # an unknown code is a failure
    ],
)
def test_after_a_run(name: str, attempts_max: int, code: int, count: int, again: bool) -> None:
    policy = RestartRequest(name, attempts_max)
    after = after_run(policy, Ended(code, SECOND), Backoff(count), NOW)
    assert (after is not None) == again
    if after is not None:
        assert after.count == count + 1


@pytest.mark.parametrize("policy", POLICIES)
def test_whoever_asks_for_an_end_ends_the_restarts(policy: RestartRequest) -> None:
    assert after_run(policy, Ended(137, SECOND, stopped=True), Backoff(), NOW) is None


def test_delays_double_up_to_a_minute_and_begin_anew_after_a_long_run() -> None:
    policy, backoff, delays = RestartRequest("always"), Backoff(), []
    for _ in range(12):
        after = after_run(policy, Ended(1, SECOND), backoff, NOW)
        assert after is not None
        assert after.due_ns == NOW + after.delay_ns
        backoff = after
        delays.append(after.delay_ns)
    doubling = [DELAY_NS_MIN << place for place in range(10)]
    assert delays == [*doubling, DELAY_NS_MAX, DELAY_NS_MAX]
    assert next_delay_ns(DELAY_NS_MAX, LONG_RUN_NS) == DELAY_NS_MIN
    assert next_delay_ns(DELAY_NS_MAX, LONG_RUN_NS - 1) == DELAY_NS_MAX


@pytest.mark.parametrize(
    ("now_ns", "left_ns"),
    [
        (NOW, 2 * SECOND),
        (NOW + SECOND, SECOND),
        (NOW + 3 * SECOND, 0),
        (NOW - 3600 * SECOND, 2 * SECOND),
    ],
)
def test_what_is_left_of_a_delay_is_never_more_than_the_delay(now_ns: int, left_ns: int) -> None:
    """A new daemon goes on where the one before was; the clock may have been set back an hour."""
    assert Backoff(1, 2 * SECOND, NOW + 2 * SECOND).remaining_ns(now_ns) == left_ns


@pytest.mark.parametrize(
    ("name", "stopped", "has_run", "cut_off", "starts"),
    [
        ("no", False, True, True, False),
        ("always", False, True, False, True),
        ("always", True, True, False, True),
        ("always", False, False, False, False),
        ("always", False, False, True, True),
        ("unless-stopped", False, True, False, True),
        ("unless-stopped", True, True, False, False),
        ("on-failure", False, True, False, False),
        ("on-failure", False, True, True, True),
        ("on-failure", True, True, True, False),
    ],
)
def test_at_the_daemons_start(
    name: str, stopped: bool, has_run: bool, cut_off: bool, starts: bool
) -> None:
    policy = RestartRequest(name)
    assert at_daemon_start(policy, stopped=stopped, has_run=has_run, cut_off=cut_off) == starts

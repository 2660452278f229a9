"""The fair queue: nobody starves, shares follow weights, first come first served within an owner."""

from __future__ import annotations

from collections import Counter, defaultdict, deque

import hypothesis.strategies as st
from hypothesis import given

from supervisor.monitor.admission import FairQueue, may_start
from supervisor.monitor.detect import Level

OWNERS = st.integers(1, 6)
WEIGHTS = st.lists(st.integers(1, 1_000), min_size=1, max_size=6)


def always(_owner: int) -> bool:
    return True


def drain(queue: FairQueue[int]) -> list[tuple[int, int]]:
    served = []
    while one := queue.pop(always):
        served.append(one)
    return served


@given(st.lists(st.tuples(OWNERS, st.integers(1, 1_000))))
def test_all_is_served_once_and_in_order_within_an_owner(pushed: list[tuple[int, int]]) -> None:
    queue: FairQueue[int] = FairQueue()
    expected = defaultdict(list)
    for number, (owner, weight) in enumerate(pushed):
        queue.push(owner, weight, number)
        expected[owner].append(number)
    assert len(queue) == len(pushed)
    served = defaultdict(list)
    for owner, item in drain(queue):
        served[owner].append(item)
    assert served == expected
    assert len(queue) == 0
    assert queue.pop(always) is None


@given(WEIGHTS)
def test_shares_follow_weights_while_all_want_more(weights: list[int]) -> None:
    queue: FairQueue[int] = FairQueue()
    turns = 2_000
    for owner, weight in enumerate(weights):
        for number in range(turns):
            queue.push(owner, weight, number)
    served: Counter[int] = Counter()
    for _ in range(turns):
        one = queue.pop(always)
        assert one is not None
        served[one[0]] += 1
    total = sum(weights)
    for owner, weight in enumerate(weights):
        # One turn's worth of credit, and one round's for the heaviest, are all that may be out.
        assert abs(served[owner] - turns * weight / total) <= 2 + max(weights) / 100


@given(WEIGHTS.filter(lambda weights: len(weights) > 1), st.data())
def test_nobody_starves(weights: list[int], data: st.DataObject) -> None:
    """A newcomer with one item waits no longer than the rounds their weight needs, however much the others want."""
    queue: FairQueue[int] = FairQueue()
    for owner, weight in enumerate(weights[1:], 1):
        for number in range(20_000 // len(weights)):
            queue.push(owner, weight, number)
    for _ in range(data.draw(st.integers(0, 50))):
        queue.pop(always)
    queue.push(0, weights[0], -1)
    rounds = -(-100 // weights[0])
    bound = sum(rounds * weight // 100 + weight // 100 + 2 for weight in weights[1:])
    for _ in range(bound + 1):
        one = queue.pop(always)
        assert one is not None
        if one[0] == 0:
            return
    raise AssertionError("starved")


@given(st.lists(st.tuples(st.sampled_from(["push", "pop", "remove"]), OWNERS), max_size=60))
def test_it_agrees_with_plain_lines_whatever_comes(steps: list[tuple[str, int]]) -> None:
    queue: FairQueue[int] = FairQueue()
    lines: dict[int, deque[int]] = defaultdict(deque)
    for number, (step, owner) in enumerate(steps):
        if step == "push":
            queue.push(owner, 100, number)
            lines[owner].append(number)
        elif step == "remove":
            item = lines[owner][len(lines[owner]) // 2] if lines[owner] else -1
            assert queue.remove(owner, item) == (item >= 0)
            if item >= 0:
                lines[owner].remove(item)
        else:
            one = queue.pop(lambda who: who != owner)  # noqa: B023 - used at once
            if one is None:
                assert not any(line for who, line in lines.items() if who != owner)
            else:
                assert one[0] != owner
                assert lines[one[0]].popleft() == one[1]
        assert len(queue) == sum(map(len, lines.values()))
        assert queue.waiting(owner) == len(lines[owner])


@given(st.sampled_from(Level), st.integers(1, 64))
def test_an_idle_host_always_lets_one_start(level: Level, tickets_max: int) -> None:
    assert may_start(level, held=0, held_by_owner=0, tickets_max=tickets_max)


@given(st.integers(0, 64), st.integers(0, 64), st.integers(1, 64))
def test_worse_never_lets_more_start(held: int, of_owner: int, tickets_max: int) -> None:
    told = [
        may_start(level, held=max(held, of_owner), held_by_owner=of_owner, tickets_max=tickets_max)
        for level in Level
    ]
    assert told == sorted(told, reverse=True)


@given(st.integers(0, 1_000), st.integers(1, 64))
def test_on_a_calm_host_who_holds_nothing_never_waits(held: int, tickets_max: int) -> None:
    assert may_start(Level.CALM, held=held, held_by_owner=0, tickets_max=tickets_max)


@given(st.lists(st.tuples(OWNERS, st.integers(1, 1_000))), st.integers(0, 9))
def test_the_order_that_is_told_is_the_order_that_is_served(
    pushed: list[tuple[int, int]], before: int
) -> None:
    queue: FairQueue[int] = FairQueue()
    for number, (owner, weight) in enumerate(pushed):
        queue.push(owner, weight, number)
    for _ in range(before):
        queue.pop(always)
    told = queue.in_turn()
    assert len(queue) == len(told)
    assert drain(queue) == told

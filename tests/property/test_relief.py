"""Relief as decided: from the mildest on, no further than the verdict allows, to those above their share, and all undone."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from supervisor.monitor.detect import CALM, Level, Resource, Verdict
from supervisor.monitor.relief import (
    PATIENT_SECONDS,
    Deed,
    OwnerUse,
    State,
    Step,
    Work,
    decide,
    furthest_reach,
    shares,
)

GIB = 1 << 30
TIGHT = Verdict(Level.TIGHT, "work waited for memory 30 %", Resource.MEMORY)
CRITICAL = Verdict(Level.CRITICAL, "everything waited for memory 40 %", Resource.MEMORY)
DISKS = Verdict(Level.TIGHT, "everything waited for disks 70 %", Resource.DISKS)
VERDICTS = st.sampled_from([CALM, TIGHT, CRITICAL, DISKS])


def work(name: str, *, build: bool = False, held: int = GIB, cpu_ns: int = 10**9) -> Work:
    return Work(f"u1/{name}", name, build, held, cpu_ns)


GREEDY = OwnerUse(
    1, 6 * GIB, 4 * GIB, io_bytes_per_second=90.0, io_share=0.5, works=(work("hog"), work("old", cpu_ns=10**12))
)  # fmt: skip
BAKER = OwnerUse(
    1, 6 * GIB, 4 * GIB, works=(work("hog", cpu_ns=1), work("step", build=True, cpu_ns=10**12))
)
MODEST = OwnerUse(2, GIB, 4 * GIB, io_bytes_per_second=10.0, io_share=0.5, works=(work("web"),))

WORKS = st.builds(
    Work,
    group=st.sampled_from(["u1/a", "u1/b", "u1/builds/c"]),
    name=st.just("x"),
    build=st.booleans(),
    memory_bytes=st.integers(0, 8 * GIB),
    cpu_ns=st.integers(0, 10**13),
)
USES = st.lists(
    st.builds(
        OwnerUse,
        owner=st.integers(0, 5),
        memory_bytes=st.integers(0, 8 * GIB),
        share_bytes=st.integers(0, 8 * GIB),
        io_bytes_per_second=st.floats(0, 1e9),
        io_share=st.floats(0.01, 1),
        works=st.lists(WORKS, max_size=3).map(tuple),
    ),
    max_size=3,
    unique_by=lambda use: use.owner,
)
MOMENTS = st.lists(st.tuples(st.floats(0.1, 15), VERDICTS, USES), max_size=15)


def play(moments: list[tuple[float, Verdict, list[OwnerUse]]]) -> tuple[State, list[str]]:
    """What is done (+) and undone (-), in order."""
    state, now, told = State(), 0.0, []
    for seconds, verdict, uses in moments:
        now += seconds
        decision = decide(state, verdict, uses, now)
        state = decision.state
        told += [f"+{deed.step.word}" for deed in [decision.do] if deed]
        told += [f"-{deed.step.word}" for deed in [decision.undo] if deed]
    return state, told


def test_it_goes_from_the_mildest_to_the_last_resort_and_back() -> None:
    bad = [(1.0, CRITICAL, [BAKER, MODEST])] * 25
    good = [(1.0, CALM, [BAKER, MODEST])] * 60
    state, told = play(bad + good)
    up = ["+hold builds", "+lower weights", "+reclaim", "+freeze builds"]
    down = [f"-{step[1:]}" for step in reversed(up)]
    assert told == [*up, "+end", *down]
    assert state.done == ()


def test_with_time_between_the_steps() -> None:
    assert play([(1.0, TIGHT, [GREEDY])] * 10)[1] == ["+hold builds"]
    assert play([(1.0, TIGHT, [GREEDY])] * 12)[1] == ["+hold builds", "+lower weights"]


def test_a_short_stall_holds_builds_only_and_a_flutter_undoes_nothing() -> None:
    flutter = [(1.0, TIGHT, [GREEDY]), (1.0, CALM, [GREEDY])] * 4
    assert play(flutter)[1] == ["+hold builds"]


def test_who_keeps_within_their_share_is_left_alone() -> None:
    assert play([(60.0, CRITICAL, [MODEST])] * 9)[1] == ["+hold builds"]
    decision = decide(State((Deed(Step.HOLD_BUILDS, None, ""),), 0), CRITICAL, [MODEST, GREEDY], 60)
    assert decision.do is not None
    assert decision.do.owner == GREEDY.owner
    assert "uid 1 holds 6,144 MiB, and 4,096 MiB are their share" in decision.do.why


def test_reclaim_leaves_them_their_share() -> None:
    state = State((Deed(Step.LOWER_WEIGHTS, 1, ""),), 0)
    for held, left in ((6 * GIB, int(5.4 * GIB)), (4 * GIB + 1, 4 * GIB)):
        decision = decide(state, TIGHT, [OwnerUse(1, held, 4 * GIB)], 60)
        assert decision.do is not None
        assert decision.do.amount_bytes == left


def test_the_cheapest_is_a_build_if_there_is_one() -> None:
    state = State((Deed(Step.FREEZE_BUILDS, 1, ""),), 0)
    for use, ended in ((BAKER, "step"), (GREEDY, "hog")):
        decision = decide(state, CRITICAL, [use], 60)
        assert decision.do is not None
        assert (decision.do.what, decision.do.group) == (ended, f"u1/{ended}")
        assert "are lost" in decision.do.why


def test_disks_go_no_further_than_weights() -> None:
    assert play([(60.0, DISKS, [GREEDY, MODEST])] * 9)[1] == ["+hold builds", "+lower weights"]


def test_shares_are_by_weight() -> None:
    assert shares({1: 100, 2: 300}, 4 * GIB) == {1: GIB, 2: 3 * GIB}
    assert shares({}, GIB) == {}


@given(MOMENTS)
def test_whatever_comes_all_is_undone_in_the_end(
    moments: list[tuple[float, Verdict, list[OwnerUse]]],
) -> None:
    calm = [(PATIENT_SECONDS, CALM, list[OwnerUse]())] * (len(Step) + 1)
    state, told = play(moments + calm)
    assert state.done == ()
    stack: list[str] = []
    for each in told:
        if each == "+end":
            continue
        if each[0] == "+":
            stack.append(each[1:])
        else:
            assert stack.pop() == each[1:], "the last first"
    assert stack == []


@given(MOMENTS)
def test_nothing_is_done_beyond_the_verdict_or_to_the_modest(
    moments: list[tuple[float, Verdict, list[OwnerUse]]],
) -> None:
    state, now = State(), 0.0
    for seconds, verdict, uses in moments:
        now += seconds
        decision = decide(state, verdict, uses, now)
        if deed := decision.do:
            assert deed.step <= furthest_reach(verdict)
            assert verdict.level is not Level.CALM
            by_owner = {use.owner: use for use in uses}
            if deed.owner is not None and verdict.resource is Resource.MEMORY:
                use = by_owner[deed.owner]
                assert use.memory_bytes > use.share_bytes
                assert deed.step is not Step.RECLAIM or deed.amount_bytes >= use.share_bytes
        steps = [deed.step for deed in decision.state.done]
        assert steps == sorted(set(steps)), "each step stands once, the milder before"
        state = decision.state

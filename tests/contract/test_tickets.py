"""Tickets on a real journal: order, lanes, cancellation, and what is told."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from protocol.samples import Waiting
from supervisor.config import JournalConfig
from supervisor.database.database import open_database
from supervisor.errors import ResourceExhausted
from supervisor.events.journal import Events, open_events
from supervisor.monitor import tickets as module
from supervisor.monitor.detect import CALM, Level, Verdict
from supervisor.monitor.tickets import Ticket, Tickets

TIGHT = Verdict(Level.TIGHT, "work waited for memory")
CRITICAL = Verdict(Level.CRITICAL, "everything waited for memory")


@pytest.fixture
async def events(tmp_path: Path) -> AsyncIterator[Events]:
    async with open_database(tmp_path / "database.sqlite") as database:
        async with open_events(database, JournalConfig()) as opened:
            yield opened


@asynccontextmanager
async def opened(events: Events, tickets_max: int = 1) -> AsyncIterator[Tickets]:
    tickets = Tickets(events, tickets_max, lambda _owner: 100, lambda: None)
    yield tickets
    assert tickets.count == Waiting(0, 0)


async def hold(
    tickets: Tickets, owner: int, order: list[int], go: trio.Event, *, lasting: bool = False
) -> None:
    async with tickets.ticket(owner, "work", lasting=lasting):
        order.append(owner)
        await go.wait()


async def test_nobody_in_the_way_costs_microseconds(events: Events) -> None:
    async with opened(events, 4) as tickets:
        began = time.thread_time()
        for _ in range(1_000):
            async with tickets.ticket(1, "work", lasting=False):
                pass
        assert (time.thread_time() - began) / 1_000 < 0.000_5


async def test_the_second_of_one_owner_waits_and_anothers_first_does_not(events: Events) -> None:
    order: list[int] = []
    go = trio.Event()
    async with opened(events) as tickets, trio.open_nursery() as nursery:
        for owner in (1, 1, 2):
            nursery.start_soon(hold, tickets, owner, order, go)
            await trio.testing.wait_all_tasks_blocked()
        assert order == [1, 2]
        assert tickets.count == Waiting(2, 1)
        go.set()
    assert order == [1, 2, 1]


async def test_long_steps_do_not_keep_a_start_waiting(events: Events) -> None:
    order: list[int] = []
    go = trio.Event()
    async with opened(events) as tickets, trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(partial(hold, tickets, 1, order, go, lasting=True))
        await trio.testing.wait_all_tasks_blocked()
        assert order == [1]
        async with tickets.ticket(1, "a start", lasting=False):
            pass
        go.set()


async def test_a_start_that_is_stuck_takes_nobodys_turn(
    events: Events, autojump_clock: trio.testing.MockClock
) -> None:
    order: list[int] = []
    go = trio.Event()
    async with opened(events) as tickets, trio.open_nursery() as nursery:
        nursery.start_soon(hold, tickets, 1, order, go)
        nursery.start_soon(partial(hold, tickets, 1, order, go, lasting=True))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(hold, tickets, 1, order, go)
        await trio.sleep(module.BRIEF_SECONDS_MAX / 2)
        tickets.judge(CALM)
        assert tickets.count == Waiting(2, 1)
        await trio.sleep(module.BRIEF_SECONDS_MAX)
        tickets.judge(CALM)  # as at each tick
        assert tickets.count == Waiting(2, 0)
        while len(order) < 3:  # that it waited long is told first
            await trio.sleep(0.01)
        go.set()


async def test_owners_take_turns(events: Events) -> None:
    order: list[int] = []
    go = trio.Event()
    async with opened(events) as tickets:
        tickets.judge(CRITICAL)
        async with trio.open_nursery() as nursery:
            async with tickets.ticket(9, "first", lasting=False):
                for owner in (1, 1, 1, 2, 3):
                    nursery.start_soon(hold, tickets, owner, order, go)
                    await trio.testing.wait_all_tasks_blocked()
                assert order == []
                assert tickets.count == Waiting(1, 5)
                go.set()
    assert order == [1, 2, 3, 1, 1]


async def test_calm_again_lets_all_in_at_once(events: Events) -> None:
    order: list[int] = []
    go = trio.Event()
    async with opened(events, 8) as tickets, trio.open_nursery() as nursery:
        tickets.judge(TIGHT)
        for owner in (1, 1, 2):
            nursery.start_soon(hold, tickets, owner, order, go)
            await trio.testing.wait_all_tasks_blocked()
        assert order == [1, 2]
        tickets.judge(CALM)
        await trio.testing.wait_all_tasks_blocked()
        assert order == [1, 2, 1]
        go.set()


@pytest.mark.parametrize("granted_too", [False, True])
async def test_who_is_cancelled_leaves_nothing_behind(events: Events, granted_too: bool) -> None:
    order: list[int] = []
    again: list[Ticket] = []
    go = trio.Event()
    go.set()
    async with opened(events) as tickets:
        async with trio.open_nursery() as nursery:
            async with tickets.ticket(1, "first", lasting=False):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as inner:
                        inner.start_soon(hold, tickets, 1, order, go)
                        await trio.testing.wait_all_tasks_blocked()
                        scope.cancel()
                        if granted_too:
                            tickets.judge(CALM)
                            (held,) = tickets._brief._tickets
                            tickets._brief.give_back(
                                held
                            )  # the turn comes in the moment of cancelling
                            again.append(tickets._brief.take(1, "again"))
                assert order == []
                nursery.start_soon(hold, tickets, 1, order, go)
                await trio.testing.wait_all_tasks_blocked()
                for one in again:
                    tickets._brief.give_back(one)
        assert order == [1]


async def test_far_too_much_waiting_is_refused(
    events: Events, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_PER_OWNER_MAX", 1)
    order: list[int] = []
    go = trio.Event()
    async with opened(events) as tickets, trio.open_nursery() as nursery:
        nursery.start_soon(hold, tickets, 1, order, go)
        nursery.start_soon(hold, tickets, 1, order, go)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(ResourceExhausted, match="cannot start container web"):
            async with tickets.ticket(1, "container web", lasting=False):
                pass
        go.set()


async def test_only_long_waits_are_told(events: Events, monkeypatch: pytest.MonkeyPatch) -> None:
    async def wait_behind(tickets: Tickets) -> None:
        order: list[int] = []
        go = trio.Event()
        go.set()
        async with trio.open_nursery() as nursery:
            async with tickets.ticket(1, "first", lasting=False):
                nursery.start_soon(hold, tickets, 1, order, go)
                await trio.testing.wait_all_tasks_blocked()
                await trio.sleep(0.02)

    async with opened(events) as tickets:
        before = events.last_seq
        await wait_behind(tickets)
        assert events.last_seq == before
        monkeypatch.setattr(module, "LONG_WAIT_SECONDS", 0.01)
        await wait_behind(tickets)
        assert events.last_seq == before + 1


async def test_the_queue_tells_who_works_and_who_waits_in_turn(events: Events) -> None:
    order: list[int] = []
    go = trio.Event()
    async with opened(events) as tickets, trio.open_nursery() as nursery:
        for owner in (1, 1, 1, 2, 2):
            nursery.start_soon(hold, tickets, owner, order, go)
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(partial(hold, tickets, 3, order, go, lasting=True))
        await trio.testing.wait_all_tasks_blocked()
        shown = [(each.owner, each.kind, each.waiting) for each in tickets.work()]
        assert shown == [
            (1, "start", False),
            (2, "start", False),
            (3, "step", False),
            (1, "start", True),
            (2, "start", True),
            (1, "start", True),
        ]
        assert {each.why for each in tickets.work() if each.waiting} == {"2 of 1 tickets are held"}
        go.set()
    assert sorted(order) == [1, 1, 1, 2, 2, 3]
    assert tickets.work() == ()


async def test_builds_on_hold_begin_one_at_a_time_and_starts_go_on(events: Events) -> None:
    order: list[int] = []
    go = trio.Event()
    async with opened(events, 4) as tickets, trio.open_nursery() as nursery:
        tickets.hold_builds(True)
        for owner in (1, 2):
            nursery.start_soon(partial(hold, tickets, owner, order, go, lasting=True))
            await trio.testing.wait_all_tasks_blocked()
        async with tickets.ticket(3, "a start", lasting=False):
            assert order == [1]
        assert "held back" in tickets.work()[-1].why
        tickets.hold_builds(False)
        await trio.testing.wait_all_tasks_blocked()
        assert order == [1, 2]
        go.set()

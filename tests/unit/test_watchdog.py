"""Feeding the watchdog: only while every loop answers."""

from __future__ import annotations

import attrs
import pytest
import trio
from typing_extensions import override

from supervisor.linux.systemd import ServiceManager
from supervisor.service.watchdog import Heart, feed, silent


@attrs.define(eq=False)
class Hearing(ServiceManager):
    """A service manager that remembers when it was told that we live."""

    fed: list[float] = attrs.field(factory=list)

    @override
    def alive(self) -> None:
        self.fed.append(round(trio.current_time() % 1_000, 1))


async def alive() -> None:
    await trio.lowlevel.checkpoint()


async def test_it_is_fed_twice_in_the_time_it_waits(autojump_clock: trio.abc.Clock) -> None:
    manager = Hearing(watchdog_seconds=20.0)
    start = trio.current_time() % 1_000
    with trio.move_on_after(45):
        await feed(manager, {"one": alive, "two": alive})
    assert [at - round(start, 1) for at in manager.fed] == [0.0, 10.0, 20.0, 30.0, 40.0]


async def test_a_hung_loop_stops_it_and_is_named(
    autojump_clock: trio.abc.Clock, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Hearing(watchdog_seconds=20.0)
    hanging, asked = trio.Event(), 0

    async def hangs() -> None:
        nonlocal asked
        asked += 1
        if asked > 1:
            with trio.CancelScope(shield=True):  # as a thread that does not come back
                await hanging.wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(feed, manager, {"fine": alive, "the writer": hangs})
        await trio.sleep(55)
        assert len(manager.fed) == 1
        assert "no answer from the writer" in caplog.text
        assert asked == 2, "one beat at a time"
        hanging.set()
        await trio.sleep(20)
        assert len(manager.fed) > 1, "it was only slow"
        nursery.cancel_scope.cancel()


async def test_a_slow_answer_within_the_round_is_good_enough(
    autojump_clock: trio.abc.Clock,
) -> None:
    manager = Hearing(watchdog_seconds=20.0)

    async def slow() -> None:
        await trio.sleep(7)

    with trio.move_on_after(29):
        await feed(manager, {"slow": slow})
    assert len(manager.fed) == 3


async def test_one_that_cannot_be_asked_tells_why(autojump_clock: trio.abc.Clock) -> None:
    async def refused() -> None:
        await trio.lowlevel.checkpoint()
        raise BlockingIOError(11, "Resource temporarily unavailable")

    manager = Hearing(watchdog_seconds=20.0)
    with trio.move_on_after(25):
        await feed(manager, {"the API": refused})
    assert manager.fed == []
    heart = Heart("the API", refused)
    await heart.answer()
    assert silent([heart]) == ("the API ([Errno 11] Resource temporarily unavailable)",)


async def test_without_a_watchdog_nothing_is_asked() -> None:
    await feed(Hearing(), {})

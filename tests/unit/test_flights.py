"""Work that several builds want: done once, ended when the last leaves; and its log."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest
import trio
import trio.testing

from supervisor.build.flights import Flight, Flights, Made
from supervisor.build.step_log import StepLog, Written
from supervisor.errors import InvalidArgument

MADE = Made("layer", 1, cached=False, key="k")


def nobody(_: Flight) -> None:
    return


async def test_two_share_one_flight(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    begun: list[str] = []

    async def work(flight: Flight) -> Made:
        begun.append(flight.step_id)
        await trio.sleep(1)
        return MADE

    found: list[Made] = []
    async with trio.open_nursery() as service:
        flights = Flights(service, tmp_path, 1000)

        async def join(step_id: str) -> None:
            found.append(await flights.join("key", step_id, work, nobody))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(join, "one")
            nursery.start_soon(join, "two")
        await join("three")
    assert found == [MADE] * 3
    assert len(begun) == 2


async def test_the_last_to_leave_ends_it_and_waits(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    ended: list[float] = []

    async def work(_: Flight) -> NoReturn:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)
            ended.append(trio.current_time())

    async with trio.open_nursery() as service:
        flights = Flights(service, tmp_path, 1000)
        start = trio.current_time()

        async def leave_after(seconds: float) -> None:
            with trio.move_on_after(seconds):
                await flights.join("key", "id", work, nobody)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(leave_after, 1)
            nursery.start_soon(leave_after, 3)
        assert [moment - start for moment in ended] == [pytest.approx(8)]
        assert trio.current_time() - start == pytest.approx(8)


async def test_a_failure_is_everybodys(tmp_path: Path) -> None:
    async def work(_: Flight) -> Made:
        msg = "cannot: so"
        raise InvalidArgument(msg)

    async with trio.open_nursery() as service:
        flights = Flights(service, tmp_path, 1000)
        for _ in range(2):
            with pytest.raises(InvalidArgument, match="cannot: so"):
                await flights.join("key", "id", work, nobody)


async def test_a_log_is_read_from_its_beginning_by_all(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 20)
    seen: list[bytes] = []

    async def read() -> None:
        seen.append(b"".join([piece.data async for piece in log.read()]))

    log.write(b"before ")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        log.write(b"after")
        log.end()
    assert seen == [b"before after"] * 2
    assert list(tmp_path.iterdir()) == []


async def test_a_log_knows_which_stream_a_piece_is_of(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 100)
    reader = log.read()
    log.write(b"out")
    log.write(b"err", errors=True)
    first = await anext(reader)
    log.end()
    rest = [piece async for piece in reader]
    assert [first, *rest] == [Written(b"out"), Written(b"err", errors=True)]


async def test_a_log_is_bounded_and_says_so(tmp_path: Path) -> None:
    log = StepLog(tmp_path, 10)
    reader = log.read()
    for _ in range(1000):
        log.write(b"12345678")
    first = (await anext(reader)).data
    log.end()
    rest = b"".join([piece.data async for piece in reader])
    assert (first + rest).startswith(b"1234567812\n[further output")
    assert len(first + rest) < 100

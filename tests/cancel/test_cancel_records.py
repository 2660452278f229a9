"""The database's units and the monitor's tickets, cancelled anywhere."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
import trio

from supervisor.config import JournalConfig, MonitorConfig
from supervisor.database.database import Database, open_database
from supervisor.events.journal import open_events
from supervisor.linux.cgroup import detect
from supervisor.monitor.monitor import open_monitor
from tests.support.cancelling import cancel_everywhere

OWNER = 1_000


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) FROM things").fetchone()[0])


async def with_table(database: Database) -> None:
    await database.write(lambda connection: connection.execute("CREATE TABLE things (number INT)"))


async def test_a_cancelled_unit_was_not_run_and_a_run_one_is_not_cancelled(tmp_path: Path) -> None:
    """Whoever writes knows: cancelled means not written, so that what they hold in memory can agree."""
    async with open_database(tmp_path / "d") as database:
        await with_table(database)
        told = 0

        def two(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO things VALUES (1), (2)")

        async def operation() -> None:
            nonlocal told
            await database.write(two)
            told += 2

        async def check(_: bool) -> None:
            assert await database.read(count) == told

        for every_task in (False, True):  # the writer's checkpoints too: cancelled while it commits
            await cancel_everywhere(operation, check, every_task=every_task)
        assert told > 2


async def test_many_cancelled_units(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d") as database:
        await with_table(database)
        told = 0

        async def one() -> None:
            nonlocal told
            await database.write(lambda c: c.execute("INSERT INTO things VALUES (1)"))
            told += 1

        async def operation() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(40):
                    nursery.start_soon(one)

        async def check(_: bool) -> None:
            assert await database.read(count) == told

        for every_task in (False, True):
            await cancel_everywhere(operation, check, every_task=every_task)


async def test_a_unit_that_fails_after_its_caller_was_cancelled(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d") as database:
        await with_table(database)

        def failing(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO things VALUES (1)")
            raise KeyError

        async def operation() -> None:
            with pytest.raises(KeyError):
                await database.write(failing)

        async def check(_: bool) -> None:
            assert await database.read(count) == 0

        await cancel_everywhere(operation, check, every_task=True)


async def test_a_ticket_is_given_back(tmp_path: Path) -> None:
    config = MonitorConfig(tickets_max=1)
    async with (
        open_database(tmp_path / "d") as database,
        open_events(database, JournalConfig()) as events,
        open_monitor(events, detect("bakehouse-test"), config) as monitor,
    ):

        async def operation() -> None:
            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(work)

        async def work() -> None:
            async with monitor.ticket(OWNER, "work"):
                await trio.sleep(0.001)

        async def check(_: bool) -> None:
            with trio.fail_after(20):
                async with monitor.ticket(OWNER, "work"):
                    pass
            counted = monitor._tickets.count
            assert (counted.held, counted.waiting) == (0, 0)

        assert await cancel_everywhere(operation, check) >= 5

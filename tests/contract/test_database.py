"""The database: units, groups, readers, migrations, and what survives a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from supervisor.database import schema
from supervisor.database.database import Database, open_database
from supervisor.errors import Conflict, Internal, ResourceExhausted, Unavailable


def make_table(connection: sqlite3.Connection) -> None:
    connection.execute(
        "CREATE TABLE thing (number INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT) STRICT"
    )


def add(connection: sqlite3.Connection, text: str = "x") -> int:
    number = connection.execute("INSERT INTO thing (text) VALUES (?)", (text,)).lastrowid
    assert number is not None
    return number


def count(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT count(*) AS n FROM thing").fetchone()["n"])


async def test_a_unit_that_raises_is_undone_alone(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d") as database:
        await database.write(make_table)
        numbers: list[int] = []

        async def good() -> None:
            numbers.append(await database.write(add))

        async def bad() -> None:
            def add_and_fail(connection: sqlite3.Connection) -> None:
                add(connection)
                raise LookupError

            with pytest.raises(LookupError):
                await database.write(add_and_fail)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(good)
                nursery.start_soon(bad)
        assert sorted(numbers) == list(range(1, 21))
        assert await database.read(count) == 20


async def test_waiting_units_are_committed_together(tmp_path: Path) -> None:
    commits = 0

    def committed() -> None:
        nonlocal commits
        commits += 1

    async with open_database(tmp_path / "d") as database:
        await database.write(make_table)
        database.on_commit(committed)
        async with trio.open_nursery() as nursery:
            for _ in range(100):
                nursery.start_soon(database.write, add)
        assert await database.read(count) == 100
    assert commits <= 5


async def test_a_constraint_is_the_callers_business(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d") as database:
        await database.write(make_table)
        with pytest.raises(sqlite3.IntegrityError):
            await database.write(
                lambda connection: connection.execute(
                    "INSERT INTO thing SELECT 1, 'x' UNION ALL SELECT 1, 'y'"
                )
            )
        assert await database.read(count) == 0


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d") as database:
        await database.write(make_table)
        with pytest.raises(Internal, match="cannot read the database"):
            await database.read(add)


async def test_a_cancelled_caller_leaves_all_or_nothing(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d") as database:
        await database.write(make_table)

        def two(connection: sqlite3.Connection) -> None:
            add(connection)
            add(connection)

        for checkpoints in range(12):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database.write, two)
                for _ in range(checkpoints):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert await database.read(count) % 2 == 0
        await database.write(add)


async def test_cleanup_may_still_write_when_all_is_cancelled(tmp_path: Path) -> None:
    with trio.CancelScope() as everything:
        async with open_database(tmp_path / "d") as database:
            await database.write(make_table)
            everything.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await database.write(add)
    async with open_database(tmp_path / "d") as database:
        assert await database.read(count) == 1


async def test_a_full_disk_is_told_and_survived(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d") as database:
        await database.write(make_table)
        await fill(database)
        with pytest.raises(ResourceExhausted, match="no space left"):
            await database.write(lambda connection: add(connection, "x" * 1_000_000))
        await database.write(lambda connection: connection.execute("PRAGMA max_page_count=1000000"))
        before = await database.read(count)
        await database.write(add)
        assert await database.read(count) == before + 1


@pytest.mark.root
async def test_others_who_fill_the_disk_do_not_stop_it(tmp_path: Path) -> None:
    """On a disk on which nobody can write another byte there is still room for what must be written down."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", tmp_path], check=True)
    try:
        async with open_database(tmp_path / "d") as database:
            await database.write(make_table)
            hog = ["dd", "if=/dev/zero", f"of={tmp_path}/hog", "bs=4k"]
            assert b"No space left" in subprocess.run(hog, capture_output=True, check=False).stderr
            for _ in range(100):
                await database.write(lambda connection: add(connection, "x" * 10_000))
            assert await database.read(count) == 100
        async with open_database(tmp_path / "d") as database:
            assert await database.read(count) == 100
    finally:
        subprocess.run(["umount", tmp_path], check=True)


async def fill(database: Database) -> None:
    """Let the file grow no more: SQLite answers as it does when the disk is full."""
    pages = await database.write(
        lambda connection: connection.execute("PRAGMA page_count").fetchone()[0]
    )
    await database.write(lambda connection: connection.execute(f"PRAGMA max_page_count={pages}"))


async def test_the_epoch_stays(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d") as database:
        epoch = database.epoch
    async with open_database(tmp_path / "d") as database:
        assert database.epoch == epoch
    async with open_database(tmp_path / "other") as database:
        assert database.epoch != epoch


async def test_one_daemon_at_a_time(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d"):
        with pytest.raises(Conflict, match="another bakehoused"):
            async with open_database(tmp_path / "d"):
                pass


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    async with open_database(tmp_path / "d"):
        pass
    with sqlite3.connect(tmp_path / "d") as connection:
        connection.execute("INSERT INTO migration VALUES (9999, '9999_tomorrow.sql')")
    connection.close()
    with pytest.raises(Unavailable, match="newer Bakehouse"):
        async with open_database(tmp_path / "d"):
            pass


async def test_no_database_is_told(tmp_path: Path) -> None:
    (tmp_path / "d").write_bytes(b"this is no database" * 100)
    with pytest.raises(Internal, match="cannot open the database"):
        async with open_database(tmp_path / "d"):
            pass


def test_only_we_can_read_it(tmp_path: Path) -> None:
    schema.open_file(tmp_path / "made" / "d").close()
    assert (tmp_path / "made").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "made" / "d").stat().st_mode & 0o777 == 0o600


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path) -> None:
    connection = schema.connect(tmp_path / "d", writable=True)
    connection.executescript("CREATE TABLE migration (number INTEGER, name TEXT)")
    faulty = schema.Migration(1, "0001_x.sql", "CREATE TABLE a (b INT);\nCREATE TABLE oops oops;\n")
    with pytest.raises(sqlite3.OperationalError):
        schema._apply(connection, faulty)
    assert not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'a'").fetchall()
    assert not connection.execute("SELECT 1 FROM migration").fetchall()
    connection.close()


def test_a_script_is_cut_where_sqlite_ends_a_statement() -> None:
    trigger = "CREATE TRIGGER t AFTER INSERT ON a BEGIN\n  DELETE FROM a;\n  DELETE FROM b;\nEND;\n"
    script = f"-- a; comment\nCREATE TABLE a (b TEXT DEFAULT ';');\n{trigger}"
    assert [part.rpartition("CREATE")[2][:8] for part in schema.statements(script)] == [
        " TABLE a",
        " TRIGGER",
    ]


CHILD = """
import sys, trio
from pathlib import Path
from protocol.events import ContainerStart
from supervisor.config import JournalConfig
from supervisor.database.database import open_database
from supervisor.events.journal import open_events

async def main():
    async with open_database(Path(sys.argv[1])) as database, open_events(database, JournalConfig()) as events:
        async def write():
            while True:
                seq = await events.emit(ContainerStart(pid=1), owner=1000, subject="a" * 64)
                sys.stdout.write(f"{seq}\\n")
                sys.stdout.flush()
        async def fail():
            def unit(connection):
                events.record(connection, ContainerStart(pid=2), owner=1, subject="b")
                raise LookupError
            while True:
                try:
                    await database.write(unit)
                except LookupError:
                    pass
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(write)
            nursery.start_soon(fail)

trio.run(main)
"""


@pytest.mark.slow
def test_what_was_told_committed_survives_a_kill(tmp_path: Path) -> None:
    told = 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "d")], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(60)]
            os.kill(child.pid, signal.SIGKILL)
            lines += child.stdout.readlines()
        told = max(int(line) for line in lines if line.endswith("\n"))
        connection = sqlite3.connect(tmp_path / "d")
        kept = [row[0] for row in connection.execute("SELECT seq FROM event ORDER BY seq")]
        owners = {row[0] for row in connection.execute("SELECT owner FROM event")}
        connection.close()
        assert kept == list(range(1, len(kept) + 1)), "a gap"
        assert told <= len(kept)
        assert owners == {1000}
    assert told >= 200

"""The database file: opening it, its identity, and the numbered migrations that bring it up to date.

Rules: a migration is a file ``NNNN_name.sql``, applied once, in order, in one transaction with the note that it was;
it is never changed after a release. A database that knows a migration we do not was written by a newer Bakehouse.
"""

from __future__ import annotations

import fcntl
import os
import re
import sqlite3
import uuid
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import attrs

from supervisor.database.reserve import Reserve, reserve_for
from supervisor.errors import Conflict, Internal, Unavailable

BUSY_MILLISECONDS = 5_000
WAL_BYTES_KEPT = 16 * 1024 * 1024
MIGRATION_NAME = re.compile(r"(\d{4})_\w+\.sql")

_SELF = """
CREATE TABLE IF NOT EXISTS migration (number INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS identity (epoch TEXT NOT NULL);
"""


@attrs.frozen
class OpenFile:
    """The one writing connection, the file's epoch, the lock that keeps other daemons out, and room kept free."""

    connection: sqlite3.Connection
    epoch: str
    lock_fd: int
    reserves: tuple[Reserve, ...]

    def close(self) -> None:
        """Let go of all of it."""
        self.connection.close()
        for reserve in self.reserves:
            reserve.close()
        os.close(self.lock_fd)


@attrs.frozen(order=True)
class Migration:
    """One step from an older schema to a newer."""

    number: int
    name: str
    sql: str


def migrations() -> list[Migration]:
    """All migrations of this version, in order."""
    folder = resources.files("supervisor.database") / "migrations"
    found = [(MIGRATION_NAME.fullmatch(entry.name), entry) for entry in folder.iterdir()]
    return sorted(
        Migration(int(match[1]), entry.name, entry.read_text()) for match, entry in found if match
    )


def connect(path: Path, *, writable: bool) -> sqlite3.Connection:
    """A connection any one thread at a time may use; transactions are begun by hand."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MILLISECONDS}")
    connection.execute("PRAGMA foreign_keys = ON")
    if writable:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
    else:
        connection.execute("PRAGMA query_only = ON")
    return connection


def open_file(path: Path) -> OpenFile:
    """Open or make the file at ``path`` for writing, readable by us alone, with its schema up to date. Blocks.

    Raises:
        Conflict: Another daemon has it open.
        Unavailable: It was written by a newer Bakehouse.
        Internal: It cannot be opened.
    """
    lock_fd = _lock(path)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = connect(path, writable=True)
        try:
            epoch = _bring_up_to_date(connection, path)
            reserves = reserve_for(path)
        except BaseException:
            connection.close()
            raise
    except (sqlite3.Error, OSError) as error:
        os.close(lock_fd)
        raise Internal(f"cannot open the database {path}: {error}") from error
    except BaseException:
        os.close(lock_fd)
        raise
    return OpenFile(connection, epoch, lock_fd, reserves)


def _lock(path: Path) -> int:
    """Hold the file beside the database; the kernel lets go of it when we die."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(
            path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
    except OSError as error:
        raise Internal(f"cannot open the database {path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise Conflict(
            f"cannot open the database {path}: another bakehoused uses it",
            hint="stop the other one, or give this one a --data-root of its own",
        ) from None
    return fd


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> str:
    """Apply what is missing; return the epoch."""
    known = migrations()
    connection.executescript(_SELF)
    applied = {row["number"] for row in connection.execute("SELECT number FROM migration")}
    if applied - {migration.number for migration in known}:
        raise Unavailable(
            f"cannot open the database {path}: it was written by a newer Bakehouse",
            hint="install that version again, or start with another --data-root",
        )
    for migration in known:
        if migration.number not in applied:
            _apply(connection, migration)
    connection.execute(
        "INSERT INTO identity (epoch) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM identity)",
        (uuid.uuid4().hex,),
    )
    return str(connection.execute("SELECT epoch FROM identity").fetchone()["epoch"])


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements(migration.sql):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO migration (number, name) VALUES (?, ?)", (migration.number, migration.name)
        )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def statements(sql: str) -> Iterator[str]:
    """The statements of a script, triggers whole, as SQLite itself tells their ends; each ends with its line."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        yield statement

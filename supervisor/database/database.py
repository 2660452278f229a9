"""One SQLite file: one writer with group commit, many readers.

Words: a *unit* is one function that changes the database, all or nothing; a *group* is the units that were waiting
when the writer was free, committed by one fsync; the *epoch* is this file's identity: a new file, a new epoch.

Rules: a unit runs in the writer's thread under a SAVEPOINT of its own and does nothing but SQL, quickly; whoever
waits for it is woken after COMMIT, never before; a unit that raises is undone alone. Readers see the last commit.
A unit whose caller is cancelled before the writer took it is not run; once taken it runs to its end, and its caller
waits for that, cancelled or not, as for a thread: who is told of a cancellation knows that nothing was written. Units
and readers see rows as ``sqlite3.Row``.
"""

from __future__ import annotations

import enum
import functools
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import attrs
import outcome
import trio

from supervisor import faults
from supervisor.database import schema
from supervisor.database.reserve import Reserve
from supervisor.errors import Internal, ResourceExhausted
from supervisor.tasks import finish_within

T = TypeVar("T")

GROUP_UNITS_MAX = 256
READERS_MAX = 4
DRAIN_SECONDS = 30.0

_OUT_OF_SPACE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC}
_PRIMARY_CODE = (
    0xFF  # extended result codes keep the primary one in the low byte (sqlite.org/rescode.html)
)
_BROKEN = {
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_BUSY,
}


class _Stage(enum.Enum):
    """How far a unit has come."""

    WAITING = enum.auto()
    ABANDONED = enum.auto()
    TAKEN = enum.auto()
    DONE = enum.auto()


class _Waiting(Protocol):
    """What the writer sees of a unit."""

    def take(self) -> bool: ...

    def run(self, connection: sqlite3.Connection) -> BaseException | None: ...

    def fail(self, error: BaseException) -> None: ...

    def finish(self) -> None: ...


@attrs.define(eq=False)
class _Unit(Generic[T]):
    """A function waiting for the writer, and what came of it."""

    work: Callable[[sqlite3.Connection], T]
    result: outcome.Value[T] | outcome.Error | None = None
    _stage: _Stage = _Stage.WAITING
    _task: trio.lowlevel.Task | None = None

    async def settled(self) -> T:
        """Wait for what comes of it; may be cancelled only until the writer takes it."""
        if self._stage is not _Stage.DONE:
            self._task = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abandon)
        if self.result is None:
            message = "the database's writer has ended"
            raise RuntimeError(message)
        return self.result.unwrap()

    def _abandon(self, _: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
        if self._stage is not _Stage.WAITING:
            return trio.lowlevel.Abort.FAILED
        self._stage = _Stage.ABANDONED
        return trio.lowlevel.Abort.SUCCEEDED

    def take(self) -> bool:
        """It will be run; False when nobody waits for it any more."""
        if self._stage is _Stage.WAITING:
            self._stage = _Stage.TAKEN
        return self._stage is _Stage.TAKEN

    def finish(self) -> None:
        """Wake who waits for it."""
        self._stage = _Stage.DONE
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)

    def run(self, connection: sqlite3.Connection) -> BaseException | None:
        """Run it; what it raised, if it did."""
        self.result = outcome.capture(self.work, connection)
        if isinstance(self.result, outcome.Value):
            return None
        error = self.result.error
        if isinstance(error, sqlite3.Error):
            self.fail(_told(error, "write"))
        return error

    def fail(self, error: BaseException) -> None:
        """What it did is undone, for a reason that may not be its own."""
        self.result = outcome.Error(error)


@attrs.define(eq=False)
class Database:
    """The open database. Made by :func:`open_database`."""

    path: Path
    epoch: str
    _writer: sqlite3.Connection
    _units: trio.MemorySendChannel[_Waiting]
    _reserves: tuple[Reserve, ...] = ()
    _idle_readers: list[sqlite3.Connection] = attrs.field(factory=list)
    _reading: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(READERS_MAX))
    _writing: trio.CapacityLimiter = attrs.field(factory=lambda: trio.CapacityLimiter(1))
    _before_commit: list[Callable[[sqlite3.Connection], None]] = attrs.field(factory=list)
    _on_commit: list[Callable[[], None]] = attrs.field(factory=list)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` as one unit; return what it returns once it is on disk.

        Raises:
            ResourceExhausted: The disk is full; nothing was changed.
            Internal: The disk or the file is broken; nothing was changed.
            BaseException: Whatever ``work`` raised; what it changed is undone.
        """
        faults.before(faults.Door.COMMIT, work)
        unit = _Unit(work)
        await self._units.send(unit)
        written = await unit.settled()
        faults.after(faults.Door.COMMIT, work)
        return written

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on a reader of its own, in a thread, seeing one consistent state.

        Raises:
            Internal: The disk or the file is broken.
            BaseException: Whatever ``work`` raised.
        """
        async with self._reading:
            result = await trio.to_thread.run_sync(lambda: outcome.capture(self._read, work))
        return result.unwrap()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            reader = self._idle_readers.pop()
        except IndexError:
            reader = schema.connect(self.path, writable=False)
        try:
            reader.execute("BEGIN")
            return work(reader)
        except sqlite3.Error as error:
            raise _told(error, "read") from error
        finally:
            if reader.in_transaction:
                reader.execute("ROLLBACK")
            self._idle_readers.append(reader)

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` in trio's thread after each group, before the units' callers are woken."""
        self._on_commit.append(callback)

    def before_commit(self, callback: Callable[[sqlite3.Connection], None]) -> None:
        """Call ``callback`` in the writer's thread at the end of each group; the commit may still fail."""
        self._before_commit.append(callback)

    async def _serve(self, waiting: trio.MemoryReceiveChannel[_Waiting]) -> None:
        """Write until the last sender is closed; when cancelled, go on for those that still clean up."""
        try:
            await self._write_groups(waiting)
        finally:
            with finish_within(DRAIN_SECONDS):
                await self._write_groups(waiting)

    async def _write_groups(self, waiting: trio.MemoryReceiveChannel[_Waiting]) -> None:
        async for first in waiting:
            group = [unit for unit in (first, *_at_once(waiting)) if unit.take()]
            if not group:
                continue
            try:
                commit = functools.partial(self._commit, group)
                if await trio.to_thread.run_sync(commit, limiter=self._writing):
                    for callback in self._on_commit:
                        callback()
            finally:
                for unit in group:
                    unit.finish()

    def _commit(self, group: list[_Waiting]) -> bool:
        """Run the group's units and commit; whether the commit went well. Runs in a thread."""
        committed = outcome.capture(self._run_group, group)
        for reserve in self._reserves:
            reserve.keep()
        if isinstance(committed, outcome.Value):
            return True
        error = committed.error
        if self._writer.in_transaction:
            self._writer.execute("ROLLBACK")
        if not isinstance(error, sqlite3.Error):
            raise error  # a bug in a callback of ours
        for unit in group:
            unit.fail(_told(error, "write"))
        return False

    def _run_group(self, group: list[_Waiting]) -> None:
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        for unit in group:
            writer.execute("SAVEPOINT unit")
            error = unit.run(writer)
            if not writer.in_transaction:
                # A full or broken disk makes SQLite roll back all of it (sqlite.org/lang_transaction.html).
                raise (
                    error
                    if isinstance(error, sqlite3.Error)
                    else sqlite3.OperationalError("rolled back")
                )
            if error is not None:
                writer.execute("ROLLBACK TO unit")
            writer.execute("RELEASE unit")
        for callback in self._before_commit:
            callback(writer)
        writer.execute("COMMIT")

    def _close_readers(self) -> None:
        for reader in self._idle_readers:
            reader.close()


def _at_once(waiting: trio.MemoryReceiveChannel[_Waiting]) -> list[_Waiting]:
    """The units that wait already."""
    taken: list[_Waiting] = []
    while len(taken) < GROUP_UNITS_MAX - 1:
        try:
            taken.append(waiting.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            break
    return taken


def _told(error: sqlite3.Error, verb: str) -> BaseException:
    """SQLite's error as ours where it is the disk's fault; a faulty statement or a broken constraint as it is."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    if code in _OUT_OF_SPACE:
        return ResourceExhausted(
            f"cannot {verb} the database: no space left on its disk",
            hint="free some space below the daemon's data root; nothing was changed",
        )
    if code & _PRIMARY_CODE in _BROKEN:
        return Internal(
            f"cannot {verb} the database: {error}", hint="look at the disk and at the system's log"
        )
    return error


@asynccontextmanager
async def open_database(path: Path) -> AsyncIterator[Database]:
    """Open the database at ``path``, making it when missing and bringing its schema up to date.

    Raises:
        Conflict: Another daemon has it open.
        Unavailable: It was written by a newer Bakehouse.
        Internal: It cannot be opened.
    """
    with closing(await trio.to_thread.run_sync(schema.open_file, path)) as opened:
        send, receive = trio.open_memory_channel[_Waiting](GROUP_UNITS_MAX)
        database = Database(path, opened.epoch, opened.connection, send, opened.reserves)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(database._serve, receive)  # noqa: SLF001  # its maker
                with send:
                    yield database
        finally:
            database._close_readers()  # noqa: SLF001  # its maker

"""Cancelling an operation at its 1st, 2nd, … checkpoint, and looking at what remains.

Words: a *step* is what a task does between two checkpoints; an operation cancelled *at* its n-th checkpoint is cancelled
in the moment it waits there. What an operation does in tasks below its own counts; what it asks of other tasks counts
only when told so (``every_task``).

Rules: operations of up to ``POINTS_MAX`` checkpoints are cancelled at every one, longer ones at as many, evenly spread; with
``BAKEHOUSE_CANCEL_POINTS=all`` in the environment they are cancelled at every one too.
Timing differs from run to run, so a few more are tried until one comes to its end although it was to be cancelled.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import trio
from typing_extensions import override

from supervisor.linux import mounts
from supervisor.linux.cgroup import Cgroups
from supervisor.linux.spawner import Spawner

POINTS_MAX = 25
EVERY = os.environ.get("BAKEHOUSE_CANCEL_POINTS") == "all"
SETTLE_SECONDS = 15.0

Operation = Callable[[], Awaitable[object]]
Check = Callable[[bool], Awaitable[None]]


class _Counting(trio.abc.Instrument):
    """Counts the checkpoints of a task (and of those below it, or of all), and cancels at one of them."""

    def __init__(self, cancel_at: int, scope: trio.CancelScope, *, every_task: bool) -> None:
        self.count = 0
        self._cancel_at = cancel_at
        self._scope = scope
        self._root = None if every_task else trio.lowlevel.current_task()

    @override
    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._root is not None and not _is_below(task, self._root):
            return
        self.count += 1
        if self.count == self._cancel_at:
            self._scope.cancel()


def _is_below(task: trio.lowlevel.Task, root: trio.lowlevel.Task) -> bool:
    above: trio.lowlevel.Task | None = task
    while above is not None and above is not root:
        above = above.parent_nursery.parent_task if above.parent_nursery else None
    return above is root


@attrs.frozen
class Run:
    """One run: whether it came to its end, and how many checkpoints it passed."""

    completed: bool
    checkpoints: int


async def run_cancelled(operation: Operation, at: int, *, every_task: bool = False) -> Run:
    """Run ``operation``, cancelled at its checkpoint number ``at`` (0: never)."""
    completed = False
    with trio.CancelScope() as scope:
        counting = _Counting(at, scope, every_task=every_task)
        trio.lowlevel.add_instrument(counting)
        try:
            await operation()
            completed = True
        finally:
            trio.lowlevel.remove_instrument(counting)
    return Run(completed, counting.count)


async def cancel_everywhere(
    operation: Operation, check: Check, *, points: int = POINTS_MAX, every_task: bool = False
) -> int:
    """Run ``operation`` again and again, each time cancelled somewhere else; ``check`` looks after each run.

    Returns how many runs were cancelled. ``check`` is told whether the run came to its end; what it leaves is the next
    run's ground.
    """
    whole = await run_cancelled(operation, 0, every_task=every_task)
    assert whole.completed
    await check(True)
    cancelled = 0
    places = _spread(whole.checkpoints, points)
    while places:
        at = places.pop(0)
        run = await run_cancelled(operation, at, every_task=every_task)
        try:
            await check(run.completed)
        except BaseException as error:
            error.add_note(f"cancelled at checkpoint {at} of about {whole.checkpoints}")
            raise
        cancelled += not run.completed
        if not places and not run.completed and not every_task and at < whole.checkpoints + 5:
            places.append(at + 1)  # this time it was longer
    return cancelled


def _spread(last: int, points: int) -> list[int]:
    """At most ``points`` numbers from 1 to ``last``, both included, evenly spread."""
    if last <= points or EVERY:
        return list(range(1, last + 1))
    return sorted({1 + (last - 1) * number // (points - 1) for number in range(points)})


@attrs.frozen
class Remains:
    """What there is that must be somebody's: texts and how often."""

    things: Counter[str]

    def beyond(self, before: Remains) -> list[str]:
        """What is here beyond ``before``."""
        return sorted((self.things - before.things).elements())


@attrs.define
class Ground:
    """Where an operation leaves its traces.

    Attributes:
        helper: The spawner's process.
        roots: Directories below which mounts and directories of ours are.
        cgroups: Where our groups are, if any are looked at.
        prefixes: What names of links of ours begin with.
        database: The database's file, if there is one.
    """

    spawner: Spawner
    helper: int
    roots: tuple[Path, ...]
    cgroups: Cgroups | None = None
    prefixes: tuple[str, ...] = ()
    database: Path | None = None
    before: Remains = attrs.field(factory=lambda: Remains(Counter()))

    async def remember(self) -> None:
        """What is there now may stay."""
        self.before = await self.settled()

    async def check_nothing_remains(self, *but: str) -> None:
        """Nothing is there that was not there before, once what is ending has ended; but for what begins so."""
        left: list[str] = []
        with trio.move_on_after(SETTLE_SECONDS):
            while left := [
                one
                for one in (await self.look()).beyond(self.before)
                if not but or not one.startswith(but)
            ]:
                await trio.sleep(0.01)
        assert not left, "\n".join(left)

    async def settled(self) -> Remains:
        """What is there when nothing has changed for a moment."""
        seen = await self.look()
        while True:
            await trio.sleep(0.05)
            again = await self.look()
            if again == seen:
                return seen
            seen = again

    async def look(self) -> Remains:
        """What is there now."""
        things: Counter[str] = Counter()
        for root in self.roots:
            things.update(f"mount {place}" for place in await mounts.mounted(self.spawner, root))
            things.update(f"path {path}" for path in _paths(root))
        things.update(f"process {text}" for text in _processes_below(self.helper))
        things.update(f"fd {text}" for text in _own_fds())
        things.update(
            f"link {name}"
            for name in os.listdir("/sys/class/net")
            if self.prefixes and name.startswith(self.prefixes)
        )
        if self.cgroups is not None:
            things.update(f"cgroup {name}" for name in _groups(self.cgroups, ""))
        if self.database is not None:
            things.update(_rows(self.database))
        return Remains(things)


_KNOWN_BY_NUMBER = re.compile(r"\[?\d+\]?|\(deleted\)")
_GROW = ("database.sqlite", "/trash")
_TOLD = frozenset({"event", "event_share", "sqlite_sequence", "sqlite_stat1"})


def _paths(root: Path) -> list[str]:
    """Session directories, pins, snapshots, volumes: names at the levels where one is somebody's."""
    patterns = (
        "containers/*",
        "containers/u*/*",
        "ns/*/*",
        "rootfs/*/*",
        "snapshots/*/*",
        "volumes/*/*",
        "layers/*",
    )
    return [str(path) for pattern in patterns for path in root.glob(pattern)]


def _processes_below(pid: int) -> list[str]:
    """The descendants of a process that have not ended, by their command lines."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _read(f"/proc/{name}/stat").rpartition(")")[2].split()[:2]
            if fields and fields[0] != "Z":
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return [f"{one} {_read(f'/proc/{one}/cmdline')}".replace("\0", " ").strip() for one in found]


def _own_fds() -> list[str]:
    """This process's, by what they are; the database's readers open files when they like."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
        if not any(part in target for part in _GROW) and not target.startswith("/proc/"):
            found.append(_KNOWN_BY_NUMBER.sub("", target))
    return found


def _groups(cgroups: Cgroups, group: str) -> list[str]:
    found = []
    for name in cgroups.children(group):
        below = f"{group}/{name}" if group else name
        found += [below, *_groups(cgroups, below)]
    return found


def _rows(path: Path) -> Counter[str]:
    """How many rows each table has, but for the journal, which grows."""
    counts: Counter[str] = Counter()
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            if table not in _TOLD:
                counts[f"row of {table}"] = connection.execute(
                    f'SELECT count(*) FROM "{table}"'
                ).fetchone()[0]
    finally:
        connection.close()
    return counts


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""

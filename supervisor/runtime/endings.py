"""How a session ended: the exit code conmon wrote, or why there is none."""

from __future__ import annotations

import pathlib

import attrs
import trio

from supervisor.clock import now_ns
from supervisor.runtime.conmon import SessionPaths
from supervisor.runtime.lines import Lines
from supervisor.tasks import in_thread

UNKNOWN_CODE = 255
POLL_SECONDS = 0.001
POLL_SECONDS_MAX = 0.05
MONITOR_SECONDS_MAX = 10.0
UNREAD_SECONDS_MAX = 2.0


@attrs.frozen
class Ending:
    """The end of a process.

    Attributes:
        code: 128 + signal when killed; 255 when it is not known.
        time_ns: When, wall time.
        reason: Why the code is not known; empty if it is.
    """

    code: int
    time_ns: int
    reason: str = ""


@attrs.frozen
class Exit:
    """How a run ended, for those who wait for it. ``error`` says why a code is not known."""

    code: int
    error: str = ""


@attrs.define(eq=False)
class Ends:
    """What those wait for who wait for a run to end; each event is for the next time only.

    Attributes:
        exit: A run is over.
        settled: The same, or a start has failed: nothing runs any more.
    """

    exit: trio.Event = attrs.field(factory=trio.Event)
    settled: trio.Event = attrs.field(factory=trio.Event)

    def tell(self, *, ran: bool) -> None:
        """A run is over, or if nothing ``ran`` a start has failed."""
        settled, self.settled = self.settled, trio.Event()
        settled.set()
        if ran:
            finished, self.exit = self.exit, trio.Event()
            finished.set()


def read_ending(paths: SessionPaths) -> Ending | None:
    """What the exit file says; None if it is not (wholly) written."""
    try:
        text = paths.exit_file.read_text().strip()
        time_ns = paths.exit_file.stat().st_mtime_ns
    except (OSError, ValueError):
        return None
    return Ending(int(text), time_ns) if text.isascii() and text.isdigit() else None


def note_oom(paths: SessionPaths, killed: int) -> bool:
    """Whether the kernel ended a process for want of memory, kept beside the exit code: its cgroup goes before it is told."""
    note = paths.exit_file.with_name("oom")
    if killed and paths.exit_file.parent.is_dir():
        note.touch()
    return bool(killed) or note.exists()


async def await_ending(paths: SessionPaths, lines: Lines | None = None) -> Ending:
    """The ending of a session whose process is gone: conmon writes it within moments, unless it is gone too.

    First conmon passes on what the process said last. Clients at its ``lines`` who do not take that are let go after a
    while, so that none of them can keep the exit code back.
    """
    ended_ns = now_ns()
    pause = POLL_SECONDS
    unread = trio.current_time() + UNREAD_SECONDS_MAX
    with trio.move_on_after(MONITOR_SECONDS_MAX):
        while True:
            ending = await in_thread(lambda: read_ending(paths))
            if ending is not None:
                return ending
            if not await in_thread(lambda: monitored(paths)):
                break
            if lines is not None and trio.current_time() > unread:
                lines.let_go()
            await trio.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS_MAX)
    late = await in_thread(lambda: read_ending(paths))
    return late or Ending(UNKNOWN_CODE, ended_ns, "its monitor was lost, and the exit code with it")


def monitored(paths: SessionPaths) -> bool:
    """Whether a conmon of this session is still there."""
    try:
        pid = int(paths.monitor_pid_file.read_text())
        with pathlib.Path(f"/proc/{pid}/cmdline").open("rb") as file:
            return str(paths.directory).encode() in file.read()
    except (OSError, ValueError):
        return False

"""A container's processes as ``ps`` shows them: from the text of proc(5) to rows. Pure.

Words: a *specifier* is ps(1)'s name of a column in ``-o``. Known are ``-ef``, ``aux`` and ``-o`` with the specifiers below,
which spares a process; for the rest see :mod:`supervisor.api.docker.ps`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import attrs

from supervisor.errors import InvalidArgument

CLOCK_TICKS = 100
PAGE_KIBIBYTES = 4
DAY_SECONDS = 86_400
PTS_MAJORS = range(136, 144)
TTY_MAJOR = 4


@attrs.frozen
class Host:
    """What ps needs of the host.

    Attributes:
        now: Wall time, seconds.
        boot: When it was booted, likewise.
        memory_kibibytes: What it has.
        user: The name of a uid, or its digits.
    """

    now: float
    boot: float
    memory_kibibytes: int
    user: Callable[[int], str]


@attrs.frozen
class Process:
    """One process.

    Attributes:
        uid: Its effective one.
        name: Its ``comm``.
        command: Its command line; the name in brackets where it has none.
        numbers: The fields of its ``stat`` from the state's on.
    """

    pid: int
    uid: int
    name: str
    command: str
    numbers: Sequence[str]
    host: Host

    def number(self, field: int) -> int:
        """A field of ``stat`` by its number in proc(5)."""
        return int(self.numbers[field - 3])

    @property
    def busy_seconds(self) -> float:
        """Processor time spent."""
        return (self.number(14) + self.number(15)) / CLOCK_TICKS

    @property
    def started(self) -> float:
        """When, wall time in seconds."""
        return self.host.boot + self.number(22) / CLOCK_TICKS

    @property
    def elapsed_seconds(self) -> float:
        """Since it was started."""
        return max(self.host.now - self.started, 0.0)

    @property
    def busy_percent(self) -> float:
        """Of one processor, over its life."""
        return 100 * self.busy_seconds / self.elapsed_seconds if self.elapsed_seconds > 0 else 0.0

    @property
    def resident_kibibytes(self) -> int:
        """Memory that is there."""
        return self.number(24) * PAGE_KIBIBYTES


def parse(pid: int, uid: int, stat: str, command_line: bytes, host: Host) -> Process:
    """A process from its ``stat`` and ``cmdline``."""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    command = command_line.replace(b"\0", b" ").decode(errors="replace").strip() or f"[{name}]"
    return Process(pid, uid, name, command, rest.split(), host)


def columns(arguments: str) -> Sequence[str] | None:
    """The specifiers that ps would show for these arguments; None where ps itself must be asked.

    Raises:
        InvalidArgument: No pid is among them; Docker's wording.
    """
    words = arguments.split()
    if words in ([], ["-ef"], ["-e", "-f"]):
        return _EF
    if words in (["aux"], ["-aux"]):
        return _AUX
    wanted: list[str] = []
    rest = iter(words)
    for word in rest:
        flag, found, joined = word.partition("o")
        if not found or flag not in {"-", "-e", "-A", "", "e", "a", "ax", "-a"}:
            return None
        wanted += (joined or next(rest, "")).split(",")
    if not _COLUMNS.keys() >= set(wanted):
        return None
    if "pid" not in wanted:
        raise InvalidArgument("Couldn't find PID field in ps output", "ask for pid, too")
    return wanted


def titles(specifiers: Sequence[str]) -> list[str]:
    """The first line."""
    return [_COLUMNS[specifier][0] for specifier in specifiers]


def row(process: Process, specifiers: Sequence[str]) -> list[str]:
    """A process' line."""
    return [_COLUMNS[specifier][1](process) for specifier in specifiers]


def _clock(seconds: float) -> str:
    whole = int(seconds)
    days = f"{whole // DAY_SECONDS}-" if whole >= DAY_SECONDS else ""
    return f"{days}{whole // 3_600 % 24:02}:{whole // 60 % 60:02}:{whole % 60:02}"


def _short_clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _elapsed(seconds: float) -> str:
    text = _clock(seconds)
    return text.removeprefix("00:")


def _start(process: Process) -> str:
    began = datetime.fromtimestamp(process.started)  # noqa: DTZ006  # ps tells the host's time
    return began.strftime("%H:%M" if process.elapsed_seconds < DAY_SECONDS else "%b%d")


def _terminal(process: Process) -> str:
    device = process.number(7)
    major, minor = device >> 8 & 0xFFF, device & 0xFF | device >> 12 & 0xFFF00
    if major in PTS_MAJORS:
        return f"pts/{minor + 256 * (major - PTS_MAJORS.start)}"
    return f"tty{minor}" if major == TTY_MAJOR else "?"


def _state(process: Process) -> str:
    nice = process.number(19)
    marks = (
        ("<", nice < 0),
        ("N", nice > 0),
        ("s", process.number(6) == process.pid),
        ("l", process.number(20) > 1),
        ("+", process.number(8) == process.number(5)),
    )
    return process.numbers[0] + "".join(mark for mark, holds in marks if holds)


def _memory_percent(process: Process) -> str:
    return f"{100 * process.resident_kibibytes / process.host.memory_kibibytes:.1f}"


_Column = tuple[str, Callable[[Process], str]]


def _user(process: Process) -> str:
    return process.host.user(process.uid)


def _cpu(process: Process) -> str:
    return f"{process.busy_percent:.1f}"


_COLUMNS: Mapping[str, _Column] = {
    "pid": ("PID", lambda process: str(process.pid)),
    "ppid": ("PPID", lambda process: process.numbers[1]),
    "pgid": ("PGID", lambda process: process.numbers[2]),
    "sid": ("SID", lambda process: process.numbers[3]),
    "uid": ("UID", lambda process: str(process.uid)),
    "user": ("USER", _user),
    "euser": ("EUSER", _user),
    "-ef uid": ("UID", _user),
    "c": ("C", lambda process: str(int(process.busy_percent))),
    "pcpu": ("%CPU", _cpu),
    "%cpu": ("%CPU", _cpu),
    "pmem": ("%MEM", _memory_percent),
    "%mem": ("%MEM", _memory_percent),
    "vsz": ("VSZ", lambda process: str(process.number(23) // 1_024)),
    "rss": ("RSS", lambda process: str(process.resident_kibibytes)),
    "tty": ("TTY", _terminal),
    "tt": ("TT", _terminal),
    "tname": ("TTY", _terminal),
    "stat": ("STAT", _state),
    "s": ("S", lambda process: process.numbers[0]),
    "state": ("S", lambda process: process.numbers[0]),
    "stime": ("STIME", _start),
    "start": ("START", _start),
    "etime": ("ELAPSED", lambda process: _elapsed(process.elapsed_seconds)),
    "etimes": ("ELAPSED", lambda process: str(int(process.elapsed_seconds))),
    "time": ("TIME", lambda process: _clock(process.busy_seconds)),
    "aux time": ("TIME", lambda process: _short_clock(process.busy_seconds)),
    "ni": ("NI", lambda process: process.numbers[16]),
    "pri": ("PRI", lambda process: str(39 - process.number(18))),
    "nlwp": ("NLWP", lambda process: process.numbers[17]),
    "comm": ("COMMAND", lambda process: process.name),
    "ucmd": ("CMD", lambda process: process.name),
    "cmd": ("CMD", lambda process: process.command),
    "args": ("COMMAND", lambda process: process.command),
    "command": ("COMMAND", lambda process: process.command),
}

_EF = ("-ef uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
_AUX = (
    *("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start"),
    *("aux time", "command"),
)

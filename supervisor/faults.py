"""Fault points: where the daemon can be made to die, so that tests see what the next one finds.

Words: a *door* is a way by which the daemon changes the world; all it does goes through one of them. A *passage* is one
time through a door; its *name* says the door, which side of it, and what went through: ``before commit
runtime.ledger:Ledger.insert``. Passages of one name are told apart by their number.

Rules: there is no list of passages to keep up to date: whatever goes through a door is one, so that no commit and no
effect can be left out; of those on files the interpreter itself tells (:func:`sys.addaudithook`). They are armed by an
environment variable, which names a directory that tests write their orders to; the installed daemon never arms them,
whatever its environment says. Unarmed, a door costs one look at a name.
"""

from __future__ import annotations

import enum
import functools
import os
import re
import signal
import sys
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

import attrs

VARIABLE = "BAKEHOUSE_FAULTS"
ORDER, PASSED = "order", "passed"
WORDS_MAX = 2

_PLAIN_WORD = re.compile(r"[a-z_]+")
_INNER_NAME = re.compile(r"\.<locals>.*|<lambda>")
_PACKAGE = "supervisor."
_OPEN, _MAKE = "open", "os.mkdir"  # https://docs.python.org/3/library/audit_events.html
_MAKE_OR_REMOVE = frozenset({_MAKE, "os.rmdir", "os.remove"})
_CHANGE = frozenset(
    f"os.{verb}" for verb in ("rename", "link", "symlink", "chmod", "chown", "truncate")
)
_ON_FILES = _MAKE_OR_REMOVE | _CHANGE | {_OPEN}
_NO_DIRECTORY = -1


class Door(enum.StrEnum):
    """The ways by which the daemon changes the world."""

    COMMIT = "commit"
    """A unit of work is written to the database."""

    SPAWNER = "spawner"
    """The helper does something: mounts, namespaces, and every process."""

    THREAD = "thread"
    """A call that may block: cgroups, links, the packet filter, files."""

    SIGNAL = "signal"
    """A container's process is sent a signal."""

    FIFO = "fifo"
    """A created container is let run."""

    CONMON = "conmon"
    """A container's monitor is let go on."""

    FILE = "file"
    """A name in a file system or in the cgroup tree is made, changed, removed, or opened to write; has no other side."""


@attrs.define
class _Orders:
    """What a test has ordered, read anew at every passage: a serial number, and at which passage to die."""

    directory: Path
    _serial: str = ""
    _times: Counter[str] = attrs.field(factory=Counter)
    _one_at_a_time: threading.Lock = attrs.field(factory=threading.Lock)

    def pass_by(self, name: str) -> None:
        """Write the passage down, and die if it is the one."""
        with self._one_at_a_time:
            self._pass_by(name)

    def _pass_by(self, name: str) -> None:
        try:
            serial, fatal, times = (self.directory / ORDER).read_text().split("\t")
        except FileNotFoundError:
            return
        if serial != self._serial:
            self._serial, self._times = serial, Counter()
        self._times[name] += 1
        with (self.directory / PASSED).open("a") as file:
            file.write(f"{serial}\t{name}\t{self._times[name]}\n")
        if (name, self._times[name]) == (fatal, int(times)):
            os.kill(os.getpid(), signal.SIGKILL)


_orders: _Orders | None = None
_hearing = False


def arm(environment: Mapping[str, str], *, installed: bool) -> bool:
    """From now on obey the orders in the directory that the environment names, if it names one; the ``installed`` do not."""
    global _orders, _hearing  # noqa: PLW0603  # the process dies as a whole
    directory = environment.get(VARIABLE)
    _orders = _Orders(Path(directory)) if directory and not installed else None
    if _orders is not None and not _hearing:
        sys.addaudithook(_hear)  # for as long as the process lives
        _hearing = True
    return _orders is not None


def before(door: Door, what: object, words: Sequence[str] = ()) -> None:
    """Something is about to go through a door: a function or a name, and for a process its command line."""
    if _orders is not None:
        _orders.pass_by(f"before {door.value} {_name(what, words)}")


def after(door: Door, what: object, words: Sequence[str] = ()) -> None:
    """It is done, and nobody has heard of it yet."""
    if _orders is not None:
        _orders.pass_by(f"after {door.value} {_name(what, words)}")


def _name(what: object, words: Sequence[str]) -> str:
    """The same for the same place in the program, whatever the container is called."""
    if isinstance(what, str):
        plain = (word.rpartition("/")[2] for word in words)
        said = dict.fromkeys(word for word in plain if _PLAIN_WORD.fullmatch(word))
        return " ".join([what, *list(said)[:WORDS_MAX]])
    if isinstance(what, functools.partial):
        return _name(what.func, words)
    module = str(getattr(what, "__module__", "")).removeprefix("supervisor.")
    return f"{module}:{_INNER_NAME.sub('', getattr(what, '__qualname__', type(what).__name__))}"


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    """Something is about to happen to a file, in whatever thread."""
    if event not in _ON_FILES or _orders is None or not _changes(event, arguments):
        return
    if not str(arguments[0]).startswith(f"{_orders.directory}/"):  # which are the orders themselves
        _orders.pass_by(f"before {Door.FILE.value} {_caller()} {event.removeprefix('os.')}")


def _changes(event: str, arguments: tuple[object, ...]) -> bool:
    """Whether it may change anything: what is there is not made, what is not there not removed, and reading is nothing."""
    path, last = arguments[0], arguments[-1]
    if event == _OPEN:
        is_path = not isinstance(path, int)
        return is_path and isinstance(last, int) and bool(last & os.O_ACCMODE)
    if event in _MAKE_OR_REMOVE and last == _NO_DIRECTORY and isinstance(path, str | os.PathLike):
        return os.path.lexists(path) != (event == _MAKE)
    return True


def _caller() -> str:
    """The innermost function of ours that is at work in this thread."""
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001  # there is no other way
    while frame is not None:
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith(_PACKAGE) and module != __name__:
            inner = _INNER_NAME.sub("", frame.f_code.co_qualname)
            return f"{module.removeprefix(_PACKAGE)}:{inner}"
        frame = frame.f_back
    return "elsewhere"

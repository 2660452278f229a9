"""Fault points: where the daemon can be made to die, so that tests see what the next one finds.

Words: a *door* is a way by which the daemon changes the world; all it does goes through one of them. A *passage* is one
time through a door; its *name* says the door, which side of it, and what went through: ``before commit
runtime.ledger:Ledger.insert``. Passages of one name are told apart by their number.

Rules: there is no list of passages to keep up to date: whatever goes through a door is one, so that no commit and no
effect can be left out. They are armed by an environment variable, which names a directory that tests write their orders
to; the installed daemon never arms them, whatever its environment says. Unarmed, a door costs one look at a name.
"""

from __future__ import annotations

import enum
import functools
import os
import re
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

VARIABLE = "BAKEHOUSE_FAULTS"
ORDER, PASSED = "order", "passed"
WORDS_MAX = 2

_PLAIN_WORD = re.compile(r"[a-z_]+")
_INNER_NAME = re.compile(r"\.<locals>.*|<lambda>")


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


@attrs.define
class _Orders:
    """What a test has ordered, read anew at every passage: a serial number, and at which passage to die."""

    directory: Path
    _serial: str = ""
    _times: Counter[str] = attrs.field(factory=Counter)

    def pass_by(self, name: str) -> None:
        """Write the passage down, and die if it is the one."""
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


def arm(environment: Mapping[str, str], *, installed: bool) -> bool:
    """From now on obey the orders in the directory that the environment names, if it names one; the ``installed`` do not."""
    global _orders  # noqa: PLW0603  # the process dies as a whole
    directory = environment.get(VARIABLE)
    _orders = _Orders(Path(directory)) if directory and not installed else None
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

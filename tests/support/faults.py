"""Ordering a daemon to die at one of its fault points, and reading which it passed."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import attrs

from supervisor.faults import ORDER, PASSED, VARIABLE


@attrs.frozen(order=True)
class Passage:
    """One time through a door of the daemon's; see :mod:`supervisor.faults`."""

    name: str
    number: int


@attrs.define
class Faults:
    """The orders for one daemon, whatever life it is in."""

    directory: Path
    _serials: itertools.count[int] = attrs.field(factory=itertools.count)
    _serial: int = -1

    @property
    def variables(self) -> Mapping[str, str]:
        """What arms a daemon that is started with them."""
        return {VARIABLE: str(self.directory)}

    def record(self) -> None:
        """From now on what is passed is written down."""
        self.die_at(Passage("", 0))

    def die_at(self, passage: Passage) -> None:
        """The same, and at this passage, counted from now, it dies."""
        self._serial = next(self._serials)
        waiting = self.directory / "next"
        waiting.write_text(f"{self._serial}\t{passage.name}\t{passage.number}")
        waiting.rename(self.directory / ORDER)

    def off(self) -> list[Passage]:
        """What was passed since the last order; nothing is recorded any more."""
        (self.directory / ORDER).unlink(missing_ok=True)
        passed = self.directory / PASSED
        lines = passed.read_text().splitlines() if passed.exists() else []
        passed.unlink(missing_ok=True)
        fields = [line.split("\t") for line in lines]
        return [
            Passage(name, int(number))
            for serial, name, number in fields
            if int(serial) == self._serial
        ]

"""Bakehouse beside dockerd and podman, in one run: ``python -m tests.bench.beside [--rounds N] [--only WORD] [--json FILE]``.

The engines are driven in turns, so that a noisy host is noisy for all. Medians are printed, and what ours is of dockerd's:
absolute times say something about this host only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs
import docker

from tests.bench.engines import Engine, EngineMissingError, bakehouse, dockerd, podman
from tests.bench.floor import floor_row
from tests.bench.measures import MEASURES, Held, Measure

SETTLE_SECONDS = 3.0
OURS, THEIRS = "bakehouse", "dockerd"


@attrs.frozen
class Row:
    """What was measured: the values of each round, by engine."""

    measure: Measure
    rounds: Mapping[str, Sequence[float]]

    def median(self, engine: str) -> float | None:
        values = self.rounds.get(engine)
        return statistics.median(values) if values else None

    @property
    def ratio(self) -> float | None:
        """Ours of dockerd's."""
        ours, theirs = self.median(OURS), self.median(THEIRS)
        return ours / theirs if ours is not None and theirs else None

    @property
    def missed(self) -> bool:
        figure = self.ratio if self.measure.held is Held.RATIO else _scaled(self, OURS)
        return figure is not None and figure > self.measure.target


def _scaled(row: Row, engine: str) -> float | None:
    value = row.median(engine)
    return value * 1_000 if value is not None and row.measure.unit == "ms" else value


def measure(engines: Sequence[Engine], wanted: Sequence[Measure], rounds: int) -> list[Row]:
    """All measures, the engines in turns; the first round warms up and does not count."""
    time.sleep(SETTLE_SECONDS)
    return [_row(engines, one, 1 if one.once else rounds) for one in wanted]


def _row(engines: Sequence[Engine], one: Measure, rounds: int) -> Row:
    """One that another engine refuses is left out for it."""
    taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
    unable: set[str] = set()
    for number in range(rounds if one.once else rounds + 1):
        for engine in engines:
            if engine.name in unable:
                continue
            try:
                value = one.take(engine)
            except (docker.errors.APIError, subprocess.CalledProcessError) as refusal:
                if engine.name == OURS:
                    raise
                unable.add(engine.name)
                sys.stderr.write(f"{engine.name} leaves out {one.what}: {refusal}\n")
                continue
            if number or one.once:
                taken[engine.name].append(value)
    return Row(one, taken)


def told(rows: Sequence[Row], engines: Sequence[str]) -> str:
    """The rows as a table."""
    lines = [f"{'':36}{''.join(f'{name:>14}' for name in engines)}{'ratio':>8}  held to"]
    for row in rows:
        cells = "".join(_cell(row, name) for name in engines)
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        held = f"{row.measure.target:g} {row.measure.held.value}{'  missed' if row.missed else ''}"
        lines.append(f"{row.measure.what:36}{cells}{ratio:>8}  {held}")
    return "\n".join(lines)


def _cell(row: Row, engine: str) -> str:
    value = _scaled(row, engine)
    return f"{'-':>14}" if value is None else f"{value:>10.1f} {row.measure.unit:3}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="", help="measures with this word in their name")
    parser.add_argument("--json", type=Path, help="write all figures there")
    asked = parser.parse_args()
    wanted = [one for one in MEASURES if asked.only in one.what]
    with contextlib.ExitStack() as running:
        engines = []
        for opened in (bakehouse, dockerd, podman):
            try:
                engines.append(running.enter_context(opened()))
            except EngineMissingError as missing:
                sys.stderr.write(f"left out: {missing}\n")
        rows = measure(engines, wanted, asked.rounds)
        floor = floor_row(asked.rounds)
    sys.stdout.write(f"{told(rows, [engine.name for engine in engines])}\n{floor}\n")
    if asked.json:
        figures = [
            {"what": row.measure.what, "unit": row.measure.unit, **row.rounds} for row in rows
        ]
        asked.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()

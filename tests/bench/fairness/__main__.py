"""Who gets what when one person takes all they can: ``python -m tests.bench.fairness [LOAD...] [--json FILE] [--plot FILE]``.

H takes all they can, in one way after another; Q does a little at the same time. What is measured is what is left of what
Q would have had: of their fair share of the processors by the kernel's own accounting, of their idle times by the clock.
Engines that are here are driven in turns, so that a noisy host is noisy for all. Ratios say something; times say
something about this host only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import attrs

from tests.bench.engines import EngineMissingError
from tests.bench.fairness.loads import LOADS, Load, Outcome, Settings
from tests.bench.fairness.ovens import OVENS, Oven


def measure(ovens: Sequence[Oven], loads: Sequence[Load], settings: Settings) -> list[Outcome]:
    """Each load on each oven, as often as asked for."""
    outcomes = []
    for load in loads:
        for _ in range(settings.rounds):
            for oven in ovens:
                if oven.able(load.needs):
                    outcomes.append(load.take(oven, settings))
                    sys.stderr.write(f"{told(outcomes[-1:])}\n")
    return outcomes


def told(outcomes: Sequence[Outcome]) -> str:
    """All of it as a table: the worst of the rounds, for that is what Q lives through."""
    lines = [f"{'':34}{'engine':>12}{'Q has':>9}  held to"]
    for key in dict.fromkeys((one.load, one.engine) for one in outcomes):
        rounds = [one for one in outcomes if (one.load, one.engine) == key]
        worst = min(rounds, key=lambda one: one.margin)
        missed = "" if worst.held else "  missed"
        missed = missed if worst.counts else "  not counted"
        lines.append(f"{key[0]:34}{key[1]:>12}{worst.figure:>9.2f}  {worst.bound}{missed}")
        lines.extend(f"{'':34}  {note}" for note in worst.notes)
    return "\n".join(lines)


def main() -> int:
    """Measure, print, write down; 1 if ours was held to something and missed it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("loads", nargs="*", choices=[*LOADS, []], help="these only")
    parser.add_argument(
        "--engines", default="bakehouse,dockerd", help="those that are here of them"
    )
    parser.add_argument("--hogs", type=int, default=50, help="containers that H runs")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--ahead", action="store_true", help="let the engines go before what else the host does"
    )
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--plot", type=Path, help="draw them there; needs matplotlib")
    asked = parser.parse_args()
    settings = Settings(asked.hogs, asked.seconds, asked.rounds, asked.ahead)
    with contextlib.ExitStack() as running:
        ovens = []
        for name in asked.engines.split(","):
            try:
                ovens.append(running.enter_context(OVENS[name]()))
            except EngineMissingError as missing:
                sys.stderr.write(f"left out: {missing}\n")
        outcomes = measure(ovens, [LOADS[name] for name in asked.loads or LOADS], settings)
    sys.stdout.write(f"{told(outcomes)}\n")
    if asked.json:
        asked.json.write_text(json.dumps([attrs.asdict(one) for one in outcomes], indent=1))
    if asked.plot:
        from tests.bench.fairness.plot import draw  # noqa: PLC0415  # matplotlib is for those who want it

        draw(outcomes, asked.plot)
    return int(any(one.engine == "bakehouse" and not one.held for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())

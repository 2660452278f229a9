"""In which ways H takes all they can, and what is measured of Q meanwhile.

Words: a *figure* is what Q has of what they would have had (a share: more is better), or how many times longer they wait
(a delay: less is better); it is *held* to a bound.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from tests.bench.fairness.ovens import Oven, ahead_of_the_rest, cpu_ns

IMAGE = "busybox:latest"
SPIN = "while :; do :; done"
SETTLE_SECONDS = 3.0
SHARE_HELD = 0.95
COUNTED_PART = 0.8
"""Of all processors; when both together have less, it is not they who take turns."""
H, Q = "H", "Q"


@attrs.frozen
class Settings:
    """How much of it; ``ahead``: the engines' trees weigh more than what else the host does."""

    hogs: int = 50
    seconds: float = 10.0
    rounds: int = 3
    ahead: bool = False


@attrs.frozen
class Outcome:
    """What one load did to Q on one engine.

    Attributes:
        figure: A share, or a delay; see the module.
        limit: To what it is held.
        share: Whether it is a share: at least ``limit``; else at most.
        counts: Whether the host was quiet enough for it to say something.
        series: What the plot shows: values over time, or single delays.
        notes: What else was seen.
    """

    load: str
    engine: str
    figure: float
    limit: float
    share: bool
    counts: bool = True
    series: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def margin(self) -> float:
        """How far on the right side of the bound; below 0 it is missed."""
        return self.figure - self.limit if self.share else self.limit - self.figure

    @property
    def held(self) -> bool:
        """Whether the bound is."""
        return self.margin >= 0 or not self.counts

    @property
    def bound(self) -> str:
        """In words."""
        return f"at {'least' if self.share else 'most'} {self.limit:g}"


@attrs.frozen
class Load:
    """One way to take all one can.

    Attributes:
        needs: What an engine must have for it.
    """

    take: Callable[[Oven, Settings], Outcome]
    needs: frozenset[str] = frozenset()


def processors(oven: Oven, settings: Settings) -> Outcome:
    """H spins in many containers, Q in one: Q's part of the smaller of one processor and half of what both have."""
    try:
        hogs = oven.waiting(H, settings.hogs, IMAGE, SPIN)
        (one,) = oven.waiting(Q, 1, IMAGE, SPIN)
        theirs = oven.cgroups(H, hogs)
        (own,) = oven.cgroups(Q, [one])
        with ahead_of_the_rest(own, wanted=settings.ahead):
            oven.open_gate(H)
            oven.open_gate(Q)
            time.sleep(SETTLE_SECONDS)
            looks = _look(own, theirs, settings.seconds)
    finally:
        oven.clear(Q)
        oven.clear(H)
    return _outcome(oven, looks, f"{settings.hogs} processor hogs")


def _look(own: Path, theirs: list[Path], seconds: float) -> list[Looked]:
    until = time.monotonic() + seconds
    looks = [Looked.now(own, theirs)]
    while time.monotonic() < until:
        time.sleep(1)
        looks.append(Looked.now(own, theirs))
    return looks


def _outcome(oven: Oven, looks: list[Looked], name: str) -> Outcome:
    first, last = looks[0], looks[-1]
    passed = last.time_ns - first.time_ns
    own, theirs = (last.own_ns - first.own_ns) / passed, (last.theirs_ns - first.theirs_ns) / passed
    processors = os.cpu_count() or 1
    notes = [f"Q had {own:.2f} processors, H {theirs:.2f} of {processors}"]
    counts = own + theirs >= COUNTED_PART * processors
    if not counts:
        notes.append("what else the host did took the processors: this says nothing")
    return Outcome(
        load=name,
        engine=oven.name,
        figure=last.share_since(first),
        limit=SHARE_HELD,
        share=True,
        counts=counts,
        series=tuple(after.share_since(before) for before, after in itertools.pairwise(looks)),
        notes=tuple(notes),
    )


@attrs.frozen
class Looked:
    """The kernel's counts at one moment."""

    time_ns: int
    own_ns: int
    theirs_ns: int

    @classmethod
    def now(cls, own: Path, theirs: list[Path]) -> Looked:
        """Look."""
        return cls(time.monotonic_ns(), cpu_ns(own), sum(map(cpu_ns, theirs)))

    def share_since(self, before: Looked) -> float:
        """Of what one thread could have had: one processor, or half of what both had if that is less."""
        own, both = self.own_ns - before.own_ns, self.theirs_ns - before.theirs_ns
        fair = min(self.time_ns - before.time_ns, (own + both) / 2)
        return own / fair if fair else 0.0


LOADS: Mapping[str, Load] = {"processors": Load(processors)}

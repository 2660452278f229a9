"""In which ways H takes all they can, and what is measured of Q meanwhile.

Words: a *figure* is what Q has of what they would have had (a share: more is better), or how many times longer they wait
(a delay: less is better); it is *held* to a bound.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import attrs

from tests.bench.fairness.ovens import Oven, cpu_ns

IMAGE = "busybox:latest"
RUN = ("run", "-d", "--network", "none")
SPIN = ("sh", "-c", "while :; do :; done")
SETTLE_SECONDS = 3.0
SHARE_HELD = 0.95
NANOSECONDS = 1_000_000_000
H, Q = "H", "Q"


@attrs.frozen
class Settings:
    """How much of it."""

    hogs: int = 50
    seconds: float = 10.0
    rounds: int = 3


@attrs.frozen
class Outcome:
    """What one load did to Q on one engine.

    Attributes:
        figure: A share, or a delay; see the module.
        limit: To what it is held.
        share: Whether it is a share: at least ``limit``; else at most.
        series: What the plot shows: values over time, or single delays.
        notes: What else was seen.
    """

    load: str
    engine: str
    figure: float
    limit: float
    share: bool
    series: tuple[float, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def margin(self) -> float:
        """How far on the right side of the bound; below 0 it is missed."""
        return self.figure - self.limit if self.share else self.limit - self.figure

    @property
    def held(self) -> bool:
        """Whether the bound is."""
        return self.margin >= 0

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
        hogs = [oven.docker(H, *RUN, IMAGE, *SPIN).strip() for _ in range(settings.hogs)]
        one = oven.docker(Q, *RUN, IMAGE, *SPIN).strip()
        theirs = [oven.cgroup(H, hog) for hog in hogs]
        own = oven.cgroup(Q, one)
        time.sleep(SETTLE_SECONDS)
        series = []
        first = before = Looked.now(own, theirs)
        until = time.monotonic() + settings.seconds
        while time.monotonic() < until:
            time.sleep(1)
            now = Looked.now(own, theirs)
            series.append(now.share_since(before))
            before = now
    finally:
        oven.clear(Q)
        oven.clear(H)
    seconds = (before.time_ns - first.time_ns) / NANOSECONDS
    cores = [
        (after - earlier) / NANOSECONDS / seconds
        for earlier, after in ((first.own_ns, before.own_ns), (first.theirs_ns, before.theirs_ns))
    ]
    notes = (f"Q had {cores[0]:.2f} processors, H {cores[1]:.2f} of {os.cpu_count()}",)
    share = before.share_since(first)
    name = f"{settings.hogs} processor hogs"
    return Outcome(
        name, oven.name, share, SHARE_HELD, share=True, series=tuple(series), notes=notes
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

"""From a series of figures to a verdict on the host, with its reason in words; pure.

Rules: memory and IO pressure count, the CPU's never does: a busy processor is a processor well used, and its pressure
cannot tell contention from a container held back by its own quota. A verdict rises at once (PSI is already an average
over ten seconds) and falls only when the figures have stayed well below the mark for a while, so that it does not
flutter and work is not let in and held back in turns.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence

import attrs

from supervisor.config import MonitorConfig

FALL_FACTOR = 0.5
"""A verdict is kept while a figure is above this part of its mark."""
FALL_SECONDS = 5.0
"""And for this long after."""
AVAILABLE_PERCENT_TIGHT = 4.0
AVAILABLE_PERCENT_CRITICAL = 1.5


class Level(enum.IntEnum):
    """How the host is, from good to bad."""

    CALM = 0
    TIGHT = 1
    CRITICAL = 2

    @property
    def word(self) -> str:
        """As it is told."""
        return self.name.lower()


class Resource(enum.Enum):
    """What is short."""

    MEMORY = "memory"
    DISKS = "disks"


@attrs.frozen
class Verdict:
    """What the monitor thinks of the host, and why; of a calm one ``resource`` says nothing."""

    level: Level = Level.CALM
    reason: str = "no pressure on memory or disks"
    resource: Resource = Resource.MEMORY


CALM = Verdict()


@attrs.frozen
class Figures:
    """What the verdict is made of, at one moment; ``None`` where the kernel does not tell.

    Attributes:
        seconds: Monotonic time.
        memory_available_percent: Part of all memory that can be had without swapping.
    """

    seconds: float
    memory_some_percent: float | None = None
    memory_full_percent: float | None = None
    io_full_percent: float | None = None
    memory_available_percent: float = 100.0


def judge(series: Sequence[Figures], before: Verdict, config: MonitorConfig) -> Verdict:
    """The verdict after the newest of ``series`` (oldest first), when it was ``before``."""
    if not series:
        return before
    now = series[-1]
    fresh = assess(now, config, factor=1.0)
    if fresh.level >= before.level:
        return fresh
    recent = [each for each in series if each.seconds >= now.seconds - FALL_SECONDS]
    covered = now.seconds - series[0].seconds >= FALL_SECONDS
    kept = max(
        (assess(each, config, factor=FALL_FACTOR) for each in recent),
        key=lambda verdict: verdict.level,
    )
    if not covered:
        return before
    if kept.level >= before.level:
        return Verdict(before.level, f"easing: {kept.reason}", kept.resource)
    return max(fresh, kept, key=lambda verdict: verdict.level)


def assess(figures: Figures, config: MonitorConfig, factor: float) -> Verdict:
    """The verdict on one moment alone, with all marks multiplied by ``factor``."""
    told: list[Verdict] = []
    marks = (
        (
            Level.CRITICAL,
            Resource.MEMORY,
            figures.memory_full_percent,
            config.memory_full_percent_critical,
            "everything waited for memory",
        ),
        (
            Level.TIGHT,
            Resource.MEMORY,
            figures.memory_some_percent,
            config.memory_some_percent_tight,
            "work waited for memory",
        ),
        (
            Level.TIGHT,
            Resource.DISKS,
            figures.io_full_percent,
            config.io_full_percent_tight,
            "everything waited for disks",
        ),
    )
    for level, resource, value, mark, words in marks:
        if value is not None and value >= mark * factor:
            reason = f"{words} {value:.0f} % of the last 10 s (mark: {mark:.0f} %)"
            told.append(Verdict(level, reason, resource))
    told.extend(_scarce(figures, factor))
    return max(told, key=lambda verdict: verdict.level, default=CALM)


def _scarce(figures: Figures, factor: float) -> list[Verdict]:
    """Memory nearly gone is no stall yet, but where the kernel tells no pressure it is all there is to see."""
    if figures.memory_some_percent is not None:
        return []
    free = figures.memory_available_percent
    for level, mark in (
        (Level.CRITICAL, AVAILABLE_PERCENT_CRITICAL),
        (Level.TIGHT, AVAILABLE_PERCENT_TIGHT),
    ):
        if free <= mark / factor:
            return [
                Verdict(
                    level,
                    f"only {free:.1f} % of memory is available (mark: {mark} %; the kernel tells no pressure)",
                )
            ]
    return []

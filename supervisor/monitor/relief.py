"""What is done about pressure, from the mildest to the last resort, and undone again; pure.

Words: a *step* is one kind of relief; a *deed* is a step done to one owner or one group. An owner's *share* is the memory
they would have if all who run something now divided it by weight; who is *furthest above* it is whom relief turns to.

Rules: one deed at a time, and the next only when the last has had time to work (less while the host is critical, but never
less before something is ended). The verdict bounds how far relief goes:
for disks no further than weights, for memory no further than reclaim while the host is only tight. When the verdict is
milder again, deeds are undone one by one, the last first. Whoever keeps within their share has nothing done to them. The
processors' pressure is no part of a verdict, and so of nothing here.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence

import attrs

from supervisor.monitor.detect import Level, Resource, Verdict

PATIENT_SECONDS = 10.0
"""What a deed is given to work in, as long as the average of the pressure; and how long the host is milder before undoing."""
URGENT_SECONDS = 2.5
"""The same while the host is critical, up to the last resort."""
NANOSECONDS = 1_000_000_000
PRESSED_PART = 0.9
"""Of what the owner holds, what reclaim leaves them at once; never less than their share."""


class Step(enum.IntEnum):
    """From the mildest to the last resort."""

    HOLD_BUILDS = 1
    LOWER_WEIGHTS = 2
    RECLAIM = 3
    FREEZE_BUILDS = 4
    END = 5

    @property
    def word(self) -> str:
        """As it is told."""
        return self.name.lower().replace("_", " ")


@attrs.frozen
class Work:
    """One container or one step of a build.

    Attributes:
        group: Its cgroup.
        cpu_ns: What it has used so far: the work that would be lost.
    """

    group: str
    name: str
    build: bool
    memory_bytes: int
    cpu_ns: int


@attrs.frozen
class OwnerUse:
    """What one owner has now.

    Attributes:
        share_bytes: Of memory.
        io_bytes_per_second: Read and written.
        io_share: Their part of all weights.
    """

    owner: int
    memory_bytes: int
    share_bytes: int
    io_bytes_per_second: float = 0.0
    io_share: float = 1.0
    works: tuple[Work, ...] = ()


@attrs.frozen
class Deed:
    """One step, done or to be done.

    Attributes:
        owner: To whom; None is all.
        group: The cgroup that is ended.
        what: Its name, for people.
        amount_bytes: How much the owner may hold from now on.
        why: In words, with the numbers.
    """

    step: Step
    owner: int | None
    why: str
    group: str = ""
    what: str = ""
    amount_bytes: int = 0


@attrs.frozen
class State:
    """What has been done and not been undone, the first first, and when that changed last."""

    done: tuple[Deed, ...] = ()
    changed_seconds: float = float("-inf")

    @property
    def step(self) -> int:
        """How far relief has gone; 0 is nowhere."""
        return self.done[-1].step if self.done else 0


@attrs.frozen
class Decision:
    """What to do now, if anything, and the state after it."""

    state: State
    do: Deed | None = None
    undo: Deed | None = None


def furthest_reach(verdict: Verdict) -> int:
    """The last step that this verdict allows; 0 is none."""
    if verdict.level is Level.CALM:
        return 0
    if verdict.resource is Resource.DISKS:
        return Step.LOWER_WEIGHTS
    return Step.RECLAIM if verdict.level is Level.TIGHT else Step.END


def decide(state: State, verdict: Verdict, uses: Sequence[OwnerUse], now: float) -> Decision:
    """The one thing to do now.

    Args:
        state: What stands.
        verdict: Of this moment.
        uses: Of every owner who runs something.
        now: Monotonic seconds.
    """
    reach = furthest_reach(verdict)
    waited = now - state.changed_seconds
    if state.step > reach and waited >= PATIENT_SECONDS:
        return Decision(State(state.done[:-1], now), undo=state.done[-1])
    due = (
        step
        for step in Step
        if state.step < step <= reach and waited >= _patience(step, verdict.level)
    )
    deed = next(filter(None, (_deed(step, verdict, uses) for step in due)), None)
    if deed is not None:
        # What was ended stays so: the step stands nowhere, and is done again to another if need be.
        done = state.done if deed.step is Step.END else (*state.done, deed)
        return Decision(State(done, now), do=deed)
    return Decision(state)


def _patience(step: Step, level: Level) -> float:
    urgent = level is Level.CRITICAL and step is not Step.END
    return URGENT_SECONDS if urgent else PATIENT_SECONDS


def _deed(step: Step, verdict: Verdict, uses: Sequence[OwnerUse]) -> Deed | None:
    """The step, done to whom it concerns most; None if it concerns nobody."""
    if step is Step.HOLD_BUILDS:
        return Deed(step, None, verdict.reason)
    use = _furthest_above(uses, verdict.resource)
    if use is None:
        return None
    why = f"{verdict.reason}; {_excess(use, verdict.resource)}"
    match step:
        case Step.LOWER_WEIGHTS:
            return Deed(step, use.owner, why)
        case Step.RECLAIM:
            amount = max(use.share_bytes, int(use.memory_bytes * PRESSED_PART))
            return Deed(step, use.owner, why, amount_bytes=amount)
        case Step.FREEZE_BUILDS:
            builds = any(work.build for work in use.works)
            return Deed(step, use.owner, why) if builds else None
        case Step.END:
            work = _cheapest(use.works)
            return None if work is None else _ending(use, work, why)


def _ending(use: OwnerUse, work: Work, why: str) -> Deed:
    cost = f"{work.cpu_ns / NANOSECONDS:.1f} s of processor time are lost"
    told = f"{why}; {work.name} holds {_mebibytes(work.memory_bytes)}, and {cost}"
    return Deed(Step.END, use.owner, told, group=work.group, what=work.name)


def _furthest_above(uses: Sequence[OwnerUse], resource: Resource) -> OwnerUse | None:
    """Who has most beyond their share, in proportion to it."""
    if resource is Resource.DISKS:
        total = sum(use.io_bytes_per_second for use in uses)
        above = {use: use.io_bytes_per_second / use.io_share for use in uses if use.io_share}
        above = {use: part / total for use, part in above.items() if total and part > total}
    else:
        above = {
            use: use.memory_bytes / use.share_bytes
            for use in uses
            if use.memory_bytes > use.share_bytes > 0
        }
    return max(above, key=lambda use: (above[use], -use.owner), default=None)


def _cheapest(works: Sequence[Work]) -> Work | None:
    """Of builds, if there are any, the one that frees most memory for the least work lost; else of containers."""
    held = [work for work in works if work.memory_bytes > 0]
    wanted = [work for work in held if work.build] or held
    return min(wanted, key=lambda work: (work.cpu_ns / work.memory_bytes, work.group), default=None)


def _excess(use: OwnerUse, resource: Resource) -> str:
    if resource is Resource.DISKS:
        rate = _mebibytes(int(use.io_bytes_per_second))
        return f"uid {use.owner} moves {rate}/s, and {use.io_share:.0%} is their share"
    return f"uid {use.owner} holds {_mebibytes(use.memory_bytes)}, and {_mebibytes(use.share_bytes)} are their share"


def _mebibytes(count: int) -> str:
    return f"{count / 1_048_576:,.0f} MiB"


def shares(weights: Mapping[int, int], total: int) -> dict[int, int]:
    """``total``, divided among owners by weight."""
    every = sum(weights.values())
    return {owner: total * weight // every for owner, weight in weights.items()} if every else {}

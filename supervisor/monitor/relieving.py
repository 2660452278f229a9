"""Relief as it is carried out: the uses of a reading, the decision, the hands that do it, and the event that tells it.

Rules: the monitor touches no cgroup; whoever is given as :class:`Hands` does. Undoing sets what the owner's limits say, so
it is right also when these changed meanwhile; a daemon that ends in between leaves it to the next one, which sets all
owners' limits anew. In a dry run everything is decided and told, and nothing done.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from protocol.events import MonitorRelief
from supervisor.errors import BakehouseError
from supervisor.events.journal import Events
from supervisor.linux.cgroup import CgroupSample
from supervisor.monitor import relief
from supervisor.monitor.detect import Verdict
from supervisor.monitor.relief import Deed, OwnerUse, State, Step, Work
from supervisor.monitor.samples import NANOSECONDS, Reading, owner_group

log = logging.getLogger(__name__)


class Hands(Protocol):
    """Who can do something about an owner's groups. Of a group that has gone, nothing is success."""

    async def lower_weights(self, owner: int) -> None:
        """All that is the owner's weighs a part of what it did."""

    async def reclaim(self, owner: int, amount_bytes: int) -> None:
        """All that is the owner's is reclaimed from down to so much (v1: first of all, when the host is short)."""

    async def freeze_builds(self, owner: int, *, frozen: bool) -> None:
        """Their builds stand still, or go on."""

    async def restore(self, owner: int) -> None:
        """Weights and bounds are what the owner's limits say."""

    async def end(self, group: str) -> None:
        """What is in the group has been killed."""


class Relief:
    """What is being done about pressure."""

    def __init__(
        self,
        events: Events,
        weight_of: Callable[[int], int],
        hold_builds: Callable[[bool], None],
        *,
        dry_run: bool,
    ) -> None:
        """``hold_builds`` is told whether no further build steps are to begin."""
        self._events = events
        self._weight_of = weight_of
        self._hold_builds = hold_builds
        self._dry_run = dry_run
        self._hands: Hands | None = None
        self.state = State()

    def equip(self, hands: Hands) -> None:
        """From now on these do what is decided."""
        self._hands = hands

    @property
    def active(self) -> bool:
        """Whether something stands that must be undone when the host is calm."""
        return bool(self.state.done)

    @property
    def standing(self) -> tuple[str, ...]:
        """The steps that stand, the mildest first."""
        return tuple(deed.step.word for deed in self.state.done)

    async def consider(
        self, verdict: Verdict, before: Reading | None, now: Reading, seconds: float
    ) -> None:
        """Do the one thing that is due, if any, and tell it."""
        if not self.active and not relief.furthest_reach(verdict):
            return  # as nearly always: nobody's use need be reckoned
        uses = uses_of(before, now, self._weight_of)
        decision = relief.decide(self.state, verdict, uses, seconds)
        self.state = decision.state
        if decision.do is not None:
            await self._carry_out(decision.do)
            await self._tell(decision.do, verdict.reason, undone=False)
        if decision.undo is not None:
            await self._take_back(decision.undo)
            await self._tell(decision.undo, verdict.reason, undone=True)

    async def _carry_out(self, deed: Deed) -> None:
        if self._dry_run:
            return
        try:
            await self._do(deed)
        except BakehouseError as error:  # the next step is tried in its time
            log.warning("relief (%s) fails: %s", deed.step.word, error.message)

    async def _do(self, deed: Deed) -> None:
        if deed.step is Step.HOLD_BUILDS:
            self._hold_builds(True)
            return
        hands, owner = self._hands, deed.owner
        if hands is None or owner is None:
            return
        match deed.step:
            case Step.LOWER_WEIGHTS:
                await hands.lower_weights(owner)
            case Step.RECLAIM:
                await hands.reclaim(owner, deed.amount_bytes)
            case Step.FREEZE_BUILDS:
                await hands.freeze_builds(owner, frozen=True)
            case Step.END:
                await hands.end(deed.group)

    async def _take_back(self, deed: Deed) -> None:
        if self._dry_run:
            return
        if deed.step is Step.HOLD_BUILDS:
            self._hold_builds(False)
        elif self._hands is not None and deed.owner is not None:
            try:
                await self._undo(self._hands, deed.step, deed.owner)
            except (
                BakehouseError
            ) as error:  # the next daemon, or the next change of limits, sets them
                log.warning("relief (%s) is not taken back: %s", deed.step.word, error.message)

    async def _undo(self, hands: Hands, step: Step, owner: int) -> None:
        if step is Step.FREEZE_BUILDS:
            await hands.freeze_builds(owner, frozen=False)
            return
        await hands.restore(owner)
        for other in self.state.done:  # of the same owner's, what stands still stands
            if other.owner == owner:
                await self._do(other)

    async def _tell(self, deed: Deed, reason: str, *, undone: bool) -> None:
        owner = deed.owner or 0
        data = MonitorRelief(
            step=deed.step.word,
            reason=reason if undone else deed.why,
            what=deed.what,
            amount_bytes=deed.amount_bytes,
            undone=undone,
            dry_run=self._dry_run,
        )
        with suppress(BakehouseError):  # a full disk must not keep relief from its work
            await self._events.emit(data, owner=owner, subject="host")


def uses_of(
    before: Reading | None, now: Reading, weight_of: Callable[[int], int]
) -> tuple[OwnerUse, ...]:
    """What every owner has who runs something; pure but for the weights."""
    groups = {who.owner: owner_group(group) for group, who in now.census.items()}
    weights = {owner: weight_of(owner) for owner in groups}
    parts = relief.shares(weights, now.host.memory_total_bytes)
    every = sum(weights.values())
    return tuple(
        OwnerUse(
            owner=owner,
            memory_bytes=_held(now.groups[group]),
            share_bytes=parts[owner],
            io_bytes_per_second=_moved(before, now, group),
            io_share=weights[owner] / every,
            works=_works(now, owner),
        )
        for owner, group in sorted(groups.items())
        if group in now.groups
    )


def _works(now: Reading, owner: int) -> tuple[Work, ...]:
    return tuple(
        Work(
            group=group,
            name=who.name,
            build=not who.container_id,
            memory_bytes=_held(now.groups[group]),
            cpu_ns=now.groups[group].cpu_usage_ns,
        )
        for group, who in now.census.items()
        if who.owner == owner and group in now.groups
    )


def _held(sample: CgroupSample) -> int:
    """Memory that is not simply dropped when it is wanted."""
    return max(sample.memory_bytes - sample.memory_inactive_file_bytes, 0)


def _moved(before: Reading | None, now: Reading, group: str) -> float:
    earlier, sample = before.groups.get(group) if before else None, now.groups[group]
    if earlier is None or sample.time_ns <= earlier.time_ns:
        return 0.0
    moved = sample.io_read_bytes + sample.io_write_bytes
    moved -= earlier.io_read_bytes + earlier.io_write_bytes
    return max(moved, 0) * NANOSECONDS / (sample.time_ns - earlier.time_ns)

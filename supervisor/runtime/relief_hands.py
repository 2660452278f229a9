"""What the monitor's relief does to owners' groups. On cgroup v1 *reclaim* is the soft limit: no more than a wish.

See :class:`supervisor.monitor.relieving.Hands` for what each verb means.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import attrs

from supervisor.config import OwnerConfig
from supervisor.errors import NotFound
from supervisor.linux.cgroup import CgroupLimits
from supervisor.runtime.cgroup_tree import BUILDS, CgroupTree, owner_group
from supervisor.runtime.owner_groups import disks, group_limits
from supervisor.tasks import in_thread

LOWERED_PART = 4


@attrs.frozen
class ReliefHands:
    """Does it to the groups of ``tree``; ``limits_of`` says what an owner may use."""

    tree: CgroupTree
    limits_of: Callable[[int], OwnerConfig]

    async def lower_weights(self, owner: int) -> None:
        """A quarter of their weights."""
        limits = self.limits_of(owner)
        lowered = CgroupLimits(
            cpu_weight=max(limits.cpu_weight // LOWERED_PART, 1),
            io_weight=max(limits.io_weight // LOWERED_PART, 1),
        )
        await self._limit(owner, lowered)

    async def reclaim(self, owner: int, amount_bytes: int) -> None:
        """``memory.high``; never more than their limits say."""
        most = self.limits_of(owner).memory_high_bytes or amount_bytes
        await self._limit(owner, CgroupLimits(memory_high_bytes=min(amount_bytes, most)))

    async def restore(self, owner: int) -> None:
        """What their limits say."""
        limits = group_limits(self.limits_of(owner), await in_thread(disks))
        await self._limit(owner, limits)

    async def freeze_builds(self, owner: int, *, frozen: bool) -> None:
        """All of their builds."""
        group = f"{owner_group(owner)}/{BUILDS}"
        with suppress(NotFound):  # none of theirs ever ran
            await in_thread(lambda: self.tree.cgroups.freeze(group, frozen))

    async def end(self, group: str) -> None:
        """Killed; who waits for it tells its end."""
        await in_thread(lambda: self.tree.cgroups.kill(group))

    async def _limit(self, owner: int, limits: CgroupLimits) -> None:
        with suppress(NotFound):
            await in_thread(lambda: self.tree.cgroups.limit(owner_group(owner), limits))

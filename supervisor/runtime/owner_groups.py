"""What an owner's limits mean for their group, and changing them while things of theirs run.

Rules: the kernel sees to it that all that is below an owner's group together keeps within it. On cgroup v1 it refuses a
quota of a child's that is larger than its parent's, so a container that asks for more processors than its owner has gets
none of its own; when the owner's become more, it gets what it asked for.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from supervisor.linux.cgroup import UNLIMITED, Ability, CgroupLimits
from supervisor.linux.cgroup_model import Rate
from supervisor.tasks import finish_within

if TYPE_CHECKING:
    from supervisor.access.identity import Identity
    from supervisor.access.owner_limits import Changes
    from supervisor.config import OwnerConfig
    from supervisor.runtime.parts import Parts

PERIOD_MICROSECONDS = 100_000
APPLY_SECONDS = 10.0
BLOCK_DEVICES = Path("/sys/block")
NO_DISKS = ("loop", "ram", "zram", "sr", "fd", "nbd")
"""Devices of memory, or whose traffic is another disk's."""


@attrs.frozen
class Quota:
    """Processor time that a container asked for, in each period."""

    microseconds: int
    period_microseconds: int

    def within(self, cpus_max: float) -> CgroupLimits:
        """It, or none where the group above is bounded to fewer processors (0: it is not bounded)."""
        beyond = cpus_max and self.microseconds > cpus_max * self.period_microseconds
        return CgroupLimits(
            cpu_quota_microseconds=UNLIMITED if beyond else self.microseconds,
            cpu_period_microseconds=self.period_microseconds,
        )


def group_limits(limits: OwnerConfig, disks: Sequence[str]) -> CgroupLimits:
    """What an owner's limits mean for their group; each is named, so that one that is none any more is lifted. Pure.

    Args:
        limits: The owner's.
        disks: ``major:minor`` of each of the host's.
    """
    rates = (
        (Rate.READ_BYTES, limits.io_read_bytes_per_second_max),
        (Rate.WRITE_BYTES, limits.io_write_bytes_per_second_max),
    )
    return CgroupLimits(
        cpu_weight=limits.cpu_weight,
        cpu_quota_microseconds=int(limits.cpus_max * PERIOD_MICROSECONDS) or UNLIMITED,
        cpu_period_microseconds=PERIOD_MICROSECONDS,
        memory_bytes=limits.memory_bytes_max or UNLIMITED,
        memory_high_bytes=limits.memory_high_bytes or UNLIMITED,
        pids=limits.pids_max or UNLIMITED,
        io_weight=limits.io_weight,
        io_rates=tuple((disk, rate, most or UNLIMITED) for disk in disks for rate, most in rates),
    )


def disks(directory: Path = BLOCK_DEVICES) -> tuple[str, ...]:
    """``major:minor`` of the host's whole disks; a cgroup bounds no partitions."""
    found = [
        (path / "dev").read_text().strip()
        for path in sorted(directory.iterdir())
        if not path.name.startswith(NO_DISKS) and (path / "size").read_text().strip() != "0"
    ]
    return tuple(found)


async def set_owner_limits(parts: Parts, uid: int, changes: Changes, by: Identity) -> OwnerConfig:
    """The owner has these limits from now on, in the kernel at once if anything of theirs runs; what holds now.

    Args:
        parts: The services.
        uid: Whose. They need not have been here yet.
        changes: New values by name; ``None`` is the default again.
        by: The administrator.

    Raises:
        InvalidArgument: They make no sense; every fault is told.
        Conflict: What they run uses more already and cannot give it back. Nothing has changed.
        Unavailable: The kernel refuses. Nothing has changed.
    """
    before, after = parts.owners.limits(uid), parts.owners.limits_after(uid, changes)
    with finish_within(
        APPLY_SECONDS
    ):  # kernel and record must not differ because a client went away
        done = False
        try:
            await parts.tree.limit_owner(uid, after)
            await parts.owners.set_limits(uid, changes, by)
            done = True
        finally:
            if not done:
                await parts.tree.limit_owner(uid, before)
    return parts.owners.limits(uid)


_NEEDS: Mapping[str, Ability] = {
    "cpu_weight": Ability.CPU,
    "cpus_max": Ability.CPU,
    "memory_high_bytes": Ability.MEMORY,
    "memory_bytes_max": Ability.MEMORY,
    "pids_max": Ability.PIDS,
    "io_weight": Ability.IO_WEIGHT,
    "io_read_bytes_per_second_max": Ability.IO_RATES,
    "io_write_bytes_per_second_max": Ability.IO_RATES,
}


def unheld(names: Iterable[str], abilities: Collection[Ability]) -> tuple[str, ...]:
    """Those of the limits called ``names`` that this host's kernel does not see to; they are written down all the same."""
    return tuple(name for name in names if name in _NEEDS and _NEEDS[name] not in abilities)

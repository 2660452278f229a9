"""Which cgroup is whose: the one module that names and limits owners' groups.

``u<uid>/<container>`` holds a container's processes, ``u<uid>/monitors`` the conmons of all of an owner's containers,
``u<uid>/build-<id>`` a build's steps. An owner's group shares the processors with other owners by weight; what is below
shares the owner's part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import trio

from supervisor.access.requests import Resources
from supervisor.config import OwnerConfig
from supervisor.linux.cgroup import Cgroups
from supervisor.linux.cgroup_model import UNLIMITED, CgroupLimits, weight_of_shares
from supervisor.tasks import in_thread

KILL_POLL_SECONDS = 0.002
CPU_PERIOD_MICROSECONDS = 100_000
BUILD_WEIGHT = 25
IO_WEIGHT_DIVISOR = 5  # Docker's 500 is cgroup v2's 100


def owner_group(owner: int) -> str:
    """The group of all that is an owner's."""
    return f"u{owner}"


def container_group(owner: int, container_id: str) -> str:
    """The group of a container's processes."""
    return f"u{owner}/{container_id}"


def monitors_group(owner: int) -> str:
    """The group of an owner's conmons."""
    return f"u{owner}/monitors"


def build_group(owner: int, build_id: str) -> str:
    """The group of a build's steps."""
    return f"u{owner}/build-{build_id}"


def limits_of(resources: Resources, pids_default: int) -> CgroupLimits:
    """What a request's limits mean for a cgroup; pure."""
    quota, period = resources.cpu_quota_microseconds, resources.cpu_period_microseconds
    if resources.cpu_nanos:
        period = CPU_PERIOD_MICROSECONDS
        quota = math.ceil(resources.cpu_nanos * period / 1_000_000_000)
    swap = resources.memory_swap_bytes
    if swap is None and resources.memory_bytes:
        swap = 2 * resources.memory_bytes  # Docker's default: as much swap as memory
    pids = resources.pids_max or pids_default
    return CgroupLimits(
        cpu_weight=weight_of_shares(resources.cpu_shares) if resources.cpu_shares else None,
        cpu_quota_microseconds=quota or None,
        cpu_period_microseconds=period or CPU_PERIOD_MICROSECONDS,
        memory_bytes=resources.memory_bytes or None,
        memory_swap_bytes=swap,
        memory_reservation_bytes=resources.memory_reservation_bytes or None,
        pids=pids if pids > 0 else UNLIMITED,
        cpuset_cpus=resources.cpuset_cpus,
        cpuset_mems=resources.cpuset_mems,
        io_weight=resources.io_weight // IO_WEIGHT_DIVISOR or None,
    )


class CgroupTree:
    """The daemon's groups, by owner."""

    def __init__(
        self, cgroups: Cgroups, config: OwnerConfig, seen_in_mounts: Callable[[str], str]
    ) -> None:
        """``seen_in_mounts`` turns a path of the host's cgroup tree into one that the daemon's mount namespace shows."""
        self.cgroups = cgroups
        self.confines_devices = cgroups.confines_devices
        self._config = config
        self._seen_in_mounts = seen_in_mounts
        self._owners: set[int] = set()

    async def create(
        self,
        owner: int,
        group: str,
        limits: CgroupLimits,
        device_rules: Sequence[str] | None = None,
    ) -> None:
        """The group exists below its owner's, with these limits; its owner's has theirs.

        With ``device_rules`` its processes may use only those devices, where this host can see to that.
        """

        def create() -> None:
            if owner not in self._owners:
                self._admit(owner)
            self.cgroups.create(group, limits)
            if device_rules is not None:
                self.cgroups.confine_devices(group, device_rules)

        await in_thread(create)

    async def admit(self, owner: int) -> None:
        """The owner's group exists, with their limits, and that of their conmons."""
        if owner not in self._owners:
            await in_thread(lambda: self._admit(owner))

    def _admit(self, owner: int) -> None:
        config = self._config
        limits = CgroupLimits(
            cpu_weight=config.cpu_weight,
            memory_bytes=config.memory_bytes_max or None,
            pids=config.pids_max or None,
        )
        self.cgroups.create(owner_group(owner), limits)
        self.cgroups.create(monitors_group(owner))
        self._owners.add(owner)

    def entry_paths(self, group: str) -> list[str]:
        """The ``cgroup.procs`` of a group as processes in the daemon's mount namespace see them."""
        return [self._seen_in_mounts(path) for path in self.cgroups.entry_paths(group)]

    async def clear(self, group: str) -> None:
        """The group is gone, and whatever was in it dead. Not being there is success."""
        # Dying takes the kernel its time, and v1 tells nobody when the last process is gone.
        while not await in_thread(lambda: self._cleared(group)):  # noqa: ASYNC110
            await trio.sleep(KILL_POLL_SECONDS)

    def _cleared(self, group: str) -> bool:
        if not self.cgroups.exists(group):
            return True
        if self.cgroups.pids(group):
            self.cgroups.kill(group)
        return self.cgroups.remove(group)

    async def oom_kills(self, group: str) -> int:
        """How many processes of the group the kernel has ended for want of memory."""
        return await in_thread(lambda: self.cgroups.oom_kills(group))

    def forget(self, owner: int) -> None:
        """An owner's group may have been removed: make it anew when it is wanted."""
        self._owners.discard(owner)

    def remove_empty(self) -> None:
        """Remove what nobody is in; for the daemon's end."""
        self.cgroups.remove("")
        self._owners.clear()

"""Which cgroup is whose: the one module that names and limits owners' groups.

``u<uid>/<container>`` holds a container's processes, ``u<uid>/monitors`` the conmons of all of an owner's containers,
``u<uid>/builds/<step>`` a build's steps. An owner's group shares the processors and disks with other owners by weight;
what is below shares the owner's part, and all builds of an owner together weigh less there than one of their containers.
"""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import attrs
import trio

from supervisor.access.requests import DeviceValue, Resources
from supervisor.config import OwnerConfig
from supervisor.errors import InvalidArgument, NotFound
from supervisor.linux.cgroup import Cgroups
from supervisor.linux.cgroup_model import UNLIMITED, CgroupLimits, Rate, weight_of_shares
from supervisor.runtime.owner_groups import Quota, disks, group_limits
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.sanity import parent_names
from supervisor.tasks import Turns, in_thread

KILL_POLL_SECONDS = 0.002
CPU_PERIOD_MICROSECONDS = 100_000
BUILDS_LIMITS = CgroupLimits(cpu_weight=25, io_weight=25)
IO_WEIGHT_DIVISOR = 5  # Docker's 500 is cgroup v2's 100
MONITORS = "monitors"
BUILDS = "builds"
PARENT_PREFIX = "p-"
"""Before the names people give to groups, so that none is taken for one of ours."""
PARENT_TRIES_MAX = 16


def owner_group(owner: int) -> str:
    """The group of all that is an owner's."""
    return f"u{owner}"


def container_group(record: ContainerRecord) -> str:
    """The group of a container's processes; its parent, where one was asked for, is below its owner's."""
    parents = (f"{PARENT_PREFIX}{name}" for name in parent_names(record.request.cgroup_parent))
    return "/".join((owner_group(record.owner), *parents, record.id))


def monitors_group(owner: int) -> str:
    """The group of an owner's conmons."""
    return f"u{owner}/{MONITORS}"


def build_group(owner: int, build_id: str) -> str:
    """The group of a build's steps."""
    return f"u{owner}/{BUILDS}/{build_id}"


def limits_of(
    resources: Resources, pids_default: int, disks: Mapping[str, str] | None = None
) -> CgroupLimits:
    """What a request's limits mean for a cgroup; pure.

    Args:
        resources: The request's.
        pids_default: Where it says nothing.
        disks: ``major:minor`` of the disks it names, by path.
    """
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
        io_device_weights=tuple(
            (disks[each.path], max(each.value // IO_WEIGHT_DIVISOR, 1))
            for each in resources.io_device_weights
            if disks
        ),
        io_rates=tuple(
            (disks[each.path], rate, each.value)
            for rate, values in rates_of(resources).items()
            for each in values
            if disks
        ),
        swappiness=resources.swappiness,
        oom_kill_disable=resources.oom_kill_disable,
    )


def rates_of(resources: Resources) -> Mapping[Rate, Sequence[DeviceValue]]:
    """The bounds on single disks' traffic."""
    return {
        Rate.READ_BYTES: resources.read_bytes_max,
        Rate.WRITE_BYTES: resources.write_bytes_max,
        Rate.READ_OPERATIONS: resources.read_operations_max,
        Rate.WRITE_OPERATIONS: resources.write_operations_max,
    }


def disks_named(resources: Resources) -> frozenset[str]:
    """The paths of the disks with limits of their own."""
    every = (resources.io_device_weights, *rates_of(resources).values())
    return frozenset(each.path for values in every for each in values)


def disks_of(resources: Resources) -> Mapping[str, str]:
    """``major:minor`` of each disk that is named, by path.

    Raises:
        InvalidArgument: It is none.
    """
    return {path: _disk(path) for path in disks_named(resources)}


def _disk(path: str) -> str:
    try:
        found = Path(path).stat()
    except OSError as error:
        raise InvalidArgument(f"cannot limit the disk {path}: {error.strerror}") from error
    if not stat.S_ISBLK(found.st_mode):
        raise InvalidArgument(f"cannot limit the disk {path}: it is no block device")
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


class CgroupTree:
    """The daemon's groups, by owner."""

    def __init__(
        self,
        cgroups: Cgroups,
        limits_of_owner: Callable[[int], OwnerConfig],
        seen_in_mounts: Callable[[str], str],
    ) -> None:
        """``seen_in_mounts`` turns a path of the host's cgroup tree into one that the daemon's mount namespace shows."""
        self.cgroups = cgroups
        self.confines_devices = cgroups.confines_devices
        self.abilities = cgroups.abilities
        self._limits_of_owner = limits_of_owner
        self._seen_in_mounts = seen_in_mounts
        self._owners: dict[int, OwnerConfig] = {}
        self._quotas: dict[str, Quota] = {}
        self._turns: Turns[int] = Turns()

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
                self._admit(owner, self._limits_of_owner(owner))
            if group.startswith(f"{owner_group(owner)}/{BUILDS}/"):
                self._make(group.rpartition("/")[0], BUILDS_LIMITS)
            self._make(group, self._within_owners(owner, group, limits))
            if device_rules is not None:
                self.cgroups.confine_devices(group, device_rules)

        await in_thread(create)

    def _make(self, group: str, limits: CgroupLimits) -> None:
        """A parent that has just become empty may be removed meanwhile: once more then."""
        for _ in range(PARENT_TRIES_MAX):
            try:
                return self.cgroups.create(group, limits)
            except NotFound:
                continue
        return self.cgroups.create(group, limits)

    async def limit(self, owner: int, group: str, limits: CgroupLimits) -> None:
        """A group below the owner's has these limits from now on, as far as their own let it.

        Raises:
            NotFound: No such group.
            InvalidArgument: The kernel finds no sense in a value.
            Conflict: The group already uses more than that and cannot give it back.
        """
        await in_thread(
            lambda: self.cgroups.limit(group, self._within_owners(owner, group, limits))
        )

    async def admit(self, owner: int) -> None:
        """The owner's group exists, with their limits, and that of their conmons."""
        if owner not in self._owners:
            await in_thread(lambda: self._admit(owner, self._limits_of_owner(owner)))

    async def limit_owner(self, owner: int, limits: OwnerConfig) -> None:
        """All that is the owner's is limited so, if there is any; what comes is, once it is written down.

        Raises:
            Conflict: It already uses more than that and cannot give it back (v1).
            Unavailable: The kernel refuses.
        """
        async with self._turns.of(owner):
            await in_thread(lambda: self._limit_owner(owner, limits))

    def _limit_owner(self, owner: int, limits: OwnerConfig) -> None:
        if not self.cgroups.exists(owner_group(owner)):
            return
        self._admit(owner, limits)
        for group, quota in list(self._quotas.items()):
            if group.startswith(f"{owner_group(owner)}/"):
                with suppress(NotFound):  # it has just ended
                    self.cgroups.limit(group, quota.within(limits.cpus_max))

    def _admit(self, owner: int, limits: OwnerConfig) -> None:
        self.cgroups.create(owner_group(owner), group_limits(limits, disks()))
        self.cgroups.create(monitors_group(owner))
        self._owners[owner] = limits

    def _within_owners(self, owner: int, group: str, limits: CgroupLimits) -> CgroupLimits:
        """The limits, with no more of the processors than the owner has; what was wanted is kept for better times."""
        if not limits.cpu_quota_microseconds:
            return limits
        if limits.cpu_quota_microseconds == UNLIMITED:
            self._quotas.pop(group, None)
            return limits
        quota = Quota(limits.cpu_quota_microseconds, limits.cpu_period_microseconds)
        self._quotas[group] = quota
        bounded = quota.within(self._owners.get(owner, OwnerConfig()).cpus_max)
        return attrs.evolve(
            limits,
            cpu_quota_microseconds=bounded.cpu_quota_microseconds,
            cpu_period_microseconds=bounded.cpu_period_microseconds,
        )

    def entry_paths(self, group: str) -> list[str]:
        """The ``cgroup.procs`` of a group as processes in the daemon's mount namespace see them."""
        return [self._seen_in_mounts(path) for path in self.cgroups.entry_paths(group)]

    async def clear(self, group: str) -> None:
        """The group is gone, and whatever was in it dead. Not being there is success."""
        # Dying takes the kernel its time, and v1 tells nobody when the last process is gone.
        while not await in_thread(lambda: self._cleared(group)):  # noqa: ASYNC110
            await trio.sleep(KILL_POLL_SECONDS)

    def _cleared(self, group: str) -> bool:
        if self.cgroups.exists(group):
            if self.cgroups.pids(group):
                self.cgroups.kill(group)
            if not self.cgroups.remove(group):
                return False
        self._quotas.pop(group, None)
        self._remove_parents(group)
        return True

    def _remove_parents(self, group: str) -> None:
        """The groups above it that people named, as far as nobody else is in them."""
        above = group.rpartition("/")[0]
        while above.rpartition("/")[2].startswith(PARENT_PREFIX):
            if self.cgroups.children(above) or not self.cgroups.remove_one(above):
                return
            above = above.rpartition("/")[0]

    def owners(self) -> list[int]:
        """Those who have a group, from a daemon before too."""
        names = (name.removeprefix("u") for name in self.cgroups.children(""))
        return [int(name) for name in names if name.isdecimal()]

    async def sweep(self, owner: int, live: Collection[str]) -> None:
        """Of an owner's group only ``live`` containers' groups are left, and their conmons'."""
        for group in await in_thread(lambda: list(self._leaves(owner_group(owner)))):
            if group.rpartition("/")[2] not in live:
                await self.clear(group)

    def _leaves(self, group: str) -> Iterator[str]:
        for name in self.cgroups.children(group):
            below = f"{group}/{name}"
            if name.startswith(PARENT_PREFIX):
                yield from self._leaves(below)
                if not self.cgroups.children(below):
                    yield below
            elif name != MONITORS:
                yield below

    async def oom_kills(self, group: str) -> int:
        """How many processes of the group the kernel has ended for want of memory."""
        return await in_thread(lambda: self.cgroups.oom_kills(group))

    def remove_empty(self) -> None:
        """Remove what nobody is in; for the daemon's end."""
        self.cgroups.remove("")
        self._owners.clear()

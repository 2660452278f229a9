"""What is said about cgroups, whatever version the host has: values in, values out.

Words: a *group* is a slash-separated name below the daemon's own tree, such as ``u1000/ab12``; *limits* are what it may
use; a *sample* is what it has used. Weights are cgroup v2's: 1 to 10,000, and 100 is normal.

Rules: nothing hostile is a path, so a group's segments are made of ``a-z 0-9 _ . -`` and start with a letter or a
digit. Docker's CPU shares and v2's weights are both plain proportions (1024 shares are weight 100), so they are
converted in proportion: two containers asked to share 1:2 do, on either version. (The curve newer runtimes use agrees
at 1024 only.)
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping, Sequence
from typing import Protocol

import attrs

from supervisor.errors import BakehouseError, Conflict, InvalidArgument, NotFound, Unavailable
from supervisor.linux.pressure import Pressure

UNLIMITED = -1
"""Lifts a limit that was set before."""

WEIGHT_NORMAL = 100
WEIGHT_MAX = 10_000
SHARES_NORMAL = 1_024
SHARES_MIN = 2
SHARES_MAX = 262_144
BLKIO_WEIGHT_NORMAL = 500
SEGMENT_CHARACTERS_MAX = 128

_SEGMENT = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_ENOENT, _EBUSY, _EINVAL, _ENODEV, _ERANGE = 2, 16, 22, 19, 34


class Ability(enum.Enum):
    """What a host's cgroups may or may not be able to limit."""

    MEMORY = "memory"
    SWAP = "swap"
    SWAPPINESS = "swappiness"
    OOM_KILL_DISABLE = "oom kill disable"
    CPU = "cpu"
    CPUSET = "cpuset"
    PIDS = "pids"
    IO_WEIGHT = "io weight"
    IO_WEIGHT_DEVICE = "io weight of a device"
    IO_RATES = "io rates"


class Rate(enum.StrEnum):
    """What of a device's traffic is bounded, in a second; in cgroup v2's words."""

    READ_BYTES = "rbps"
    WRITE_BYTES = "wbps"
    READ_OPERATIONS = "riops"
    WRITE_OPERATIONS = "wiops"


@attrs.frozen
class CgroupLimits:
    """What a group may use. ``None`` (or 0, or "") leaves a limit as it is; -1 lifts it.

    Attributes:
        cpu_weight: Share of the processors beside its siblings, 1 to 10,000; 100 is normal.
        cpu_quota_microseconds: Processor time in each period.
        cpu_period_microseconds: Length of the period; used with a quota only.
        memory_bytes: Hard limit. A group inside an owner's that has one dies as a whole when it is out of memory (v2).
        memory_high_bytes: Above this the group is slowed and reclaimed from.
        memory_swap_bytes: Memory *and* swap together, as Docker counts it.
        memory_reservation_bytes: What reclaim leaves alone while it can.
        pids: Processes and threads.
        cpuset_cpus: Processors, e.g. ``0-3,7``.
        cpuset_mems: Memory nodes.
        io_weight: Share of the disks beside its siblings, 1 to 10,000; 100 is normal.
        io_device_weights: The same of single disks, by ``major:minor``.
        io_rates: (``major:minor``, what, how much) of single disks; -1 lifts one that is there.
        swappiness: 0 to 100, v1 only.
        oom_kill_disable: The group waits where it would be killed, v1 only.
    """

    cpu_weight: int | None = None
    cpu_quota_microseconds: int | None = None
    cpu_period_microseconds: int = 100_000
    memory_bytes: int | None = None
    memory_high_bytes: int | None = None
    memory_swap_bytes: int | None = None
    memory_reservation_bytes: int | None = None
    pids: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    io_weight: int | None = None
    io_device_weights: tuple[tuple[str, int], ...] = ()
    io_rates: tuple[tuple[str, Rate, int], ...] = ()
    swappiness: int | None = None
    oom_kill_disable: bool = False


NO_LIMITS = CgroupLimits()


@attrs.frozen
class CgroupPressure:
    """How much of the time a group's tasks waited; ``None`` where the kernel does not tell."""

    cpu: Pressure | None = None
    memory: Pressure | None = None
    io: Pressure | None = None


@attrs.frozen
class CgroupSample:
    """What a group (with all below it) has used up to one moment.

    Counters only grow; what is ``None`` or 0 where the host does not tell is listed in ``Cgroups.lacks``.

    Attributes:
        time_ns: Monotonic time of the sample, for rates.
        memory_limit_bytes: ``None`` is not limited; likewise ``pids_limit``.
    """

    time_ns: int
    cpu_usage_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_periods: int = 0
    cpu_throttled_periods: int = 0
    cpu_throttled_ns: int = 0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    memory_limit_bytes: int | None = None
    memory_anon_bytes: int = 0
    memory_file_bytes: int = 0
    memory_inactive_file_bytes: int = 0
    pids: int = 0
    pids_limit: int | None = None
    io_read_bytes: int = 0
    io_write_bytes: int = 0
    io_read_ops: int = 0
    io_write_ops: int = 0
    oom_kills: int = 0
    pressure: CgroupPressure = CgroupPressure()


@attrs.frozen
class DeviceUse:
    """What was read from or written to one device: ``way`` is ``read``, ``write`` or another of v1's, lower case."""

    major: int
    minor: int
    way: str
    amount: int


@attrs.frozen
class CgroupDetails:
    """One group, in detail.

    Attributes:
        memory: ``memory.stat``, by the kernel's names.
        memory_failures: How often the limit was hit; 0 where the kernel does not count.
        processors_ns: Time used on each processor; empty where the kernel does not tell.
        bytes: By device; likewise ``operations``, which only v1 hosts show.
    """

    memory: Mapping[str, int]
    memory_failures: int = 0
    processors_ns: Sequence[int] = ()
    bytes: Sequence[DeviceUse] = ()
    operations: Sequence[DeviceUse] = ()


@attrs.frozen
class Room:
    """What a group above all of ours leaves to them of the host's memory.

    Attributes:
        bytes_max: Its limit.
        available_bytes: What of it is not used, or could be taken back at once.
    """

    bytes_max: int
    available_bytes: int


class Cgroups(Protocol):
    """The daemon's own part of the cgroup tree. All verbs are synchronous; those that walk or kill belong in a thread.

    Where a group is listed, killed or removed, ``""`` is the whole tree.

    Attributes:
        kind: ``v1``, ``hybrid`` or ``v2``.
        root: Path of the daemon's tree below the mount, without a leading slash.
        lacks: What this host cannot do, each in words.
        abilities: What it can limit.
    """

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can limit."""

    @property
    def kind(self) -> str:
        """``v1``, ``hybrid`` or ``v2``."""

    @property
    def root(self) -> str:
        """Path of the daemon's tree below the mount, without a leading slash."""

    @property
    def lacks(self) -> tuple[str, ...]:
        """What this host cannot do, each in words."""

    def room(self) -> Room | None:
        """The tightest bound on memory above our tree; None where there is none but the host's."""

    @property
    def confines_devices(self) -> bool:
        """Whether :meth:`confine_devices` does anything here."""

    def confine_devices(self, group: str, rules: Sequence[str]) -> None:
        """Processes of the group may use only the devices that ``rules`` name (``c 1:3 rwm``), if the host can see to it.

        Raises:
            Unavailable: The kernel refuses.
        """

    def create(self, group: str, limits: CgroupLimits = NO_LIMITS) -> None:
        """The group exists, its parents too, and is limited so. A group that is there is limited anew.

        Raises:
            InvalidArgument: A name or a limit that makes no sense.
            Unavailable: The kernel refuses.
        """

    def limit(self, group: str, limits: CgroupLimits) -> None:
        """The limits hold from now on; those not named stay.

        Raises:
            NotFound: No such group.
            InvalidArgument: The kernel finds no sense in a value.
            Conflict: The group already uses more than that and cannot give it back.
        """

    def entry_fds(self, group: str) -> list[int]:
        """Open ``cgroup.procs`` files: who writes ``0`` to each is in the group. The caller closes them.

        Raises:
            NotFound: No such group.
        """

    def entry_paths(self, group: str) -> list[str]:
        """The paths of the same files."""

    def runtime_path(self, group: str) -> str:
        """The group as the runtime specification's ``cgroupsPath`` wants it."""

    def pids(self, group: str) -> list[int]:
        """All processes in the group and below; none if there is no such group."""

    def kill(self, group: str) -> None:
        """SIGKILL has been sent to everything in the group and below, however fast it forks. Dying takes its time."""

    def freeze(self, group: str, frozen: bool) -> None:
        """The group is stopped, or runs again; freezing is asked for, and seen with :meth:`frozen`.

        Raises:
            NotFound: No such group.
            Unavailable: This host cannot freeze.
        """

    def frozen(self, group: str) -> bool:
        """Whether everything in it is stopped."""

    def exists(self, group: str) -> bool:
        """Whether any part of the group is there."""

    def children(self, group: str) -> list[str]:
        """Names of the groups right below; ``""`` is the tree itself."""

    def remove(self, group: str) -> bool:
        """The group and all below it are gone (``True``; also if they were not there), or are still populated."""

    def details(self, group: str) -> CgroupDetails:
        """What else is told of a group; of one that is gone, nothing."""

    def remove_one(self, group: str) -> bool:
        """The group is gone (``True``; also if it was not there), or something is in it, another group too."""

    def sample(self, group: str) -> CgroupSample:
        """What it has used so far.

        Raises:
            NotFound: No such group.
        """

    def oom_kills(self, group: str) -> int:
        """Processes in the group and below that were killed for want of memory; 0 if it is gone."""


def checked(group: str) -> str:
    """The group, if it is a name one may make.

    Raises:
        InvalidArgument: It is not.
    """
    for segment in group.split("/"):
        if not _SEGMENT.fullmatch(segment) or len(segment) > SEGMENT_CHARACTERS_MAX:
            raise InvalidArgument(
                f"cannot name a cgroup {group!r}: {segment!r} is not of a-z, 0-9, '_', '.' and '-'"
            )
    return group


def weight_of_shares(shares: int) -> int:
    """Docker's ``--cpu-shares`` (2 to 262,144; 1024 is normal) as a weight."""
    bounded = min(max(shares, SHARES_MIN), SHARES_MAX)
    return min(max(round(bounded * WEIGHT_NORMAL / SHARES_NORMAL), 1), WEIGHT_MAX)


def shares_of_weight(weight: int) -> int:
    """A weight as cgroup v1's ``cpu.shares``; the inverse of :func:`weight_of_shares` as far as whole numbers go."""
    bounded = min(max(weight, 1), WEIGHT_MAX)
    return min(max(round(bounded * SHARES_NORMAL / WEIGHT_NORMAL), SHARES_MIN), SHARES_MAX)


def blkio_of_weight(weight: int) -> int:
    """A weight as cgroup v1's ``blkio.weight``, 10 to 1,000, where 500 is normal."""
    return min(max(round(weight * BLKIO_WEIGHT_NORMAL / WEIGHT_NORMAL), 10), 1_000)


def bfq_of_weight(weight: int) -> int:
    """A weight as the BFQ scheduler wants it, 1 to 1,000, where 100 is normal."""
    return min(max(weight, 1), 1_000)


def refusal(verb: str, group: str, error: OSError) -> BakehouseError:
    """The kernel's refusal, in our kinds: ``cannot <verb> cgroup <group>: <why>``."""
    message = f"cannot {verb} cgroup {group}: {error.strerror or error}"
    if error.errno in {_ENOENT, _ENODEV}:
        return NotFound(message)
    if error.errno == _EBUSY:
        return Conflict(message, hint="it already uses more than that")
    if error.errno in {_EINVAL, _ERANGE}:
        return InvalidArgument(message)
    return Unavailable(message)

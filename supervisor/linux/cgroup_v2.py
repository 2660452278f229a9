"""cgroup v2: one tree. What needs no controller stands in :class:`Tree`, which hybrid hosts use as well.

Words: the *trunk* is the group we grow our tree in (a service systemd delegated to us, or the top of what we see); our
tree is one group below it. Rules: a group with controllers for its children holds no processes, so those in a trunk
that is not the real root (inside another's container, say) are moved to a leaf beside our tree first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from supervisor.errors import NotFound, Unavailable
from supervisor.linux import cgroup_files as files
from supervisor.linux import device_filter, pressure, syscall
from supervisor.linux.cgroup_details import details_v2
from supervisor.linux.cgroup_model import (
    NO_LIMITS,
    UNLIMITED,
    Ability,
    CgroupDetails,
    CgroupLimits,
    CgroupPressure,
    CgroupSample,
    Room,
    bfq_of_weight,
    checked,
    refusal,
)
from supervisor.linux.cgroup_unit import delegated

CONTROLLERS = ("memory", "io", "cpu", "cpuset", "pids")
DAEMON_LEAF = "daemon"
KILL_ROUNDS_MAX = 100

_WITHOUT = {
    "cpu": "cpu.weight and cpu.max: the cpu controller is not given to us",
    "cpuset": "cpuset: the controller is not given to us",
    "io": "io.weight and io figures: the io controller is not given to us",
    "memory": "memory limits and figures: the memory controller is not given to us",
    "pids": "pids.max: the pids controller is not given to us",
}

_ABILITIES = {
    "cpu": (Ability.CPU,),
    "cpuset": (Ability.CPUSET,),
    "io": (Ability.IO_WEIGHT, Ability.IO_WEIGHT_DEVICE, Ability.IO_RATES),
    "memory": (Ability.MEMORY, Ability.SWAP),
    "pids": (Ability.PIDS,),
}


@attrs.frozen
class Tree:
    """What a v2 tree can do without any controller: hold, list, kill, freeze, tell pressure."""

    top: Path

    def path(self, group: str) -> Path:
        """Where the group is; ``""`` is the tree itself."""
        return self.top / checked(group) if group else self.top

    def make(self, group: str) -> None:
        """The group exists, and those above it up to our top."""
        files.make(self.top)
        here = self.top
        for segment in checked(group).split("/"):
            here /= segment
            files.make(here)

    def kill(self, group: str) -> None:
        """SIGKILL to everything in it: by the kernel since 5.14, else frozen and one by one."""
        here = self.path(group)
        try:
            files.write(here / "cgroup.kill", 1)
        except FileNotFoundError:
            with contextlib.suppress(OSError):  # gone, or too old to freeze
                files.write(here / "cgroup.freeze", 1)
            for _ in range(KILL_ROUNDS_MAX):
                if not files.kill_processes(lambda: files.processes(here)):
                    break
                time.sleep(0.002)
            with contextlib.suppress(OSError):
                files.write(here / "cgroup.freeze", 0)
        except OSError as error:
            if error.errno != errno.ENODEV:  # removed between open and write: nothing is in it
                raise

    def freeze(self, group: str, *, frozen: bool) -> None:
        """Ask for it."""
        files.write(self.path(group) / "cgroup.freeze", int(frozen))

    def frozen(self, group: str) -> bool:
        """Whether all of it stands still."""
        return files.table(self.path(group) / "cgroup.events").get("frozen", 0) == 1

    def pressure(self, group: str) -> CgroupPressure:
        """What its tasks waited for."""
        here = self.path(group)
        return CgroupPressure(
            cpu=pressure.read(here / "cpu.pressure"),
            memory=pressure.read(here / "memory.pressure"),
            io=pressure.read(here / "io.pressure"),
        )


@attrs.frozen
class CgroupsV2:
    """A pure v2 host.

    Attributes:
        trunk: Directory of the group given to us.
        tree: Our own groups.
        root: Path of our tree below the mount.
        lacks: See ``Cgroups``.
        leaf: Where the trunk's own processes go, beside our tree.
    """

    trunk: Path
    tree: Tree
    root: str
    lacks: tuple[str, ...]
    leaf: str = DAEMON_LEAF
    kind: str = "v2"

    @property
    def abilities(self) -> frozenset[Ability]:
        """See ``Cgroups``."""
        has = files.text(self.trunk / "cgroup.controllers").split()
        return frozenset(
            ability
            for name, abilities in _ABILITIES.items()
            if name in has
            for ability in abilities
        )

    def room(self) -> Room | None:
        """See ``Cgroups``: of the unit we grow in, and its slices; the topmost group of all has no such files."""
        found: list[Room] = []
        here = self.trunk
        while (here / "memory.max").exists():
            bounds = [files.limit(here / name) for name in ("memory.max", "memory.high")]
            bytes_max = min((bound for bound in bounds if bound is not None), default=None)
            if bytes_max is not None:
                idle = files.table(here / "memory.stat").get("inactive_file", 0)
                used = files.number(here / "memory.current") - idle
                found.append(Room(bytes_max, max(bytes_max - max(used, 0), 0)))
            here = here.parent
        return min(found, key=lambda room: room.available_bytes, default=None)

    @property
    def confines_devices(self) -> bool:
        """See ``Cgroups``; by a program that the kernel must know how to run."""
        try:
            os.close(syscall.load_device_program(device_filter.program(())))
        except OSError:
            return False
        return True

    def confine_devices(self, group: str, rules: Sequence[str]) -> None:
        """See ``Cgroups``."""
        opened: list[int] = []
        try:
            opened.append(
                os.open(self.tree.path(group), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            )
            opened.append(syscall.load_device_program(device_filter.program(rules)))
            syscall.attach_device_program(*opened)
        except OSError as error:
            if self.confines_devices:
                raise refusal("confine", group, error) from error
        finally:
            for fd in opened:
                os.close(fd)

    def create(self, group: str, limits: CgroupLimits = NO_LIMITS) -> None:
        """See ``Cgroups``."""
        checked(group)
        try:
            files.make(self.tree.top)
            above = [self.trunk, self.tree.top]
            for segment in group.split("/")[:-1]:
                above.append(above[-1] / segment)
            for directory in above:
                files.make(directory)
                self._enable(directory)
            files.make(above[-1] / group.rpartition("/")[2])
        except OSError as error:
            raise refusal("create", group, error) from error
        self.limit(group, limits)

    def limit(self, group: str, limits: CgroupLimits) -> None:
        """See ``Cgroups``."""
        here = self.tree.path(group)
        try:
            if not here.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            _limit_cpu(here, limits)
            _limit_memory(here, limits, together="/" in group)
            if limits.pids:
                files.offers(here / "pids.max", _or_max(limits.pids))
            _limit_io(here, limits)
        except OSError as error:
            raise refusal("limit", group, error) from error

    def entry_paths(self, group: str) -> list[str]:
        """See ``Cgroups``."""
        return [str(self.tree.path(group) / "cgroup.procs")]

    def entry_fds(self, group: str) -> list[int]:
        """See ``Cgroups``."""
        try:
            return [os.open(self.entry_paths(group)[0], os.O_WRONLY | os.O_CLOEXEC)]
        except OSError as error:
            raise refusal("enter", group, error) from error

    def runtime_path(self, group: str) -> str:
        """See ``Cgroups``."""
        return f"/{self.root}/{checked(group)}"

    def pids(self, group: str) -> list[int]:
        """See ``Cgroups``."""
        return sorted(files.processes(self.tree.path(group)))

    def kill(self, group: str) -> None:
        """See ``Cgroups``."""
        self.tree.kill(group)

    def freeze(self, group: str, frozen: bool) -> None:
        """See ``Cgroups``."""
        try:
            self.tree.freeze(group, frozen=frozen)
        except OSError as error:
            if self.exists(group):
                raise Unavailable(f"cannot freeze cgroup {group}: {error.strerror}") from error
            raise NotFound(f"cannot freeze cgroup {group}: it is gone") from error

    def frozen(self, group: str) -> bool:
        """See ``Cgroups``."""
        return self.tree.frozen(group)

    def exists(self, group: str) -> bool:
        """See ``Cgroups``."""
        return self.tree.path(group).is_dir()

    def children(self, group: str) -> list[str]:
        """See ``Cgroups``."""
        return files.below(self.tree.path(group))

    def remove(self, group: str) -> bool:
        """See ``Cgroups``."""
        return files.remove(self.tree.path(group))

    def remove_one(self, group: str) -> bool:
        """See ``Cgroups``."""
        return files.remove_one(self.tree.path(group))

    def oom_kills(self, group: str) -> int:
        """See ``Cgroups``."""
        return killed_for_memory(files.table(self.tree.path(group) / "memory.events"))

    def details(self, group: str) -> CgroupDetails:
        """See ``Cgroups``."""
        return details_v2(self.tree.path(group))

    def sample(self, group: str) -> CgroupSample:
        """See ``Cgroups``."""
        here = self.tree.path(group)
        if not here.is_dir():
            raise NotFound(f"cannot sample cgroup {group}: it is gone")
        cpu, memory = files.table(here / "cpu.stat"), files.table(here / "memory.stat")
        disk = io_totals(files.text(here / "io.stat"))
        return CgroupSample(
            time_ns=time.monotonic_ns(),
            cpu_usage_ns=cpu.get("usage_usec", 0) * 1_000,
            cpu_user_ns=cpu.get("user_usec", 0) * 1_000,
            cpu_system_ns=cpu.get("system_usec", 0) * 1_000,
            cpu_periods=cpu.get("nr_periods", 0),
            cpu_throttled_periods=cpu.get("nr_throttled", 0),
            cpu_throttled_ns=cpu.get("throttled_usec", 0) * 1_000,
            memory_bytes=files.number(here / "memory.current"),
            memory_peak_bytes=files.number(here / "memory.peak"),
            memory_limit_bytes=files.limit(here / "memory.max"),
            memory_anon_bytes=memory.get("anon", 0),
            memory_file_bytes=memory.get("file", 0),
            memory_inactive_file_bytes=memory.get("inactive_file", 0),
            pids=files.number(here / "pids.current"),
            pids_limit=files.limit(here / "pids.max"),
            io_read_bytes=disk.get("rbytes", 0),
            io_write_bytes=disk.get("wbytes", 0),
            io_read_ops=disk.get("rios", 0),
            io_write_ops=disk.get("wios", 0),
            oom_kills=self.oom_kills(group),
            pressure=self.tree.pressure(group),
        )

    def _enable(self, directory: Path) -> None:
        """Give its children all the controllers it has; one that the kernel withholds does not cost us the others."""
        has = files.text(directory / "cgroup.controllers").split()
        given = files.text(directory / "cgroup.subtree_control").split()
        wanted = [name for name in CONTROLLERS if name in has and name not in given]
        if wanted and directory == self.trunk:
            self._clear_trunk()
        for controller in wanted:
            with contextlib.suppress(OSError):
                files.write(directory / "cgroup.subtree_control", f"+{controller}")

    def _clear_trunk(self) -> None:
        """Move what sits in the trunk to a leaf, unless it is the real root, the one inner group that may hold processes.

        Before any controller is enabled: the first threaded one (cpu) would be let through, make the trunk the root of
        a threaded subtree, and memory and io could no longer be had.
        """
        if not (self.trunk / "cgroup.type").exists():
            return
        leaf = self.trunk / self.leaf
        files.make(leaf)
        for pid in files.text(self.trunk / "cgroup.procs").split():
            with contextlib.suppress(OSError):  # it has ended, or is a kernel thread
                files.write(leaf / "cgroup.procs", pid)


def trunk_of(mount: Path, own_group: str) -> Path:
    """The group to grow our tree in: the service systemd delegated to us, else the top of what we see.

    A service is taken only if systemd started us in its leaf (``Delegate=yes`` and ``DelegateSubgroup=daemon``, systemd
    254): without one it starts the next daemon in the service's group itself, which the kernel refuses (EBUSY) as long
    as containers of ours live below it.

    Args:
        mount: Where the v2 tree is mounted.
        own_group: Our line of ``/proc/self/cgroup``, e.g. ``/system.slice/bakehouse.service/daemon``.
    """
    own = mount / own_group.lstrip("/")
    return own.parent if own.name == DAEMON_LEAF and delegated(own.parent) else mount


def missing(trunk: Path) -> tuple[str, ...]:
    """What cannot be done under this trunk, in words."""
    has = set(files.text(trunk / "cgroup.controllers").split())
    told = [words for name, words in _WITHOUT.items() if name not in has]
    if (
        "memory" in has
        and not (trunk / "memory.pressure").exists()
        and not Path("/proc/pressure").is_dir()
    ):
        told.append("pressure of groups: the kernel has no PSI (try psi=1 on its command line)")
    return tuple(told)


def killed_for_memory(events: Mapping[str, int]) -> int:
    """How many processes were killed for want of memory, from ``memory.events``.

    Where a group dies whole, the kernel counts the process it chose first twice: alone, and with the group.
    """
    killed = events.get("oom_kill", 0)
    return max(killed - events.get("oom_group_kill", 0), min(killed, 1))


def io_totals(text: str) -> dict[str, int]:
    """The sums over all devices of an ``io.stat`` file."""
    totals: dict[str, int] = {}
    for line in text.splitlines():
        for key, _, value in (pair.partition("=") for pair in line.split()[1:]):
            if value.isdigit():
                totals[key] = totals.get(key, 0) + int(value)
    return totals


def _or_max(value: int) -> str:
    return "max" if value == UNLIMITED else str(value)


def _limit_cpu(here: Path, limits: CgroupLimits) -> None:
    if limits.cpu_weight:
        files.offers(here / "cpu.weight", limits.cpu_weight)
    if limits.cpu_quota_microseconds:
        quota = _or_max(limits.cpu_quota_microseconds)
        files.offers(here / "cpu.max", f"{quota} {limits.cpu_period_microseconds}")
    if limits.cpuset_cpus:
        files.offers(here / "cpuset.cpus", limits.cpuset_cpus)
    if limits.cpuset_mems:
        files.offers(here / "cpuset.mems", limits.cpuset_mems)


def _limit_io(here: Path, limits: CgroupLimits) -> None:
    if limits.io_weight and not files.offers(here / "io.weight", f"default {limits.io_weight}"):
        files.offers(here / "io.bfq.weight", bfq_of_weight(limits.io_weight))
    for device, weight in limits.io_device_weights:
        if not files.offers(here / "io.weight", f"{device} {weight}"):
            files.offers(here / "io.bfq.weight", f"{device} {bfq_of_weight(weight)}")
    for device, rate, most in limits.io_rates:
        if most != UNLIMITED or files.names(here / "io.max", device):
            files.offers(here / "io.max", f"{device} {rate}={_or_max(most)}")


def _limit_memory(here: Path, limits: CgroupLimits, *, together: bool) -> None:
    """Memory files; ``together``: a group with a limit of its own dies whole, never with one process missing."""
    if limits.memory_bytes:
        files.offers(here / "memory.max", _or_max(limits.memory_bytes))
        if together:
            files.offers(here / "memory.oom.group", int(limits.memory_bytes != UNLIMITED))
    if limits.memory_high_bytes:
        files.offers(here / "memory.high", _or_max(limits.memory_high_bytes))
    if limits.memory_reservation_bytes:
        files.offers(here / "memory.low", max(limits.memory_reservation_bytes, 0))
    if limits.memory_swap_bytes:
        memory = limits.memory_bytes or files.limit(here / "memory.max")
        unlimited = UNLIMITED in {limits.memory_swap_bytes, memory} or memory is None
        swap = (
            UNLIMITED if unlimited or memory is None else max(limits.memory_swap_bytes - memory, 0)
        )
        files.offers(here / "memory.swap.max", _or_max(swap))

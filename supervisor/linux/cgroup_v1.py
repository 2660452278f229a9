"""cgroup v1, alone or beside a v2 tree without controllers (hybrid).

Words: a *hierarchy* is one mounted v1 tree, with one controller or several. Rules: a group is the same path in every
hierarchy and, on a hybrid host, in the v2 tree too, which gives what v1 cannot: pressure, a kill that no fork escapes,
a freezer in which SIGKILL works. v1 has no delegation to speak of: our tree grows at the top of each hierarchy.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

from supervisor.errors import NotFound, Unavailable
from supervisor.linux import cgroup_files as files
from supervisor.linux.cgroup_details import details_v1
from supervisor.linux.cgroup_model import (
    NO_LIMITS,
    UNLIMITED,
    Ability,
    CgroupDetails,
    CgroupLimits,
    CgroupPressure,
    CgroupSample,
    Rate,
    Room,
    bfq_of_weight,
    blkio_of_weight,
    checked,
    refusal,
    shares_of_weight,
)
from supervisor.linux.cgroup_v2 import KILL_ROUNDS_MAX, Tree

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
FREEZE_POLLS_MAX = 50

_ABILITIES = (
    (Ability.MEMORY, "memory", ("memory.limit_in_bytes",)),
    (Ability.SWAP, "memory", ("memory.memsw.limit_in_bytes",)),
    (Ability.SWAPPINESS, "memory", ("memory.swappiness",)),
    (Ability.OOM_KILL_DISABLE, "memory", ("memory.oom_control",)),
    (Ability.CPU, "cpu", ("cpu.shares",)),
    (Ability.CPUSET, "cpuset", ("cpuset.cpus",)),
    (Ability.PIDS, "pids", ("cgroup.procs",)),
    (Ability.IO_WEIGHT, "blkio", ("blkio.weight", "blkio.bfq.weight")),
    (Ability.IO_WEIGHT_DEVICE, "blkio", ("blkio.weight_device", "blkio.bfq.weight_device")),
    (Ability.IO_RATES, "blkio", ("blkio.throttle.read_bps_device",)),
)
"""By the files of the controller's topmost group."""

_RATE_FILES = {
    Rate.READ_BYTES: "blkio.throttle.read_bps_device",
    Rate.WRITE_BYTES: "blkio.throttle.write_bps_device",
    Rate.READ_OPERATIONS: "blkio.throttle.read_iops_device",
    Rate.WRITE_OPERATIONS: "blkio.throttle.write_iops_device",
}


@attrs.frozen
class CgroupsV1:
    """A v1 or hybrid host.

    Attributes:
        controllers: Each controller's mount.
        root: Name of our tree, the same in all.
        lacks: See ``Cgroups``.
        tree: Our groups in the v2 tree of a hybrid host.
        named: Hierarchies that we make no groups in, but runtimes do; what they left there is removed with ours.
    """

    controllers: Mapping[str, Path]
    root: str
    lacks: tuple[str, ...]
    tree: Tree | None = None
    named: tuple[Path, ...] = ()

    @property
    def abilities(self) -> frozenset[Ability]:
        """See ``Cgroups``."""
        return frozenset(
            ability
            for ability, controller, names in _ABILITIES
            if (place := self.controllers.get(controller))
            and any((place / name).exists() for name in names)
        )

    @property
    def kind(self) -> str:
        """``v1`` or ``hybrid``."""
        return "hybrid" if self.tree else "v1"

    def room(self) -> Room | None:
        """See ``Cgroups``: our tree stands at the top."""
        return None

    @property
    def confines_devices(self) -> bool:
        """See ``Cgroups``."""
        return "devices" in self.controllers

    def confine_devices(self, group: str, rules: Sequence[str]) -> None:
        """See ``Cgroups``."""
        devices = self._path("devices", group)
        if devices is None:
            return
        try:
            files.write(devices / "devices.deny", "a")
            for rule in rules:
                files.write(devices / "devices.allow", rule)
        except OSError as error:
            raise refusal("confine", group, error) from error

    def create(self, group: str, limits: CgroupLimits = NO_LIMITS) -> None:
        """See ``Cgroups``."""
        checked(group)
        try:
            for mount in self._mounts():
                self._make(mount, group)
            if self.tree:
                self.tree.make(group)
        except OSError as error:
            raise refusal("create", group, error) from error
        self.limit(group, limits)

    def limit(self, group: str, limits: CgroupLimits) -> None:
        """See ``Cgroups``."""
        try:
            for here in self._paths(group):
                if not here.is_dir():
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._limit_cpu(group, limits)
            self._limit_memory(group, limits)
            if limits.pids and (pids := self._path("pids", group)):
                files.write(pids / "pids.max", "max" if limits.pids == UNLIMITED else limits.pids)
            self._limit_io(group, limits)
        except OSError as error:
            raise refusal("limit", group, error) from error

    def entry_paths(self, group: str) -> list[str]:
        """See ``Cgroups``."""
        return [str(here / "cgroup.procs") for here in self._paths(group)]

    def entry_fds(self, group: str) -> list[int]:
        """See ``Cgroups``."""
        opened: list[int] = []
        try:
            for path in self.entry_paths(group):
                opened.append(os.open(path, os.O_WRONLY | os.O_CLOEXEC))  # noqa: PERF401 - kept for closing
        except OSError as error:
            for fd in opened:
                os.close(fd)
            raise refusal("enter", group, error) from error
        return opened

    def runtime_path(self, group: str) -> str:
        """See ``Cgroups``."""
        return f"/{self.root}/{checked(group)}"

    def pids(self, group: str) -> list[int]:
        """See ``Cgroups``."""
        return sorted(self._members(group))

    def kill(self, group: str) -> None:
        """See ``Cgroups``."""
        freezer = self._path("freezer", group)
        if self.tree:
            self.tree.kill(group)
            if freezer:  # v1's freezer holds even SIGKILL back
                _thaw(freezer)
        elif freezer:
            _freeze_and_wait(freezer)
            files.kill_processes(lambda: self._members(group))
            _thaw(freezer)
        for _ in range(KILL_ROUNDS_MAX):
            if not files.kill_processes(lambda: self._members(group)):
                break
            time.sleep(0.002)

    def freeze(self, group: str, frozen: bool) -> None:
        """See ``Cgroups``."""
        if not self.exists(group):
            raise NotFound(f"cannot freeze cgroup {group}: it is gone")
        freezer = self._path("freezer", group)
        try:
            if self.tree:
                self.tree.freeze(group, frozen=frozen)
            elif freezer:
                files.write(freezer / "freezer.state", "FROZEN" if frozen else "THAWED")
            else:
                raise Unavailable(f"cannot freeze cgroup {group}: this host has no freezer")
        except OSError as error:
            raise refusal("freeze", group, error) from error

    def frozen(self, group: str) -> bool:
        """See ``Cgroups``."""
        if self.tree:
            return self.tree.frozen(group)
        freezer = self._path("freezer", group)
        return freezer is not None and files.text(freezer / "freezer.state").strip() == "FROZEN"

    def exists(self, group: str) -> bool:
        """See ``Cgroups``."""
        return any(here.is_dir() for here in self._paths(group))

    def children(self, group: str) -> list[str]:
        """See ``Cgroups``."""
        return sorted({name for here in self._paths(group) for name in files.below(here)})

    def remove(self, group: str) -> bool:
        """See ``Cgroups``."""
        strays = [mount / self.root / group for mount in self.named]
        gone = [files.remove(here) for here in (*self._paths(group), *strays)]
        return all(gone)

    def remove_one(self, group: str) -> bool:
        """See ``Cgroups``."""
        return all(files.remove_one(here) for here in self._paths(group))

    def oom_kills(self, group: str) -> int:
        """See ``Cgroups``; v1 counts in each group for itself."""
        memory = self._path("memory", group)
        if memory is None:
            return 0
        return sum(
            files.table(here / "memory.oom_control").get("oom_kill", 0)
            for here in files.walk(memory)
        )

    def details(self, group: str) -> CgroupDetails:
        """See ``Cgroups``."""
        return details_v1(
            self._path("memory", group), self._path("cpuacct", group), self._path("blkio", group)
        )

    def sample(self, group: str) -> CgroupSample:
        """See ``Cgroups``."""
        if not self.exists(group):
            raise NotFound(f"cannot sample cgroup {group}: it is gone")
        nowhere = Path("/nonexistent")
        cpu = self._path("cpu", group) or nowhere
        used = self._path("cpuacct", group) or nowhere
        memory = self._path("memory", group) or nowhere
        pids = self._path("pids", group) or nowhere
        throttled, stat = files.table(cpu / "cpu.stat"), files.table(memory / "memory.stat")
        disk = _blkio(self._path("blkio", group) or nowhere)
        return CgroupSample(
            time_ns=time.monotonic_ns(),
            cpu_usage_ns=files.number(used / "cpuacct.usage"),
            cpu_user_ns=files.number(used / "cpuacct.usage_user"),
            cpu_system_ns=files.number(used / "cpuacct.usage_sys"),
            cpu_periods=throttled.get("nr_periods", 0),
            cpu_throttled_periods=throttled.get("nr_throttled", 0),
            cpu_throttled_ns=throttled.get("throttled_time", 0),
            memory_bytes=files.number(memory / "memory.usage_in_bytes"),
            memory_peak_bytes=files.number(memory / "memory.max_usage_in_bytes"),
            memory_limit_bytes=files.limit(memory / "memory.limit_in_bytes"),
            memory_anon_bytes=stat.get("total_rss", 0),
            memory_file_bytes=stat.get("total_cache", 0),
            memory_inactive_file_bytes=stat.get("total_inactive_file", 0),
            pids=files.number(pids / "pids.current"),
            pids_limit=files.limit(pids / "pids.max"),
            io_read_bytes=disk["bytes", "Read"],
            io_write_bytes=disk["bytes", "Write"],
            io_read_ops=disk["ops", "Read"],
            io_write_ops=disk["ops", "Write"],
            oom_kills=self.oom_kills(group),
            pressure=self.tree.pressure(group) if self.tree else CgroupPressure(),
        )

    def _mounts(self) -> list[Path]:
        """Each hierarchy once, also when it has several controllers."""
        return list(dict.fromkeys(self.controllers.values()))

    def _paths(self, group: str) -> list[Path]:
        if group:
            checked(group)
        paths = [mount / self.root / group for mount in self._mounts()]
        return [*paths, self.tree.path(group)] if self.tree else paths

    def _path(self, controller: str, group: str) -> Path | None:
        mount = self.controllers.get(controller)
        if mount is None:
            return None
        return mount / self.root / checked(group) if group else mount / self.root

    def _members(self, group: str) -> set[int]:
        """In any hierarchy: one that is just entering is in some and not yet in others."""
        return {pid for here in self._paths(group) for pid in files.processes(here)}

    def _make(self, mount: Path, group: str) -> None:
        here = mount
        for segment in (self.root, *group.split("/")):
            above, here = here, here / segment
            if files.make(here) and mount == self.controllers.get("memory"):
                with contextlib.suppress(
                    OSError
                ):  # the default since 5.11, and not to be changed there
                    files.write(here / "memory.use_hierarchy", 1)
            if mount == self.controllers.get("cpuset"):
                _inherit_cpuset(above, here)

    def _limit_cpu(self, group: str, limits: CgroupLimits) -> None:
        if cpu := self._path("cpu", group):
            if limits.cpu_weight:
                files.write(cpu / "cpu.shares", shares_of_weight(limits.cpu_weight))
            if limits.cpu_quota_microseconds:
                _limit_quota(cpu, limits.cpu_quota_microseconds, limits.cpu_period_microseconds)
        if cpuset := self._path("cpuset", group):
            if limits.cpuset_cpus:
                files.write(cpuset / "cpuset.cpus", limits.cpuset_cpus)
            if limits.cpuset_mems:
                files.write(cpuset / "cpuset.mems", limits.cpuset_mems)

    def _limit_io(self, group: str, limits: CgroupLimits) -> None:
        blkio = self._path("blkio", group)
        if blkio is None:
            return
        for device, rate, most in limits.io_rates:
            path = blkio / _RATE_FILES[rate]
            if most != UNLIMITED or files.names(path, device):
                files.offers(path, f"{device} {max(most, 0)}")
        for device, weight in limits.io_device_weights:
            line = f"{device} {blkio_of_weight(weight)}"
            if not files.offers(blkio / "blkio.weight_device", line):
                files.offers(blkio / "blkio.bfq.weight_device", f"{device} {bfq_of_weight(weight)}")
        if limits.io_weight and not files.offers(
            blkio / "blkio.weight", blkio_of_weight(limits.io_weight)
        ):
            files.offers(blkio / "blkio.bfq.weight", bfq_of_weight(limits.io_weight))

    def _limit_memory(self, group: str, limits: CgroupLimits) -> None:
        memory = self._path("memory", group)
        if memory is None:
            return
        hard, both = memory / "memory.limit_in_bytes", memory / "memory.memsw.limit_in_bytes"
        wanted = [(hard, limits.memory_bytes), (both, limits.memory_swap_bytes)]
        if _raises(
            both, limits.memory_swap_bytes
        ):  # the kernel wants memory <= memory and swap at every moment
            wanted.reverse()
        for path, value in wanted:
            if value:
                files.offers(path, value)
        if limits.swappiness is not None:
            files.offers(memory / "memory.swappiness", limits.swappiness)
        if limits.oom_kill_disable:
            files.offers(memory / "memory.oom_control", 1)
        if soft := limits.memory_high_bytes or limits.memory_reservation_bytes:
            files.write(memory / "memory.soft_limit_in_bytes", soft)


def missing(controllers: Mapping[str, Path], tree: Tree | None) -> tuple[str, ...]:
    """What such a host cannot do, in words."""
    told = [
        f"{name}: no such cgroup v1 controller is mounted"
        for name in CONTROLLERS
        if name not in controllers
    ]
    told.append("memory.high: cgroup v1 has none; memory.soft_limit is used")
    told.append("memory.oom.group: cgroup v1 has none; one process dies, not the whole container")
    if (
        "memory" in controllers
        and not (controllers["memory"] / "memory.memsw.limit_in_bytes").exists()
    ):
        told.append(
            "swap limits: the kernel does not count swap (try swapaccount=1 on its command line)"
        )
    if "blkio" in controllers and not any(
        (controllers["blkio"] / name).exists()
        for name in ("blkio.weight_device", "blkio.bfq.weight_device", "blkio.bfq.weight")
    ):
        told.append("io weights: no scheduler of this host's disks has them")
    if tree is None:
        told.append("pressure of groups: cgroup v1 does not tell; only the host's is known")
        told.append("cgroup.kill: cgroup v1 has none; groups are frozen and killed one by one")
    return tuple(told)


def _inherit_cpuset(above: Path, here: Path) -> None:
    """A new v1 cpuset is empty, and nothing can enter it: give it its parent's."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if not files.text(here / name).strip():
            files.write(here / name, files.text(above / name).strip())


def _limit_quota(cpu: Path, quota: int, period: int) -> None:
    """Lift the quota first: a period is refused while the ratio it makes would exceed the parent's.

    So is a quota while a child's is larger; such a child is bounded by its parent alone from now on.
    """
    files.write(cpu / "cpu.cfs_quota_us", UNLIMITED)
    if quota != UNLIMITED:
        for below in files.walk(cpu):
            own = files.number(below / "cpu.cfs_quota_us")
            if own * period > quota * files.number(below / "cpu.cfs_period_us"):
                files.offers(below / "cpu.cfs_quota_us", UNLIMITED)
        files.write(cpu / "cpu.cfs_period_us", period)
        files.write(cpu / "cpu.cfs_quota_us", quota)


def _raises(path: Path, value: int | None) -> bool:
    """Whether ``value`` is above the limit in the file."""
    if not value or not path.exists():
        return False
    now = files.limit(path)
    return now is not None and (value == UNLIMITED or value > now)


def _freeze_and_wait(freezer: Path) -> None:
    """Frozen, or as far as it gets in a tenth of a second: what is in the kernel may take longer."""
    with contextlib.suppress(OSError):
        files.write(freezer / "freezer.state", "FROZEN")
        for _ in range(FREEZE_POLLS_MAX):
            if files.text(freezer / "freezer.state").strip() != "FREEZING":
                return
            time.sleep(0.002)


def _thaw(freezer: Path) -> None:
    for here in files.walk(freezer):
        with contextlib.suppress(OSError):
            files.write(here / "freezer.state", "THAWED")


def _blkio(here: Path) -> Mapping[tuple[str, str], int]:
    """Bytes and operations read and written, of the group and all below, over all devices."""
    totals = {(kind, way): 0 for kind in ("bytes", "ops") for way in ("Read", "Write")}
    for kind, name in (("bytes", "io_service_bytes"), ("ops", "io_serviced")):
        for way, count in _blkio_lines(files.text(here / f"blkio.throttle.{name}_recursive")):
            if (kind, way) in totals:
                totals[kind, way] += count
    return totals


def _blkio_lines(text: str) -> Iterator[tuple[str, int]]:
    """``major:minor way count`` lines; the total at the end has no device."""
    for line in text.splitlines():
        match line.split():
            case [_, way, count] if count.isdigit():
                yield way, int(count)
            case _:
                continue

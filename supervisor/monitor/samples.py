"""From the kernel's counters to rates; pure but for :func:`read_host` and :func:`read_groups`, which look.

Words: a *reading* is the counters at one moment; a *sample* is what two readings tell, as it goes over the wire.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path

import attrs

from protocol.samples import ContainerSample, HostSample, OwnerSample, Usage, Waiting
from supervisor import clock
from supervisor.errors import NotFound
from supervisor.linux import pressure
from supervisor.linux.cgroup import CgroupPressure, Cgroups, CgroupSample, Room
from supervisor.linux.pressure import Pressure

NANOSECONDS = 1_000_000_000
CPU_FIELDS = 8  # user to steal; guest time is in user's already
IDLE_FIELDS = (3, 4)  # idle and iowait
KIBIBYTE = 1_024


@attrs.frozen
class Who:
    """Whose a group is. A build has no container id; its name says what it is."""

    owner: int
    container_id: str
    name: str


@attrs.frozen
class HostReading:
    """The host's counters.

    Attributes:
        time_ns: Monotonic, for rates; ``wall_ns`` is the time of day.
        cpu_total_ns: All processors' time since boot, idle time included, as Docker's ``system_cpu_usage``.
        cpu_busy_ns: The part not idle.
    """

    time_ns: int
    wall_ns: int
    processors: int
    cpu_total_ns: int
    cpu_busy_ns: int
    load1: float = 0.0
    load5: float = 0.0
    load15: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0
    pressure: CgroupPressure = attrs.field(factory=CgroupPressure)


@attrs.frozen
class GroupSample:
    """One group, with what Docker's stats put beside it.

    Attributes:
        cgroup: Its counters.
        system_cpu_ns: See ``HostReading.cpu_total_ns``.
        wall_ns: Time of day.
    """

    cgroup: CgroupSample
    system_cpu_ns: int
    processors: int
    memory_total_bytes: int
    wall_ns: int


@attrs.frozen
class Reading:
    """One look at everything; ``groups`` holds owners' groups as well as containers'."""

    host: HostReading
    groups: Mapping[str, CgroupSample] = attrs.field(factory=dict)
    census: Mapping[str, Who] = attrs.field(factory=dict)

    def group(self, name: str) -> GroupSample | None:
        """One group's counters, with what Docker's stats put beside them; ``None`` if it was not seen."""
        seen = self.groups.get(name)
        return None if seen is None else beside(self.host, seen)


def beside(host: HostReading, cgroup: CgroupSample) -> GroupSample:
    """A group's counters, with what Docker's stats put beside them."""
    return GroupSample(
        cgroup=cgroup,
        system_cpu_ns=host.cpu_total_ns,
        processors=host.processors,
        memory_total_bytes=host.memory_total_bytes,
        wall_ns=host.wall_ns,
    )


def read_host(proc: Path = Path("/proc")) -> HostReading:
    """Look at the host."""
    ticks, processors = parse_stat((proc / "stat").read_text())
    memory = parse_meminfo((proc / "meminfo").read_text())
    load = [float(word) for word in (proc / "loadavg").read_text().split()[:3]]
    nanoseconds_per_tick = NANOSECONDS // os.sysconf("SC_CLK_TCK")
    return HostReading(
        time_ns=time.monotonic_ns(),
        wall_ns=clock.now_ns(),
        processors=processors,
        cpu_total_ns=sum(ticks) * nanoseconds_per_tick,
        cpu_busy_ns=(sum(ticks) - sum(ticks[index] for index in IDLE_FIELDS))
        * nanoseconds_per_tick,
        load1=load[0],
        load5=load[1],
        load15=load[2],
        memory_total_bytes=memory.get("MemTotal", 0),
        memory_available_bytes=memory.get("MemAvailable", memory.get("MemFree", 0)),
        swap_total_bytes=memory.get("SwapTotal", 0),
        swap_free_bytes=memory.get("SwapFree", 0),
        pressure=CgroupPressure(
            cpu=pressure.read(proc / "pressure/cpu"),
            memory=pressure.read(proc / "pressure/memory"),
            io=pressure.read(proc / "pressure/io"),
        ),
    )


def within(host: HostReading, room: Room | None) -> HostReading:
    """The host as far as it is ours: a bound above all groups counts as the host's memory; pure."""
    if room is None or room.bytes_max >= host.memory_total_bytes > 0:
        return host
    return attrs.evolve(
        host,
        memory_total_bytes=room.bytes_max,
        memory_available_bytes=min(host.memory_available_bytes, room.available_bytes),
    )


def read_groups(cgroups: Cgroups, census: Mapping[str, Who]) -> dict[str, CgroupSample]:
    """Look at each group of the census and at its owner's. One that has just gone is left out."""
    found: dict[str, CgroupSample] = {}
    for group in dict.fromkeys([*map(owner_group, census), *census]):
        try:
            found[group] = cgroups.sample(group)
        except NotFound:
            continue
    return found


def owner_group(group: str) -> str:
    """The group of all that its owner runs: the first segment."""
    return group.partition("/")[0]


def parse_stat(text: str) -> tuple[list[int], int]:
    """Ticks of all processors by kind, and the number of processors, from ``/proc/stat``."""
    ticks: list[int] = [0] * CPU_FIELDS
    processors = 0
    for line in text.splitlines():
        name, *words = line.split()
        if name == "cpu":
            ticks = [int(word) for word in words[:CPU_FIELDS]]
        elif name.startswith("cpu"):
            processors += 1
    return ticks, max(processors, 1)


def parse_meminfo(text: str) -> dict[str, int]:
    """Bytes by name, from ``/proc/meminfo``."""
    found: dict[str, int] = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * (KIBIBYTE if words[1:] == ["kB"] else 1)
    return found


def host_sample(
    before: Reading | None, now: Reading, verdict: str, reason: str, tickets: Waiting
) -> HostSample:
    """What two readings tell. Without an earlier one all rates are 0."""
    host, earlier = now.host, before.host if before else now.host
    seconds = (host.time_ns - earlier.time_ns) / NANOSECONDS
    stalled = host.pressure
    return HostSample(
        time_ns=host.wall_ns,
        seconds=seconds,
        processors=host.processors,
        cpu_cores=_rate(earlier.cpu_busy_ns, host.cpu_busy_ns, seconds) / NANOSECONDS,
        load1=host.load1,
        load5=host.load5,
        load15=host.load15,
        memory_total_bytes=host.memory_total_bytes,
        memory_available_bytes=host.memory_available_bytes,
        swap_total_bytes=host.swap_total_bytes,
        swap_free_bytes=host.swap_free_bytes,
        cpu_some_percent=some_percent(stalled.cpu),
        memory_some_percent=some_percent(stalled.memory),
        memory_full_percent=full_percent(stalled.memory),
        io_some_percent=some_percent(stalled.io),
        io_full_percent=full_percent(stalled.io),
        verdict=verdict,
        reason=reason,
        tickets=tickets,
        owners=_owners(before, now),
        containers=_containers(before, now),
    )


def usage(before: CgroupSample | None, now: CgroupSample) -> Usage:
    """What one group uses. Counters that went back (a group made anew) count as no rate."""
    earlier = before or now
    seconds = (now.time_ns - earlier.time_ns) / NANOSECONDS
    periods = now.cpu_periods - earlier.cpu_periods
    throttled = now.cpu_throttled_periods - earlier.cpu_throttled_periods
    return Usage(
        cpu_cores=_rate(earlier.cpu_usage_ns, now.cpu_usage_ns, seconds) / NANOSECONDS,
        cpu_throttled_percent=100.0 * throttled / periods if periods > 0 and throttled > 0 else 0.0,
        memory_bytes=max(now.memory_bytes - now.memory_inactive_file_bytes, 0),
        memory_peak_bytes=now.memory_peak_bytes,
        memory_limit_bytes=now.memory_limit_bytes,
        pids=now.pids,
        pids_limit=now.pids_limit,
        io_read_bytes_per_second=_rate(earlier.io_read_bytes, now.io_read_bytes, seconds),
        io_write_bytes_per_second=_rate(earlier.io_write_bytes, now.io_write_bytes, seconds),
        oom_kills=now.oom_kills,
        cpu_some_percent=some_percent(now.pressure.cpu),
        memory_full_percent=full_percent(now.pressure.memory),
        io_full_percent=full_percent(now.pressure.io),
    )


def some_percent(stalled: Pressure | None) -> float | None:
    """Percent of time in which something waited."""
    return None if stalled is None else stalled.some_avg10


def full_percent(stalled: Pressure | None) -> float | None:
    """Percent of time in which everything waited."""
    return None if stalled is None else stalled.full_avg10


def _rate(before: int, now: int, seconds: float) -> float:
    return (now - before) / seconds if seconds > 0 and now > before else 0.0


def _containers(before: Reading | None, now: Reading) -> tuple[ContainerSample, ...]:
    made = [
        ContainerSample(who.container_id, who.name, who.owner, _usage_of(group, before, now))
        for group, who in now.census.items()
        if group in now.groups
    ]
    return tuple(sorted(made, key=lambda each: (each.owner, each.name)))


def _owners(before: Reading | None, now: Reading) -> tuple[OwnerSample, ...]:
    groups = {who.owner: owner_group(group) for group, who in now.census.items()}
    running = [
        who.owner for group, who in now.census.items() if who.container_id and group in now.groups
    ]
    return tuple(
        OwnerSample(owner, running.count(owner), _usage_of(group, before, now))
        for owner, group in sorted(groups.items())
        if group in now.groups
    )


def _usage_of(group: str, before: Reading | None, now: Reading) -> Usage:
    return usage(before.groups.get(group) if before else None, now.groups[group])

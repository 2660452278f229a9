"""Samples of a container's cgroup as Docker's stats. Pure.

What a kernel does not count is 0, as dockerd has it; clients compute percentages from two of these (``precpu_stats``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from attrs import frozen

from supervisor.api.http import JsonObject
from supervisor.clock import rfc3339

if TYPE_CHECKING:
    from supervisor.linux.cgroup_model import CgroupDetails, CgroupSample, DeviceUse
    from supervisor.monitor.samples import GroupSample

NEVER = "0001-01-01T00:00:00Z"


@frozen
class Seen:
    """One look at a container that runs."""

    sample: GroupSample
    details: CgroupDetails


def stats(
    container_id: str,
    name: str,
    now: Seen | None,
    before: Seen | None,
    networks: Mapping[str, JsonObject],
) -> JsonObject:
    """``GET /containers/{id}/stats``.

    Args:
        container_id: Full.
        name: Without the slash.
        now: None when the container does not run.
        before: The look before, if there was one.
        networks: Counters by interface.
    """
    whole: JsonObject = {
        "read": rfc3339(now.sample.wall_ns) if now else NEVER,
        "preread": rfc3339(before.sample.wall_ns) if before else NEVER,
        "pids_stats": _pids(now.sample.cgroup) if now else {},
        "blkio_stats": _blkio(now.details if now else None),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(now),
        "precpu_stats": _cpu(before),
        "memory_stats": _memory(now) if now else {},
        "name": f"/{name}",
        "id": container_id,
    }
    if networks:
        whole["networks"] = dict(networks)
    return whole


def _pids(sample: CgroupSample) -> JsonObject:
    whole: JsonObject = {"current": sample.pids}
    return whole | ({"limit": sample.pids_limit} if sample.pids_limit else {})


def _cpu(seen: Seen | None) -> JsonObject:
    cgroup = seen.sample.cgroup if seen else None
    usage: JsonObject = {
        "total_usage": cgroup.cpu_usage_ns if cgroup else 0,
        "usage_in_kernelmode": cgroup.cpu_system_ns if cgroup else 0,
        "usage_in_usermode": cgroup.cpu_user_ns if cgroup else 0,
    }
    if seen and seen.details.processors_ns:
        usage["percpu_usage"] = list(seen.details.processors_ns)
    whole: JsonObject = {
        "cpu_usage": usage,
        "throttling_data": {
            "periods": cgroup.cpu_periods if cgroup else 0,
            "throttled_periods": cgroup.cpu_throttled_periods if cgroup else 0,
            "throttled_time": cgroup.cpu_throttled_ns if cgroup else 0,
        },
    }
    if seen:
        whole |= {
            "system_cpu_usage": seen.sample.system_cpu_ns,
            "online_cpus": seen.sample.processors,
        }
    return whole


def _memory(seen: Seen) -> JsonObject:
    """The kernel's own names: v1's and v2's differ, and clients know which they get by what is there."""
    cgroup = seen.sample.cgroup
    whole: JsonObject = {
        "usage": cgroup.memory_bytes,
        "limit": cgroup.memory_limit_bytes or seen.sample.memory_total_bytes,
        "stats": dict(seen.details.memory),
    }
    if cgroup.memory_peak_bytes:
        whole["max_usage"] = cgroup.memory_peak_bytes
    if seen.details.memory_failures:
        whole["failcnt"] = seen.details.memory_failures
    return whole


def _blkio(details: CgroupDetails | None) -> JsonObject:
    told: dict[str, Sequence[DeviceUse]] = {}
    if details:
        told = {
            "io_service_bytes_recursive": details.bytes,
            "io_serviced_recursive": details.operations,
        }
    return {
        name: [
            {"major": use.major, "minor": use.minor, "op": use.way, "value": use.amount}
            for use in told.get(name, ())
        ]
        if details
        else None
        for name in _BLKIO
    }


_BLKIO = (
    "io_service_bytes_recursive",
    "io_serviced_recursive",
    "io_queue_recursive",
    "io_service_time_recursive",
    "io_wait_time_recursive",
    "io_merged_recursive",
    "io_time_recursive",
    "sectors_recursive",
)

"""Samples of a container's cgroup as Docker's stats. Pure.

What a kernel does not count is 0, as dockerd has it; clients compute percentages from two of these (``precpu_stats``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from supervisor.api.http import JsonObject
from supervisor.clock import rfc3339

if TYPE_CHECKING:
    from supervisor.linux.cgroup import CgroupSample
    from supervisor.monitor.samples import GroupSample

NEVER = "0001-01-01T00:00:00Z"


def stats(
    container_id: str,
    name: str,
    now: GroupSample | None,
    before: GroupSample | None,
    networks: Mapping[str, JsonObject],
) -> JsonObject:
    """``GET /containers/{id}/stats``.

    Args:
        container_id: Full.
        name: Without the slash.
        now: None when the container does not run.
        before: The sample before, if there was one.
        networks: Counters by interface.
    """
    whole: JsonObject = {
        "read": rfc3339(now.wall_ns) if now else NEVER,
        "preread": rfc3339(before.wall_ns) if before else NEVER,
        "pids_stats": _pids(now.cgroup) if now else {},
        "blkio_stats": _blkio(now.cgroup if now else None),
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


def _cpu(sample: GroupSample | None) -> JsonObject:
    cgroup = sample.cgroup if sample else None
    whole: JsonObject = {
        "cpu_usage": {
            "total_usage": cgroup.cpu_usage_ns if cgroup else 0,
            "usage_in_kernelmode": cgroup.cpu_system_ns if cgroup else 0,
            "usage_in_usermode": cgroup.cpu_user_ns if cgroup else 0,
        },
        "throttling_data": {
            "periods": cgroup.cpu_periods if cgroup else 0,
            "throttled_periods": cgroup.cpu_throttled_periods if cgroup else 0,
            "throttled_time": cgroup.cpu_throttled_ns if cgroup else 0,
        },
    }
    if sample:
        whole |= {"system_cpu_usage": sample.system_cpu_ns, "online_cpus": sample.processors}
    return whole


def _memory(sample: GroupSample) -> JsonObject:
    """With both the v2 and the v1 name of what clients subtract from the usage."""
    cgroup = sample.cgroup
    return {
        "usage": cgroup.memory_bytes,
        "max_usage": cgroup.memory_peak_bytes or 0,
        "limit": cgroup.memory_limit_bytes or sample.memory_total_bytes,
        "failcnt": 0,
        "stats": {
            "anon": cgroup.memory_anon_bytes,
            "file": cgroup.memory_file_bytes,
            "inactive_file": cgroup.memory_inactive_file_bytes,
            "total_inactive_file": cgroup.memory_inactive_file_bytes,
        },
    }


def _blkio(sample: CgroupSample | None) -> JsonObject:
    entries: list[JsonObject] = []
    if sample:
        entries = [
            {"major": 0, "minor": 0, "op": "read", "value": sample.io_read_bytes},
            {"major": 0, "minor": 0, "op": "write", "value": sample.io_write_bytes},
        ]
    empty = dict.fromkeys(
        (
            "io_serviced_recursive",
            "io_queue_recursive",
            "io_service_time_recursive",
            "io_wait_time_recursive",
            "io_merged_recursive",
            "io_time_recursive",
            "sectors_recursive",
        )
    )
    return {"io_service_bytes_recursive": entries or None, **empty}

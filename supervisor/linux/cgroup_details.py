"""What a group's files tell beyond a sample: the kernel's own names and devices, for those who look at one group.

See ``Documentation/admin-guide/cgroup-v1`` and ``cgroup-v2.rst``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from supervisor.linux import cgroup_files as files
from supervisor.linux.cgroup_model import CgroupDetails, DeviceUse


def details_v1(memory: Path | None, cpuacct: Path | None, blkio: Path | None) -> CgroupDetails:
    """Of a group by its directories in three hierarchies; what is not mounted tells nothing."""
    nowhere = Path("/nonexistent")
    memory, cpuacct, blkio = memory or nowhere, cpuacct or nowhere, blkio or nowhere
    processors = files.text(cpuacct / "cpuacct.usage_percpu").split()
    return CgroupDetails(
        memory=files.table(memory / "memory.stat"),
        memory_failures=files.number(memory / "memory.failcnt"),
        processors_ns=[int(word) for word in processors if word.isdigit()],
        bytes=[*_v1_devices(files.text(blkio / "blkio.throttle.io_service_bytes_recursive"))],
        operations=[*_v1_devices(files.text(blkio / "blkio.throttle.io_serviced_recursive"))],
    )


def details_v2(here: Path) -> CgroupDetails:
    """Of a group by its directory."""
    return CgroupDetails(
        memory=files.table(here / "memory.stat"),
        memory_failures=files.table(here / "memory.events").get("max", 0),
        bytes=[*_v2_devices(files.text(here / "io.stat"))],
    )


def _v1_devices(text: str) -> Iterator[DeviceUse]:
    """``major:minor way count`` lines; the total at the end has no device."""
    for line in text.splitlines():
        match line.split():
            case [device, way, count] if count.isdigit():
                major, _, minor = device.partition(":")
                yield DeviceUse(int(major), int(minor), way.lower(), int(count))
            case _:
                continue


def _v2_devices(text: str) -> Iterator[DeviceUse]:
    """``major:minor rbytes=… wbytes=… …`` lines."""
    for line in text.splitlines():
        device, *pairs = line.split()
        counts = dict(pair.partition("=")[::2] for pair in pairs)
        major, _, minor = device.partition(":")
        for way, name in (("read", "rbytes"), ("write", "wbytes")):
            if counts.get(name, "").isdigit():
                yield DeviceUse(int(major), int(minor), way, int(counts[name]))

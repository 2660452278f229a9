"""What a group's files tell of its devices, on either version of cgroups."""

from __future__ import annotations

from pathlib import Path

from supervisor.linux.cgroup_details import details_v1, details_v2
from supervisor.linux.cgroup_model import DeviceUse


def test_v1_tells_bytes_operations_and_processors(tmp_path: Path) -> None:
    name = "blkio.throttle.io_{}_recursive"
    (tmp_path / name.format("service_bytes")).write_text("8:0 Read 10\n8:0 Discard 0\nTotal 10\n")
    (tmp_path / name.format("serviced")).write_text("8:0 Read 2\n")
    (tmp_path / "cpuacct.usage_percpu").write_text("5 7 \n")
    (tmp_path / "memory.stat").write_text("cache 4096\ntotal_rss 1\n")
    (tmp_path / "memory.failcnt").write_text("3\n")
    told = details_v1(tmp_path, tmp_path, tmp_path)
    assert told.bytes == [DeviceUse(8, 0, "read", 10), DeviceUse(8, 0, "discard", 0)]
    assert told.operations == [DeviceUse(8, 0, "read", 2)]
    assert (told.processors_ns, told.memory["cache"], told.memory_failures) == ([5, 7], 4096, 3)
    assert details_v1(None, None, None).bytes == []


def test_v2_tells_bytes(tmp_path: Path) -> None:
    (tmp_path / "io.stat").write_text("8:16 rbytes=5 wbytes=6 rios=1 wios=2\n8:32 \n")
    (tmp_path / "memory.events").write_text("low 0\nmax 2\n")
    told = details_v2(tmp_path)
    assert told.bytes == [DeviceUse(8, 16, "read", 5), DeviceUse(8, 16, "write", 6)]
    assert told.memory_failures == 2

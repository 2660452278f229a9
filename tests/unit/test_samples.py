"""From counters to rates, and who sees what."""

from __future__ import annotations

from pathlib import Path

import attrs
import cattrs
import pytest

from protocol.samples import HostSample, Waiting
from supervisor.linux.cgroup import CgroupSample, Room
from supervisor.monitor.samples import (
    HostReading,
    Reading,
    Who,
    host_sample,
    parse_meminfo,
    parse_stat,
    read_host,
    usage,
    within,
)

SECOND = 1_000_000_000


def test_stat_is_read() -> None:
    ticks, processors = parse_stat(
        "cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 1 1 1 1\ncpu1 0 0 0 0\nintr 5\n"
    )
    assert (ticks, processors) == ([1, 2, 3, 4, 5, 6, 7, 8], 2)


def test_meminfo_is_read_in_bytes() -> None:
    assert parse_meminfo("MemTotal:  2 kB\nHugePages_Total:   3\nOdd:\n") == {
        "MemTotal": 2_048,
        "HugePages_Total": 3,
    }


def test_rates_of_a_group() -> None:
    before = CgroupSample(time_ns=0, cpu_usage_ns=SECOND, io_read_bytes=100, cpu_periods=10)
    now = CgroupSample(
        time_ns=2 * SECOND,
        cpu_usage_ns=4 * SECOND,
        io_read_bytes=300,
        cpu_periods=20,
        cpu_throttled_periods=5,
        memory_bytes=1_000,
        memory_inactive_file_bytes=400,
        pids=3,
    )
    told = usage(before, now)
    assert told.cpu_cores == 1.5
    assert told.io_read_bytes_per_second == 100.0
    assert told.cpu_throttled_percent == 50.0
    assert told.memory_bytes == 600
    assert told.pids == 3


def test_no_earlier_counters_or_later_ones_are_no_rate() -> None:
    now = CgroupSample(time_ns=SECOND, cpu_usage_ns=5)
    assert usage(None, now).cpu_cores == 0.0
    assert usage(CgroupSample(time_ns=0, cpu_usage_ns=50), now).cpu_cores == 0.0


def reading(seconds: int, busy: int, groups: dict[str, int]) -> Reading:
    census = {
        "u1/a": Who(1, "aaa", "web"),
        "u2/b": Who(2, "bbb", "web"),
        "u2/builds/1": Who(2, "", "build 1"),
        "u3/gone": Who(3, "ccc", "gone"),
    }
    host = HostReading(seconds * SECOND, seconds, 2, 0, busy * SECOND)
    samples = {
        name: CgroupSample(time_ns=seconds * SECOND, cpu_usage_ns=used * SECOND)
        for name, used in groups.items()
    }
    return Reading(host, samples, census)


def sample() -> HostSample:
    before = reading(0, 0, {"u1": 0, "u2": 0, "u1/a": 0, "u2/b": 0, "u2/builds/1": 0})
    now = reading(2, 3, {"u1": 1, "u2": 2, "u1/a": 1, "u2/b": 1, "u2/builds/1": 1})
    return host_sample(before, now, "calm", "", Waiting(1, 2))


def test_host_owners_and_containers_in_one() -> None:
    told = sample()
    assert (told.seconds, told.cpu_cores) == (2.0, 1.5)
    assert [(each.owner, each.containers, each.usage.cpu_cores) for each in told.owners] == [
        (1, 1, 0.5),
        (2, 1, 1.0),
    ]
    assert [(each.owner, each.name, each.container_id) for each in told.containers] == [
        (1, "web", "aaa"),
        (2, "build 1", ""),
        (2, "web", "bbb"),
    ]


def test_a_person_sees_the_host_and_their_own() -> None:
    seen = sample().visible_to(1)
    assert seen.cpu_cores == 1.5
    assert {each.owner for each in seen.owners} == {each.owner for each in seen.containers} == {1}
    assert sample().visible_to(4).containers == ()


def test_a_sample_survives_the_wire() -> None:
    converter = cattrs.Converter()
    assert converter.structure(converter.unstructure(sample()), HostSample) == sample()


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="needs /proc")
def test_this_host_can_be_read() -> None:
    first = read_host()
    second = read_host()
    assert first.cpu_total_ns >= first.cpu_busy_ns > 0
    assert second.time_ns > first.time_ns
    assert 0 < first.memory_available_bytes <= first.memory_total_bytes
    assert first.processors >= 1
    assert attrs.asdict(first)


def test_a_bound_above_all_groups_counts_as_the_hosts_memory() -> None:
    host = HostReading(0, 0, 2, 0, 0, memory_total_bytes=1_000, memory_available_bytes=600)
    assert within(host, None) == host
    assert within(host, Room(2_000, 900)) == host
    bounded = within(host, Room(500, 100))
    assert (bounded.memory_total_bytes, bounded.memory_available_bytes) == (500, 100)
    short = within(attrs.evolve(host, memory_available_bytes=50), Room(500, 100))
    assert (short.memory_total_bytes, short.memory_available_bytes) == (500, 50)

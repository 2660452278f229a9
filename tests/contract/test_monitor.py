"""The loop, on this host: real /proc, real cgroups, a real journal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from supervisor.config import JournalConfig, MonitorConfig
from supervisor.database.database import open_database
from supervisor.errors import NotFound
from supervisor.events.journal import Events, open_events
from supervisor.linux import cgroup
from supervisor.linux.cgroup import Cgroups
from supervisor.monitor.monitor import Who, open_monitor

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

QUICK = MonitorConfig(tick_seconds=0.05, idle_tick_seconds=3_600)


@pytest.fixture
def groups() -> Iterator[Cgroups]:
    found = cgroup.detect(f"bhtest-monitor-{os.getpid()}")
    yield found
    found.kill("")
    assert found.remove("")


@pytest.fixture
async def events(tmp_path: Path) -> AsyncIterator[Events]:
    async with open_database(tmp_path / "database.sqlite") as database:
        async with open_events(database, JournalConfig()) as opened:
            yield opened


def spin(groups: Cgroups) -> subprocess.Popen[bytes]:
    groups.create("u1000/abc")
    fds = groups.entry_fds("u1000/abc")
    try:
        return subprocess.Popen(
            ["sh", "-c", "while :; do :; done"],
            preexec_fn=lambda: [os.write(fd, b"0") for fd in fds] and None,  # noqa: PLW1509
        )
    finally:
        for fd in fds:
            os.close(fd)


@asynccontextmanager
async def busy_container(groups: Cgroups) -> AsyncIterator[dict[str, Who]]:
    process = spin(groups)
    try:
        yield {"u1000/abc": Who(1000, "abc", "web"), "u1000/gone": Who(1000, "def", "gone")}
    finally:
        process.kill()
        process.wait()


async def test_open_is_ready_and_idle_is_still(events: Events, groups: Cgroups) -> None:
    async with open_monitor(events, groups, QUICK, triggers=()) as monitor:
        first = monitor.latest()
        assert first is not None
        assert first.memory_total_bytes > 0
        assert first.verdict in {"calm", "tight", "critical"}
        if first.verdict == "calm":
            await trio.sleep(0.3)
            assert monitor.ticks == 1


async def test_a_reader_gets_rates_at_once_and_then_every_tick(
    events: Events, groups: Cgroups
) -> None:
    async with (
        busy_container(groups) as census,
        open_monitor(events, groups, QUICK, census=lambda: census) as monitor,
    ):
        with trio.fail_after(20):
            reader = monitor.samples()
            seen = [await anext(reader) for _ in range(3)]
        assert [tick.number for tick in seen] == [2, 3, 4]
        assert [tick.skipped for tick in seen] == [0, 0, 0]
        tick = seen[0]
        (container,) = tick.sample.containers
        (owner,) = tick.sample.owners
        assert (container.container_id, container.name) == ("abc", "web")
        assert (owner.owner, owner.containers) == (1000, 1)
        assert 0.05 < container.usage.cpu_cores < 1.5
        assert container.usage.pids == 1
        assert tick.before is not None
        used = [reading.groups["u1000/abc"].cpu_usage_ns for reading in (tick.before, tick.now)]
        assert used[0] < used[1]


async def test_a_late_reader_gets_the_newest_and_is_told_what_it_missed(
    events: Events, groups: Cgroups
) -> None:
    async with open_monitor(events, groups, QUICK, triggers=()) as monitor:
        slow, quick = monitor.samples(), monitor.samples()
        await anext(slow)
        for _ in range(5):
            await anext(quick)
        late = await anext(slow)
        assert late.number == monitor.ticks
        assert late.skipped >= 3


async def test_all_readers_share_one_look(events: Events, groups: Cgroups) -> None:
    async with open_monitor(events, groups, QUICK, triggers=()) as monitor:
        seen: list[int] = []

        async def read() -> None:
            seen.append(id((await anext(monitor.samples())).sample))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(read)
        assert len(set(seen)) == 1


async def test_it_falls_still_when_nobody_reads_any_more(events: Events, groups: Cgroups) -> None:
    async with open_monitor(events, groups, QUICK, triggers=()) as monitor:
        await anext(monitor.samples())
        await trio.sleep(0.5)
        ticks = monitor.ticks
        await trio.sleep(0.3)
        if monitor.verdict().level == 0:
            assert monitor.ticks == ticks


async def test_one_group_by_itself(events: Events, groups: Cgroups) -> None:
    async with busy_container(groups), open_monitor(events, groups, QUICK, triggers=()) as monitor:
        first = await monitor.sample("u1000/abc")
        await trio.sleep(0.1)
        second = await monitor.sample("u1000/abc")
        assert second.cgroup.cpu_usage_ns > first.cgroup.cpu_usage_ns
        assert second.system_cpu_ns > first.system_cpu_ns
        assert second.processors == os.cpu_count()
        with pytest.raises(NotFound):
            await monitor.sample("u1000/none")


@pytest.mark.skipif(not Path("/proc/pressure/memory").exists(), reason="the kernel has no PSI")
async def test_relief_follows_the_verdict(events: Events, groups: Cgroups) -> None:
    everything_is_tight = MonitorConfig(tick_seconds=0.05, memory_some_percent_tight=0.0)
    async with open_monitor(events, groups, everything_is_tight) as monitor:
        await trio.sleep(0.3)
        assert monitor.relief == ("hold builds",)
        page = await events.page(0, visible_to=None)
        assert [event.type for event in page.events] == ["monitor.verdict", "monitor.relief"]


@pytest.mark.skipif(not Path("/proc/pressure/memory").exists(), reason="the kernel has no PSI")
async def test_a_verdict_that_changes_is_told_once(events: Events, groups: Cgroups) -> None:
    everything_is_tight = MonitorConfig(
        tick_seconds=0.05, idle_tick_seconds=3_600, memory_some_percent_tight=0.0, relief=False
    )
    before = events.last_seq
    async with open_monitor(events, groups, everything_is_tight) as monitor:
        await trio.sleep(0.3)
        assert monitor.verdict().level == 1
        assert monitor.ticks > 2
        assert "memory" in monitor.verdict().reason
        assert events.last_seq == before + 1
        async with monitor.ticket(1, "work"):
            with trio.move_on_after(0.1) as scope:
                async with monitor.ticket(1, "more work"):
                    pytest.fail("one each while the host is tight")
            assert scope.cancelled_caught

"""Relief on the real kernel: decided of a real reading, done to real groups, told in the journal, and undone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from protocol.events import MonitorRelief
from supervisor.linux.cgroup import CgroupLimits, CgroupSample
from supervisor.monitor.detect import CALM, Level, Resource, Verdict
from supervisor.monitor.relief import PATIENT_SECONDS
from supervisor.monitor.relieving import Relief, uses_of
from supervisor.monitor.samples import HostReading, Reading, Who, read_groups, read_host
from supervisor.runtime.cgroup_tree import build_group, owner_group
from supervisor.runtime.relief_hands import ReliefHands
from supervisor.runtime.status import Status
from tests.support.engines import Engine, engine_in, fresh_root
from tests.support.people import ADA
from tests.system.test_owner_groups import kernels, set_limits

pytestmark = pytest.mark.root

MIB = 1 << 20
STEP = "a" * 12
CRITICAL = Verdict(Level.CRITICAL, "everything waited for memory 40 %", Resource.MEMORY)


@pytest.fixture
def root() -> Iterator[Path]:
    with fresh_root() as place:
        yield place


@attrs.define
class Played:
    """Relief with a clock of the test's."""

    made: Engine
    relief: Relief
    held: list[bool]
    seconds: float = 0.0

    async def after(self, seconds: float, verdict: Verdict, total_bytes: int = 65_536) -> None:
        """Consider once more; the host has so little memory that whoever runs something is above their share."""
        self.seconds += seconds
        cgroups = self.made.parts.tree.cgroups
        census = {group: Who(ADA.uid, "id", "hog") for group in self.made.containers.census()}
        step = build_group(ADA.uid, STEP)
        if cgroups.exists(step):
            census[step] = Who(ADA.uid, "", "a step")
        host = attrs.evolve(read_host(), memory_total_bytes=total_bytes)
        reading = Reading(host, read_groups(cgroups, census), census)
        await self.relief.consider(verdict, None, reading, self.seconds)

    async def told(self) -> list[MonitorRelief]:
        page = await self.made.parts.events.page(0, visible_to=None)
        return [event.data for event in page.events if isinstance(event.data, MonitorRelief)]


@asynccontextmanager
async def played(root: Path, *, dry_run: bool = False) -> AsyncIterator[Played]:
    held: list[bool] = []
    async with engine_in(root) as made:
        parts = made.parts
        relief = Relief(parts.events, parts.owners.weight, held.append, dry_run=dry_run)
        relief.equip(ReliefHands(parts.tree, parts.owners.limits))
        yield Played(made, relief, held)
        for keeper in made.containers.every():
            await made.remove(keeper)


async def test_each_step_reaches_the_kernel_and_is_undone(root: Path) -> None:
    async with played(root) as at:
        tree, group = at.made.parts.tree, owner_group(ADA.uid)
        keeper = await at.made.run("sleep", "600")
        await tree.create(ADA.uid, build_group(ADA.uid, STEP), CgroupLimits())
        await set_limits(at.made, {"cpu_weight": 200, "memory_high_bytes": 512 * MIB})
        calm = kernels(at.made, group)
        await at.after(0, CRITICAL)
        assert at.held == [True]
        await at.after(PATIENT_SECONDS, CRITICAL)
        assert kernels(at.made, group) == {**calm, "weight": 50}
        await at.after(PATIENT_SECONDS, CRITICAL)
        assert (kernels(at.made, group)["high"] or 0) < 64 * MIB
        await at.after(PATIENT_SECONDS, CRITICAL)
        builds = f"{group}/builds"
        with trio.fail_after(10):
            while not tree.cgroups.frozen(builds):
                await trio.sleep(0.01)
        assert keeper.state.status is Status.RUNNING
        for _ in range(4):
            await at.after(PATIENT_SECONDS, CALM)
        assert kernels(at.made, group) == calm
        assert not tree.cgroups.frozen(builds)
        assert at.held == [True, False]
        told = [(each.step, each.undone) for each in await at.told()]
        steps = ["hold builds", "lower weights", "reclaim", "freeze builds"]
        assert told == [*((step, False) for step in steps), *((s, True) for s in reversed(steps))]
        await tree.clear(build_group(ADA.uid, STEP))


async def test_the_last_resort_ends_one_and_says_why(root: Path) -> None:
    async with played(root) as at:
        keeper = await at.made.run("sleep", "600")
        for _ in range(4):
            await at.after(PATIENT_SECONDS, CRITICAL)
        with trio.fail_after(20):
            assert (await keeper.wait("not-running")).code == 137
        last = (await at.told())[-1]
        assert (last.step, last.what) == ("end", "hog")
        assert "is their share" in last.reason or "are their share" in last.reason


async def test_a_dry_run_tells_and_does_nothing(root: Path) -> None:
    async with played(root, dry_run=True) as at:
        keeper = await at.made.run("sleep", "600")
        before = kernels(at.made, owner_group(ADA.uid))
        for _ in range(5):
            await at.after(PATIENT_SECONDS, CRITICAL)
        assert kernels(at.made, owner_group(ADA.uid)) == before
        assert at.held == []
        assert keeper.state.status is Status.RUNNING
        told = await at.told()
        assert [each.step for each in told] == [
            "hold builds",
            "lower weights",
            "reclaim",
            "end",
            "end",
        ]
        assert all(each.dry_run for each in told)


async def test_who_is_within_their_share_keeps_all(root: Path) -> None:
    async with played(root) as at:
        keeper = await at.made.run("sleep", "600")
        for _ in range(6):
            await at.after(PATIENT_SECONDS, CRITICAL, total_bytes=1 << 40)
        assert [each.step for each in await at.told()] == ["hold builds"]
        assert keeper.state.status is Status.RUNNING


def test_what_moves_is_counted_between_two_readings() -> None:
    def reading(seconds: int, moved: int) -> Reading:
        sample = CgroupSample(
            seconds * 10**9, io_read_bytes=moved, memory_bytes=9, memory_inactive_file_bytes=4
        )
        groups = {"u1": sample, "u1/a": sample}
        return Reading(
            HostReading(0, 0, 1, 0, 0, memory_total_bytes=100), groups, {"u1/a": Who(1, "id", "a")}
        )

    (use,) = uses_of(reading(1, 100), reading(3, 300), lambda _: 100)
    assert (use.io_bytes_per_second, use.memory_bytes, use.share_bytes) == (100.0, 5, 100)
    assert uses_of(None, reading(3, 300), lambda _: 100)[0].io_bytes_per_second == 0

"""What an owner may use holds for all of theirs together, as the kernel has it: at once, and in the next daemon's life."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import trio

from supervisor.access.owner_limits import Changes
from supervisor.access.requests import Resources
from supervisor.config import OwnerConfig
from supervisor.errors import Conflict, InvalidArgument
from supervisor.linux.cgroup import CgroupLimits
from supervisor.runtime.cgroup_tree import build_group, owner_group
from supervisor.runtime.owner_groups import set_owner_limits
from tests.support.engines import ROOT_IDENTITY, Engine, engine_in, fresh_root
from tests.support.people import ADA

pytestmark = pytest.mark.root

MIB = 1 << 20
V1 = Path("/sys/fs/cgroup/memory").is_dir()
FILES: Mapping[str, tuple[str, str]] = {
    "weight": ("cpu", "cpu.shares"),
    "quota": ("cpu", "cpu.cfs_quota_us"),
    "memory": ("memory", "memory.limit_in_bytes"),
    "high": ("memory", "memory.soft_limit_in_bytes"),
    "pids": ("pids", "pids.max"),
}
FILES_V2: Mapping[str, str] = {
    "weight": "cpu.weight",
    "quota": "cpu.max",
    "memory": "memory.max",
    "high": "memory.high",
    "pids": "pids.max",
}
NONE = {"quota": -1, "memory": None, "high": None, "pids": None}


@pytest.fixture
def root() -> Iterator[Path]:
    with fresh_root() as place:
        yield place


def kernels(made: Engine, group: str) -> dict[str, int | None]:
    """What the kernel has: weights as cgroup v2 counts them, None where there is no limit."""
    cgroups = made.parts.tree.cgroups
    found: dict[str, int | None] = {}
    for name, (controller, file) in FILES.items():
        path = (
            Path("/sys/fs/cgroup", controller, cgroups.root, group, file)
            if V1
            else Path("/sys/fs/cgroup", cgroups.root, group, FILES_V2[name])
        )
        word = path.read_text().split()[0]
        found[name] = None if word == "max" or int(word) > 1 << 62 else int(word)
    if V1:
        found["weight"] = round((found["weight"] or 0) * 100 / 1024)
    elif found["quota"] is None:
        found["quota"] = -1
    return found


def cpus(count: float) -> Resources:
    return Resources(cpu_nanos=int(count * 1_000_000_000))


async def set_limits(made: Engine, changes: Changes) -> OwnerConfig:
    return await set_owner_limits(made.parts, ADA.uid, changes, ROOT_IDENTITY)


async def test_limits_hold_at_once_and_are_lifted(root: Path) -> None:
    async with engine_in(root) as made:
        group = owner_group(ADA.uid)
        await set_limits(made, {"cpu_weight": 250})
        assert not made.parts.tree.cgroups.exists(group), "nothing of hers runs"
        keeper = await made.run("sleep", "600")
        assert kernels(made, group) == {**NONE, "weight": 250, "pids": 16_384}
        holds = {
            "cpu_weight": 300,
            "cpus_max": 0.5,
            "memory_high_bytes": 64 * MIB,
            "memory_bytes_max": 128 * MIB,
            "pids_max": 100,
        }
        told = await set_limits(made, holds)
        assert (told.cpus_max, told.pids_max) == (0.5, 100)
        assert kernels(made, group) == {
            "weight": 300,
            "quota": 50_000,
            "memory": 128 * MIB,
            "high": 64 * MIB,
            "pids": 100,
        }
        await set_limits(made, dict.fromkeys(holds))
        assert kernels(made, group) == {**NONE, "weight": 100, "pids": 16_384}
        await made.remove(keeper)


async def test_a_container_never_has_more_than_its_owner(root: Path) -> None:
    async with engine_in(root) as made:
        await set_limits(made, {"cpus_max": 0.5})
        keeper = await made.run("sleep", "600", resources=cpus(1.5))
        assert kernels(made, keeper.group)["quota"] == -1, "its owner's bounds it"
        await set_limits(made, {"cpus_max": 2})
        assert kernels(made, keeper.group)["quota"] == 150_000
        await set_limits(made, {"cpus_max": 1})
        assert kernels(made, keeper.group)["quota"] == -1
        assert kernels(made, owner_group(ADA.uid))["quota"] == 100_000
        await set_limits(made, {"cpus_max": None})
        assert kernels(made, keeper.group)["quota"] == 150_000
        await made.remove(keeper)


async def test_the_next_daemon_finds_them_and_goes_by_its_settings(root: Path) -> None:
    async with engine_in(root, farewell=False) as made:
        keeper = await made.run("sleep", "600", resources=cpus(1.5))
        group = keeper.group
        await set_limits(made, {"pids_max": 200})
        # As if it had ended between another limit and its being written down.
        made.parts.tree.cgroups.limit(owner_group(ADA.uid), CgroupLimits(pids=77, cpu_weight=9))
    async with engine_in(root) as made:
        assert kernels(made, owner_group(ADA.uid)) == {**NONE, "weight": 100, "pids": 200}
        assert kernels(made, group)["quota"] == 150_000
        await set_limits(made, {"cpus_max": 1})
        assert kernels(made, group)["quota"] == -1, "remembered of what was adopted"
        for keeper in made.containers.every():
            await made.remove(keeper)


async def test_what_the_kernel_refuses_changes_nothing(root: Path) -> None:
    if not V1:
        pytest.skip("cgroup v2 takes memory away instead")
    async with engine_in(root) as made:
        script = "dd if=/dev/zero of=/dev/shm/x bs=1M count=40; sleep 600"
        keeper = await made.run("sh", "-c", script)
        sample = made.parts.tree.cgroups.sample
        while sample(keeper.group).memory_bytes < 40 * MIB:
            await trio.sleep(0.01)
        before = kernels(made, owner_group(ADA.uid))
        # What is in a tmpfs cannot be given back where there is no swap.
        swap_total = next(
            int(line.split()[1])
            for line in Path("/proc/meminfo").read_text().splitlines()
            if line.startswith("SwapTotal")
        )
        if swap_total:
            pytest.skip("this host would swap it out")
        with pytest.raises(Conflict, match="cannot limit cgroup"):
            await set_limits(made, {"memory_bytes_max": 8 * MIB, "pids_max": 50})
        assert kernels(made, owner_group(ADA.uid)) == before
        assert made.parts.owners.own_limits(ADA.uid) == {}
        await made.remove(keeper)


async def test_what_makes_no_sense_reaches_no_kernel(root: Path) -> None:
    async with engine_in(root) as made:
        with pytest.raises(InvalidArgument):
            await set_limits(made, {"cpu_weight": -1})
        assert made.parts.owners.own_limits(ADA.uid) == {}


async def test_builds_weigh_less_than_a_container(root: Path) -> None:
    async with engine_in(root) as made:
        tree, step = made.parts.tree, build_group(ADA.uid, "step")
        await tree.create(ADA.uid, step, CgroupLimits(pids=10))
        builds = step.rpartition("/")[0]
        assert kernels(made, builds)["weight"] == 25
        assert kernels(made, step)["weight"] == 100, "among builds they are equal"
        assert builds.rpartition("/")[0] == owner_group(ADA.uid)
        await tree.clear(step)

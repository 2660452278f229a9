"""What single owners may use: defaults, what is set over them, and what that means for a group."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from supervisor.access import owner_limits
from supervisor.access.identity import Role
from supervisor.config import Config, OwnerConfig
from supervisor.errors import InvalidArgument
from supervisor.linux.cgroup import UNLIMITED, Ability, CgroupLimits
from supervisor.linux.cgroup_model import Rate
from supervisor.runtime.owner_groups import Quota, disks, group_limits, unheld
from tests.support.people import ADA, BOB, ROOT, identity
from tests.unit.test_owners import House, house

MIB = 1 << 20
ADMIN = identity(ROOT, Role.ADMIN)


async def told(at: House) -> list[tuple[str, float, float, bool]]:
    """Name, value, value before and whether it is their own, of each change that was told."""
    page = await at.owners._events.page(0, visible_to=None)
    found = [event.data for event in page.events if event.type == "owner.limit"]
    return [attrs.astuple(data) for data in found]


async def test_what_is_set_holds_over_the_defaults_and_outlives_the_daemon(tmp_path: Path) -> None:
    config = Config(owner=OwnerConfig(cpu_weight=50, pids_max=1_000))
    async with house(tmp_path, config=config) as at:
        assert at.owners.limits(ADA.uid) == config.owner
        await at.owners.set_limits(ADA.uid, {"cpu_weight": 300, "cpus_max": 1.5}, ADMIN)
        expected = attrs.evolve(config.owner, cpu_weight=300, cpus_max=1.5)
        assert at.owners.limits(ADA.uid) == expected
        assert at.owners.limits(BOB.uid) == config.owner
    async with house(tmp_path, config=config) as at:
        assert at.owners.limits(ADA.uid) == expected
        assert at.owners.own_limits(ADA.uid) == {"cpu_weight": 300, "cpus_max": 1.5}
        await at.owners.set_limits(ADA.uid, {"cpu_weight": None, "pids_max": 1_000}, ADMIN)
        assert at.owners.own_limits(ADA.uid) == {"cpus_max": 1.5, "pids_max": 1_000}
        assert await told(at) == [
            ("cpu_weight", 300, 50, True),
            ("cpus_max", 1.5, 0, True),
            ("cpu_weight", 50, 300, False),
        ]
    async with house(tmp_path) as at:
        assert at.owners.limits(ADA.uid).pids_max == 1_000, "set for them, the default or not"


async def test_the_events_are_the_owners_and_say_who_it_was(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        await at.owners.set_limits(ADA.uid, {"builds_max": 2}, ADMIN)
        await at.owners.set_limits(4_711, {"builds_max": 2}, ADMIN)
        page = await at.owners._events.page(0, visible_to=ADA.uid)
        (event,) = (each for each in page.events if each.type == "owner.limit")
        assert event.subject == str(ADA.uid)
        assert event.actor.attributes == {"name": "ada", "by": "root"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"cpu_weigth": 3}, "did you mean cpu_weight?"),
        ({"colour": 3}, "colour: no such limit"),
        ({"cpu_weight": 0}, "cpu_weight: 0 is out of bounds"),
        ({"cpu_weight": 10_001}, "1 to 10,000"),
        ({"cpu_weight": 1.5}, "1.5 is not a whole number"),
        ({"pids_max": True}, "True is not a whole number"),
        ({"cpus_max": 0.001}, "0 (no limit), or 0.01"),
        ({"cpus_max": float("nan")}, "nan is out of bounds"),
        ({"memory_bytes_max": 5}, "6,291,456"),
        ({"containers_max": -1}, "containers_max: -1 is out of bounds"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_changes_nothing(
    tmp_path: Path, changes: owner_limits.Changes, words: str
) -> None:
    async with house(tmp_path) as at:
        with pytest.raises(InvalidArgument) as caught:
            await at.owners.set_limits(ADA.uid, {"io_weight": 7, **changes}, ADMIN)
        assert any(words in f"{fault}" for fault in caught.value.faults), caught.value.faults
        assert at.owners.limits(ADA.uid) == Config().owner
        assert await told(at) == []


def test_settings_without_sense_are_refused() -> None:
    owner_limits.check_defaults(OwnerConfig())
    with pytest.raises(InvalidArgument, match=r"\[owner\]") as caught:
        owner_limits.check_defaults(OwnerConfig(io_weight=-1, pids_max=3))
    assert len(caught.value.faults) == 2


def test_what_a_newer_version_wrote_is_left_out() -> None:
    assert owner_limits.effective(OwnerConfig(), {"gpus_max": 3}) == OwnerConfig()


def test_every_limit_of_the_group_is_named() -> None:
    made = group_limits(
        OwnerConfig(cpus_max=1.5, memory_high_bytes=64 * MIB, io_read_bytes_per_second_max=9),
        ("8:0",),
    )
    assert made == CgroupLimits(
        cpu_weight=100,
        cpu_quota_microseconds=150_000,
        memory_bytes=UNLIMITED,
        memory_high_bytes=64 * MIB,
        pids=16_384,
        io_weight=100,
        io_rates=(("8:0", Rate.READ_BYTES, 9), ("8:0", Rate.WRITE_BYTES, UNLIMITED)),
    )
    lifted = group_limits(OwnerConfig(pids_max=0), ())
    assert (lifted.cpu_quota_microseconds, lifted.memory_high_bytes, lifted.pids) == (-1, -1, -1)


@pytest.mark.parametrize(
    ("cpus_max", "quota"), [(0, 150_000), (1.5, 150_000), (2, 150_000), (1.4, UNLIMITED)]
)
def test_a_quota_within_the_owners(cpus_max: float, quota: int) -> None:
    assert Quota(150_000, 100_000).within(cpus_max).cpu_quota_microseconds == quota


def test_disks_are_whole_and_real(tmp_path: Path) -> None:
    for name, size in (("vda", "100"), ("loop0", "100"), ("zram0", "5"), ("sdb", "0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "size").write_text(f"{size}\n")
        (tmp_path / name / "dev").write_text(f"{len(name)}:0\n")
    assert disks(tmp_path) == ("3:0",)


def test_what_the_host_cannot_hold_is_told() -> None:
    assert unheld(["io_weight", "cpus_max", "builds_max"], {Ability.CPU}) == ("io_weight",)

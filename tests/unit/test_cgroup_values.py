"""Cgroups without a kernel: names, weights, where they are mounted, and what v2 writes, on a directory of plain files.

The plain files show which words go to which file, not what a kernel does with them; that is in the contract tests.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.linux import cgroup, cgroup_model, cgroup_v1, cgroup_v2
from supervisor.linux.cgroup import UNLIMITED, CgroupLimits

HYBRID = r"""31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/a\040b rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
42 31 0:38 / /run/other rw,relatime - cgroup2 cgroup2 rw
"""


def test_mounts_are_found_by_type_and_option() -> None:
    found = cgroup.mounted(HYBRID)
    both = Path("/sys/fs/cgroup/cpu,cpuacct")
    assert dict(found.v1) == {"cpu": both, "cpuacct": both, "memory": Path("/sys/fs/cgroup/a b")}
    assert found.v2 == Path("/sys/fs/cgroup/unified")


def test_no_cgroups_at_all() -> None:
    assert cgroup.mounted("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n") == cgroup.Mounted({}, None)


def test_a_hierarchy_of_several_controllers_is_entered_once(tmp_path: Path) -> None:
    groups = cgroup_v1.CgroupsV1({"cpu": tmp_path, "cpuacct": tmp_path}, "bakehouse", ())
    assert groups.entry_paths("u1/a") == [str(tmp_path / "bakehouse/u1/a/cgroup.procs")]
    assert groups.kind == "v1"


@pytest.mark.parametrize(
    ("shares", "weight"), [(1024, 100), (512, 50), (2048, 200), (2, 1), (0, 1), (262_144, 10_000)]
)
def test_shares_become_weights_in_proportion(shares: int, weight: int) -> None:
    assert cgroup.weight_of_shares(shares) == weight


@pytest.mark.parametrize("shares", [1024, 512, 2048, 102_400])
def test_weights_become_shares_again(shares: int) -> None:
    assert cgroup_model.shares_of_weight(cgroup.weight_of_shares(shares)) == shares


def test_io_weights() -> None:
    assert [cgroup_model.blkio_of_weight(weight) for weight in (1, 100, 10_000)] == [10, 500, 1_000]
    assert [cgroup_model.bfq_of_weight(weight) for weight in (1, 100, 10_000)] == [1, 100, 1_000]


@pytest.mark.parametrize(
    ("events", "killed"),
    [
        ({}, 0),
        ({"oom": 1, "oom_kill": 1}, 1),
        ({"oom_kill": 2, "oom_group_kill": 1}, 1),
        ({"oom_kill": 4, "oom_group_kill": 1}, 3),
        ({"oom_kill": 1, "oom_group_kill": 1}, 1),
    ],
)
def test_who_dies_first_of_a_group_is_counted_once(events: dict[str, int], killed: int) -> None:
    assert cgroup_v2.killed_for_memory(events) == killed


def test_io_figures_are_summed_over_devices() -> None:
    text = "8:0 rbytes=10 wbytes=1 rios=2 wios=3 dbytes=0 dios=0\n8:16 rbytes=5 wbytes=0 rios=1 wios=0\n"
    totals = cgroup_v2.io_totals(text)
    assert (totals["rbytes"], totals["wbytes"], totals["rios"], totals["wios"]) == (15, 1, 3, 3)


V2_FILES = (
    "cgroup.procs",
    "cpu.weight",
    "cpu.max",
    "cpuset.cpus",
    "memory.max",
    "memory.high",
    "memory.low",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "io.weight",
)


@pytest.fixture
def plain(tmp_path: Path) -> tuple[cgroup_v2.CgroupsV2, Path]:
    """A v2 tree of plain files with one owner's container in it."""
    trunk = tmp_path / "system.slice/bakehouse.service"
    for group in (trunk, trunk / "bakehouse", trunk / "bakehouse/u1", trunk / "bakehouse/u1/a"):
        group.mkdir(parents=True)
        (group / "cgroup.controllers").write_text("cpuset cpu io memory hugetlb pids rdma\n")
        (group / "cgroup.subtree_control").write_text("")
        for name in V2_FILES:
            (group / name).write_text("")
    groups = cgroup.at_trunk(tmp_path, trunk, "bakehouse")
    assert isinstance(groups, cgroup_v2.CgroupsV2)
    return groups, trunk / "bakehouse/u1/a"


def test_v2_words_of_each_limit(plain: tuple[cgroup_v2.CgroupsV2, Path]) -> None:
    groups, here = plain
    groups.limit(
        "u1/a",
        CgroupLimits(
            cpu_weight=250,
            cpu_quota_microseconds=50_000,
            memory_bytes=1_000_000,
            memory_high_bytes=900_000,
            memory_swap_bytes=1_500_000,
            memory_reservation_bytes=400_000,
            pids=7,
            cpuset_cpus="0-1",
            io_weight=30,
        ),
    )
    written = {name: (here / name).read_text() for name in V2_FILES}
    assert written == {
        "cgroup.procs": "",
        "cpu.weight": "250",
        "cpu.max": "50000 100000",
        "cpuset.cpus": "0-1",
        "memory.max": "1000000",
        "memory.high": "900000",
        "memory.low": "400000",
        "memory.swap.max": "500000",
        "memory.oom.group": "1",
        "pids.max": "7",
        "io.weight": "default 30",
    }


def test_v2_lifts_limits(plain: tuple[cgroup_v2.CgroupsV2, Path]) -> None:
    groups, here = plain
    groups.limit(
        "u1/a",
        CgroupLimits(
            cpu_quota_microseconds=UNLIMITED,
            memory_bytes=UNLIMITED,
            memory_swap_bytes=UNLIMITED,
            pids=UNLIMITED,
        ),
    )
    assert (here / "cpu.max").read_text() == "max 100000"
    assert (here / "memory.max").read_text() == "max"
    assert (here / "memory.swap.max").read_text() == "max"
    assert (here / "pids.max").read_text() == "max"
    assert (here / "memory.oom.group").read_text() == "0"


def test_v2_an_owner_does_not_die_together(plain: tuple[cgroup_v2.CgroupsV2, Path]) -> None:
    groups, here = plain
    groups.limit("u1", CgroupLimits(memory_bytes=5))
    assert (here.parent / "memory.max").read_text() == "5"
    assert (here.parent / "memory.oom.group").read_text() == ""


def test_v2_no_word_writes_nothing(plain: tuple[cgroup_v2.CgroupsV2, Path]) -> None:
    groups, here = plain
    groups.limit("u1/a", CgroupLimits())
    assert {(here / name).read_text() for name in V2_FILES} == {""}


def test_v2_paths_are_below_the_delegated_group(plain: tuple[cgroup_v2.CgroupsV2, Path]) -> None:
    groups, here = plain
    assert groups.root == "system.slice/bakehouse.service/bakehouse"
    assert groups.runtime_path("u1/a") == "/system.slice/bakehouse.service/bakehouse/u1/a"
    assert groups.entry_paths("u1/a") == [str(here / "cgroup.procs")]


def test_v2_controllers_are_given_on_the_way_down_and_not_to_the_leaf(
    plain: tuple[cgroup_v2.CgroupsV2, Path],
) -> None:
    groups, here = plain
    groups.create("u1/a")
    for above in (groups.trunk, groups.trunk / "bakehouse", here.parent):
        # Five writes of one word each; a plain file keeps the last, and a tail of the longest.
        assert (above / "cgroup.subtree_control").read_text().startswith("+pids")
    assert (here / "cgroup.subtree_control").read_text() == ""


def test_v2_says_what_it_was_not_given(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("memory pids\n")
    assert [words.partition(":")[0] for words in cgroup_v2.missing(tmp_path)] == [
        "cpu.weight and cpu.max",
        "cpuset",
        "io.weight and io figures",
    ]


def test_without_delegation_the_trunk_is_the_top(tmp_path: Path) -> None:
    (tmp_path / "user.slice/session-1.scope/daemon").mkdir(parents=True)
    assert cgroup_v2.trunk_of(tmp_path, "/user.slice/session-1.scope") == tmp_path
    assert cgroup_v2.trunk_of(tmp_path, "/user.slice/session-1.scope/daemon") == tmp_path
    assert cgroup_v2.trunk_of(tmp_path, "/") == tmp_path


def test_a_service_is_the_trunk_when_we_were_started_in_its_leaf(tmp_path: Path) -> None:
    service = tmp_path / "system.slice/bakehouse.service"
    (service / "daemon").mkdir(parents=True)
    try:
        os.setxattr(service, "user.delegate", b"1")
    except OSError:
        pytest.skip("this file system has no user attributes")
    assert cgroup_v2.trunk_of(tmp_path, "/system.slice/bakehouse.service/daemon") == service
    assert cgroup_v2.trunk_of(tmp_path, "/system.slice/bakehouse.service") == tmp_path


def test_who_sits_in_the_trunk_is_moved_to_a_leaf_first(
    plain: tuple[cgroup_v2.CgroupsV2, Path],
) -> None:
    groups, _ = plain
    (groups.trunk / "cgroup.procs").write_text("41\n42\n")
    (groups.trunk / "daemon").mkdir()
    (groups.trunk / "daemon/cgroup.procs").write_text("")
    groups.create("u1/a")
    assert (
        groups.trunk / "daemon/cgroup.procs"
    ).read_text() == ""  # the real root may keep its own
    (groups.trunk / "cgroup.type").write_text("domain\n")
    (groups.trunk / "cgroup.subtree_control").write_text("")
    groups.create("u1/a")
    assert (groups.trunk / "daemon/cgroup.procs").read_text() == "42"

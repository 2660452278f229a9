"""Finding a unit's control group: real groups, made and marked as systemd makes and marks them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.errors import InvalidArgument, Unavailable
from supervisor.linux import cgroup, cgroup_files, cgroup_unit

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

TAG = f"bhtest-{os.getpid()}"
UNIT = f"{TAG}-containers.service"


def mounted() -> cgroup.Mounted:
    return cgroup.mounted(Path("/proc/self/mountinfo").read_text())


@pytest.fixture
def top() -> Iterator[Path]:
    """A slice of our own in the v2 tree; the tests look for units from here."""
    mount = mounted().v2
    if mount is None:
        pytest.skip("no cgroup v2 tree is mounted")
    made = mount / f"{TAG}.slice"
    made.mkdir()
    yield made
    cgroup_files.remove(made)
    assert not made.exists()


def unit(directory: Path, *, delegated: bool = True) -> Path:
    directory.mkdir(parents=True)
    if delegated:
        os.setxattr(directory, "trusted.delegate", b"1")
    return directory


def test_it_is_found_in_whatever_slice_it_was_put(top: Path) -> None:
    found = unit(top / "system.slice" / "system-lab.slice" / UNIT)
    unit(top / "system.slice" / "other.service")
    assert cgroup_unit.group_of(top, UNIT) == found


def test_somebody_elses_group_of_that_name_is_not_it(top: Path) -> None:
    # What people may make: below their service manager, and in groups that were delegated to them.
    unit(top / "user.slice" / "user@1000.service" / "app.slice" / UNIT)
    theirs = unit(top / "theirs.slice")
    unit(theirs / UNIT)
    with pytest.raises(Unavailable, match="does not run"):
        cgroup_unit.group_of(top, UNIT)


def test_a_unit_that_keeps_its_group_to_systemd_is_refused(top: Path) -> None:
    unit(top / "system.slice" / UNIT, delegated=False)
    with pytest.raises(Unavailable, match="not delegated"):
        cgroup_unit.group_of(top, UNIT)
    with pytest.raises(InvalidArgument):
        cgroup_unit.group_of(top, "../escaped.service")


def test_groups_grow_in_it_and_its_own_processes_make_way(top: Path) -> None:
    trunk = unit(top / UNIT)
    holder = subprocess.Popen(["sleep", "100"])
    try:
        (trunk / "cgroup.procs").write_text(str(holder.pid))
        for controller in cgroup_files.text(top / "cgroup.controllers").split():
            (top / "cgroup.subtree_control").write_text(f"+{controller}")
        groups = cgroup.at_trunk(top.parent, trunk, "bakehouse", cgroup_unit.LEAF)
        groups.create("u1/a")
        assert groups.runtime_path("u1/a") == f"/{top.name}/{UNIT}/bakehouse/u1/a"
        assert groups.children("u1") == ["a"]
        if set(cgroup_files.text(trunk / "cgroup.controllers").split()) & {"memory", "pids"}:
            assert (trunk / "holder/cgroup.procs").read_text().split() == [str(holder.pid)]
    finally:
        holder.kill()
        holder.wait()


def test_a_units_bound_on_memory_is_known(tmp_path: Path) -> None:
    # As the kernel shows them: the topmost group has none of these files.
    trunk = tmp_path / "system.slice" / UNIT
    trunk.mkdir(parents=True)
    groups = cgroup.at_trunk(tmp_path, trunk, "bakehouse", cgroup_unit.LEAF)
    assert groups.room() is None
    for directory, most, used in ((trunk, 500, 300), (trunk.parent, "max", 900)):
        (directory / "memory.max").write_text(f"{most}\n")
        (directory / "memory.high").write_text("max\n")
        (directory / "memory.current").write_text(f"{used}\n")
        (directory / "memory.stat").write_text("anon 100\ninactive_file 50\n")
    assert groups.room() == cgroup.Room(500, 250)
    (trunk / "memory.high").write_text("400\n")
    assert groups.room() == cgroup.Room(400, 150)
    (trunk.parent / "memory.max").write_text("950\n")
    assert groups.room() == cgroup.Room(950, 100)


def test_on_v1_what_is_started_leaves_the_daemons_unit_all_the_same() -> None:
    here = mounted()
    if not here.v1 or not here.named:
        pytest.skip("no cgroup v1 with systemd's hierarchy")
    groups = cgroup.detect(TAG, UNIT)
    try:
        groups.create("u1/a")
        entered = {str(path) for path in groups.entry_paths("u1/a")}
        assert entered >= {f"{place}/{TAG}/u1/a/cgroup.procs" for place in here.named}
        assert any(UNIT in told for told in groups.lacks)
    finally:
        until = time.monotonic() + 5
        while not groups.remove("") and time.monotonic() < until:
            time.sleep(0.01)

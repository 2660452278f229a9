"""One suite for every kind of cgroup this host can give: the real kernel, in a subtree of our own.

A hybrid host gives three: v1 with the v2 tree, v1 alone, and a v2 tree (there without controllers, so what needs them
is skipped).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.errors import BakehouseError, InvalidArgument, NotFound
from supervisor.linux import cgroup, cgroup_v1
from supervisor.linux.cgroup import UNLIMITED, Ability, CgroupLimits, Cgroups
from supervisor.linux.cgroup_model import Rate
from supervisor.runtime.owner_groups import disks
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

MIB = 1 << 20


def find(kind: str, name: str) -> Cgroups:
    mounted = cgroup.mounted(Path("/proc/self/mountinfo").read_text())
    if kind == "v2":
        if mounted.v2 is None:
            pytest.skip("no cgroup v2 tree is mounted")
        return (
            cgroup.detect(name) if not mounted.v1 else cgroup.at_trunk(mounted.v2, mounted.v2, name)
        )
    if not mounted.v1:
        pytest.skip("no cgroup v1 hierarchies are mounted")
    if kind == "v1":
        return cgroup_v1.CgroupsV1(mounted.v1, name, cgroup_v1.missing(mounted.v1, None))
    if mounted.v2 is None:
        pytest.skip("no cgroup v2 tree is mounted beside v1")
    return cgroup.detect(name)


@pytest.fixture(params=["v1", "hybrid", "v2"])
def groups(request: pytest.FixtureRequest) -> Iterator[Cgroups]:
    found = find(str(request.param), f"bhtest-{os.getpid()}")
    yield found
    found.kill("")
    until(lambda: found.remove(""))
    assert files_of(found, "cgroup.procs") == []


def files_of(groups: Cgroups, name: str) -> list[Path]:
    """The kernel's files of that name in the tree; others' groups come and go meanwhile."""
    return [
        Path(path, name)
        for path, _, names in os.walk("/sys/fs/cgroup")
        if name in names and groups.root in Path(path).parts
    ]


class Started:
    """Processes started inside groups, all ended and reaped at the end."""

    def __init__(self, groups: Cgroups) -> None:
        self.groups = groups
        self.processes: list[subprocess.Popen[bytes]] = []

    def __call__(self, group: str, *argv: str) -> subprocess.Popen[bytes]:
        fds = self.groups.entry_fds(group)
        try:
            process = subprocess.Popen(
                argv,
                preexec_fn=lambda: [os.write(fd, b"0") for fd in fds] and None,  # noqa: PLW1509 - no threads here
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        finally:
            for fd in fds:
                os.close(fd)
        self.processes.append(process)
        return process


@pytest.fixture
def start(groups: Cgroups) -> Iterator[Started]:
    started = Started(groups)
    yield started
    groups.kill("")
    for process in started.processes:
        process.kill()
        process.wait(10)


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-S", "-c", code)


def needs(groups: Cgroups, controller: str) -> None:
    for words in groups.lacks:
        if "controller is not given" in words and controller in words:
            pytest.skip(words)


# ------------------------------------------------------------------ groups


def test_a_group_is_made_with_its_parents_and_again(groups: Cgroups) -> None:
    assert not groups.exists("u1/a")
    groups.create("u1/a")
    groups.create("u1/a")
    assert groups.exists("u1")
    assert groups.exists("u1/a")
    groups.create("u1/b")
    assert groups.children("u1") == ["a", "b"]
    assert groups.children("") == ["u1"]
    assert groups.children("u2") == []


def test_who_enters_is_seen_from_above_and_below(groups: Cgroups, start: Started) -> None:
    groups.create("u1/a")
    groups.create("u1/b")
    process = start("u1/a", "sleep", "100")
    assert groups.pids("u1/a") == [process.pid]
    assert groups.pids("u1") == [process.pid]
    assert groups.pids("") == [process.pid]
    assert groups.pids("u1/b") == []
    inside = Path(f"/proc/{process.pid}/cgroup").read_text()
    assert inside.count(groups.runtime_path("u1/a")) == len(groups.entry_paths("u1/a"))


def test_a_populated_group_stays_until_its_end(groups: Cgroups, start: Started) -> None:
    groups.create("u1/a")
    process = start("u1/a", "sleep", "100")
    assert not groups.remove("u1")
    assert groups.exists("u1/a")
    groups.kill("u1/a")
    assert process.wait(5) == -signal.SIGKILL
    until(lambda: groups.remove("u1"))
    assert not groups.exists("u1")
    assert groups.remove("u1")


def test_removing_takes_what_was_made_inside_too(groups: Cgroups) -> None:
    groups.create("u1/a/deep/deeper")
    assert groups.remove("u1/a")
    assert groups.children("u1") == []


def test_kill_reaches_everything_below_and_nothing_beside(groups: Cgroups, start: Started) -> None:
    groups.create("u1/a")
    groups.create("u1/b")
    groups.create("u2/a")
    killed = [start("u1/a", "sleep", "100"), start("u1/b", "sleep", "100")]
    spared = start("u2/a", "sleep", "100")
    groups.kill("u1")
    assert [process.wait(5) for process in killed] == [-signal.SIGKILL] * 2
    assert spared.poll() is None


def test_kill_wins_over_a_fork_bomb(groups: Cgroups, start: Started) -> None:
    groups.create("u1/bomb", CgroupLimits(pids=60))
    ignoring = "import signal; signal.signal(15, signal.SIG_IGN)\n"
    bomb = ignoring + "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass\n"
    if "pids" in " ".join(groups.lacks):
        bomb = (
            ignoring
            + "import os\nfor _ in range(5): os.fork()\nwhile True: os.fork() or os._exit(0)\n"
        )
    start("u1/bomb", *python(bomb))
    until(lambda: len(groups.pids("u1/bomb")) > 20)
    groups.kill("u1/bomb")
    until(lambda: groups.pids("u1/bomb") == [])
    until(lambda: groups.remove("u1/bomb"))


def test_frozen_stands_still_and_can_be_killed(groups: Cgroups, start: Started) -> None:
    groups.create("u1/a")
    process = start("u1/a", *python("while True: pass"))
    groups.freeze("u1/a", True)
    until(lambda: groups.frozen("u1/a"))
    before = _ticks(process.pid)
    time.sleep(0.1)
    assert _ticks(process.pid) == before
    groups.freeze("u1/a", False)
    until(lambda: not groups.frozen("u1/a"))
    until(lambda: _ticks(process.pid) > before)
    groups.freeze("u1/a", True)
    until(lambda: groups.frozen("u1/a"))
    groups.kill("u1/a")
    assert process.wait(5) == -signal.SIGKILL
    until(lambda: groups.remove("u1/a"))


def _ticks(pid: int) -> int:
    """Processor time used: utime and stime of /proc/pid/stat."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(words[11]) + int(words[12])


# ------------------------------------------------------------------ limits


def test_no_more_processes_than_allowed(groups: Cgroups, start: Started) -> None:
    needs(groups, "pids")
    groups.create("u1/a", CgroupLimits(pids=5))
    code = "import os,time\nn=1\ntry:\n  while n<50:\n    if os.fork()==0: time.sleep(100)\n    n+=1\nexcept OSError: os._exit(n)"
    assert start("u1/a", *python(code)).wait(10) == 5
    sample = groups.sample("u1/a")
    assert (sample.pids, sample.pids_limit) == (4, 5)
    groups.limit("u1/a", CgroupLimits(pids=UNLIMITED))
    assert groups.sample("u1/a").pids_limit is None


def test_out_of_memory_is_counted_where_it_happened(groups: Cgroups, start: Started) -> None:
    needs(groups, "memory")
    groups.create("u1/a", CgroupLimits(memory_bytes=32 * MIB, memory_swap_bytes=32 * MIB))
    groups.create("u1/b")
    assert groups.sample("u1/a").memory_limit_bytes == 32 * MIB
    assert groups.oom_kills("u1/a") == 0
    hog = start("u1/a", *python("b=bytearray(200<<20)"))
    assert hog.wait(20) == -signal.SIGKILL
    until(lambda: groups.oom_kills("u1/a") == 1)
    assert groups.oom_kills("u1/b") == 0
    assert groups.sample("u1/a").oom_kills == 1
    assert groups.sample("u1/a").memory_peak_bytes > 16 * MIB
    details = groups.details("u1/a")
    assert details.memory.keys() & {"total_rss", "anon"}
    assert groups.details("u1/nobody").memory == {}


def test_a_memory_limit_goes_up_and_down_and_away(groups: Cgroups) -> None:
    needs(groups, "memory")
    groups.create("u1/a", CgroupLimits(memory_bytes=32 * MIB, memory_swap_bytes=32 * MIB))
    for mib in (64, 48, 256):
        groups.limit("u1/a", CgroupLimits(memory_bytes=mib * MIB, memory_swap_bytes=mib * MIB))
        assert groups.sample("u1/a").memory_limit_bytes == mib * MIB
    groups.limit("u1/a", CgroupLimits(pids=9))
    assert groups.sample("u1/a").memory_limit_bytes == 256 * MIB
    groups.limit("u1/a", CgroupLimits(memory_bytes=UNLIMITED, memory_swap_bytes=UNLIMITED))
    assert groups.sample("u1/a").memory_limit_bytes is None


def test_a_parent_bounds_all_its_children(groups: Cgroups, start: Started) -> None:
    needs(groups, "pids")
    groups.create("u1", CgroupLimits(pids=3))
    groups.create("u1/a")
    groups.create("u1/b")
    start("u1/a", "sleep", "100")
    code = "import os,time\nn=1\ntry:\n  while n<50:\n    if os.fork()==0: time.sleep(100)\n    n+=1\nexcept OSError: os._exit(n)"
    assert start("u1/b", *python(code)).wait(10) == 2


def share_of(groups: Cgroups, group: str) -> float:
    """The part of one processor that a group takes for a while; on a busy host less than it may."""
    time.sleep(0.2)
    first = groups.sample(group)
    time.sleep(1.0)
    second = groups.sample(group)
    return (second.cpu_usage_ns - first.cpu_usage_ns) / (second.time_ns - first.time_ns)


def test_a_quota_throttles(groups: Cgroups, start: Started) -> None:
    needs(groups, "cpu")
    groups.create("u1/a", CgroupLimits(cpu_quota_microseconds=5_000))
    start("u1/a", *python("while True: pass"))
    assert 0 < share_of(groups, "u1/a") < 0.15
    until(lambda: groups.sample("u1/a").cpu_throttled_periods > 0)
    until(lambda: groups.sample("u1/a").cpu_throttled_ns > 0)
    groups.limit("u1/a", CgroupLimits(cpu_quota_microseconds=UNLIMITED))


def test_a_part_that_is_larger_than_its_parents_is_bounded_by_it(
    groups: Cgroups, start: Started
) -> None:
    """cgroup v1 refuses to bound a parent below its child."""
    needs(groups, "cpu")
    groups.create("u1/a/deep", CgroupLimits(cpu_quota_microseconds=90_000))
    groups.create("u1/b", CgroupLimits(cpu_quota_microseconds=10_000))
    groups.limit("u1", CgroupLimits(cpu_quota_microseconds=20_000))
    start("u1/a/deep", *python("while True: pass"))
    assert 0 < share_of(groups, "u1") < 0.35
    name = "cpu.max" if groups.kind == "v2" else "cpu.cfs_quota_us"
    (kept,) = [path for path in files_of(groups, name) if path.parent.name == "b"]
    assert kept.read_text().split()[0] == "10000", "smaller ones stay"


def test_a_disk_is_bounded_and_freed(groups: Cgroups) -> None:
    needs(groups, "io")
    device = next(iter(disks()), "")
    if not device or Ability.IO_RATES not in groups.abilities:
        pytest.skip("needs a disk whose traffic can be bounded")
    groups.create("u1", CgroupLimits(io_rates=((device, Rate.READ_BYTES, UNLIMITED),)))
    groups.limit("u1", CgroupLimits(io_rates=((device, Rate.READ_BYTES, 1_048_576),)))
    v2 = groups.kind == "v2"
    name = "io.max" if v2 else "blkio.throttle.read_bps_device"
    (path,) = [found for found in files_of(groups, name) if found.parent.name == "u1"]
    assert path.read_text().split()[:2] == [device, "rbps=1048576" if v2 else "1048576"]
    groups.limit("u1", CgroupLimits(io_rates=((device, Rate.READ_BYTES, UNLIMITED),)))
    assert path.read_text() == ""


def test_weights_reach_the_kernel_in_proportion(groups: Cgroups) -> None:
    needs(groups, "cpu")
    groups.create("u1", CgroupLimits(cpu_weight=100))
    groups.create("u2", CgroupLimits(cpu_weight=300))
    name = "cpu.weight" if groups.kind == "v2" else "cpu.shares"
    found = [
        *Path("/sys/fs/cgroup").glob(f"*/{groups.root}/u?/{name}"),
        *Path("/sys/fs/cgroup", groups.root).glob(f"u?/{name}"),
    ]
    values = {path.parent.name: int(path.read_text()) for path in found}
    assert values["u2"] == 3 * values["u1"]


def test_a_cpuset_holds(groups: Cgroups, start: Started) -> None:
    needs(groups, "cpuset")
    groups.create("u1/a", CgroupLimits(cpuset_cpus="0"))
    groups.create("u1/b")
    one, all_of_them = start("u1/a", "sleep", "100"), start("u1/b", "sleep", "100")
    assert os.sched_getaffinity(one.pid) == {0}
    assert len(os.sched_getaffinity(all_of_them.pid)) == os.cpu_count()


def test_use_is_measured(groups: Cgroups, start: Started) -> None:
    groups.create("u1/a")
    start("u1/a", *python("b=bytearray(b'x')*(40<<20)\nwhile True: pass"))
    until(lambda: groups.sample("u1/a").cpu_usage_ns > 50_000_000)
    if not any("memory" in words and "not given" in words for words in groups.lacks):
        until(lambda: groups.sample("u1/a").memory_anon_bytes > 30 * MIB)
        assert groups.sample("u1/a").memory_bytes > 30 * MIB
        assert groups.sample("u1").memory_bytes > 30 * MIB
    assert groups.sample("u1").cpu_usage_ns > 50_000_000
    if groups.kind != "v1":
        assert groups.sample("u1/a").pressure.cpu is not None


# ------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    "name", ["", "..", "u1/..", "/u1", "u1//a", "u1/", "U1", "u1/a b", "-x", ".x", "x\n", "a" * 200]
)
def test_a_hostile_name_is_no_path(groups: Cgroups, name: str) -> None:
    with pytest.raises(InvalidArgument):
        groups.create(name)


def test_what_is_not_there_is_told(groups: Cgroups) -> None:
    for verb in (
        lambda: groups.limit("u1/none", CgroupLimits(pids=1)),
        lambda: groups.entry_fds("u1/none"),
        lambda: groups.sample("u1/none"),
        lambda: groups.freeze("u1/none", True),
    ):
        with pytest.raises(NotFound, match=r"cannot \w+ cgroup u1/none"):
            verb()
    assert groups.pids("u1/none") == []
    assert groups.oom_kills("u1/none") == 0
    assert not groups.frozen("u1/none")
    groups.kill("u1/none")


def test_a_limit_without_sense_is_refused_in_words(groups: Cgroups) -> None:
    needs(groups, "cpuset")
    groups.create("u1/a")
    with pytest.raises(BakehouseError, match="cannot limit cgroup u1/a"):
        groups.limit("u1/a", CgroupLimits(cpuset_cpus="900"))


def test_what_the_host_lacks_is_told_in_words(groups: Cgroups) -> None:
    assert all(": " in words for words in groups.lacks)
    assert any("memory.high" in words for words in groups.lacks) == (groups.kind != "v2")


RULES = ("c *:* m", "c 1:3 rwm", "c 1:5 r", "b 7:* r")
TRY = """
import os, sys
for path, flags in (("null", 2), ("zero", 0), ("zero", 1), ("full", 0), ("loop-control", 0), ("loop0", 0), ("loop0", 1)):
    try:
        os.close(os.open("/dev/" + path, flags))
    except PermissionError:
        sys.stdout.write("-")
    except OSError as error:
        sys.stdout.write("?" + path)
    else:
        sys.stdout.write("+")
"""


def test_only_the_devices_that_are_named_can_be_used(groups: Cgroups) -> None:
    if not groups.confines_devices:
        pytest.skip("the kernel filters no devices here")
    if not Path("/dev/loop-control").exists() or not Path("/dev/loop0").exists():
        pytest.skip("needs loop devices")
    groups.create("u1/free")
    groups.create("u1/bound")
    groups.confine_devices("u1/bound", RULES)
    seen = {}
    for group in ("u1/free", "u1/bound"):
        fds = groups.entry_fds(group)
        seen[group] = subprocess.run(
            [sys.executable, "-I", "-c", TRY],
            preexec_fn=lambda fds=fds: [os.write(fd, b"0") for fd in fds] and None,  # type: ignore[misc]
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for fd in fds:
            os.close(fd)
    assert seen == {"u1/free": "+++++++", "u1/bound": "++---+-"}

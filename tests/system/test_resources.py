"""What a container may use, as the kernel has it; and what this host cannot limit, told as warnings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.accounts import People, User
from tests.support.asking import ask
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

V1 = Path("/sys/fs/cgroup/memory").is_dir()
DISK = next(
    (f"/dev/{name}" for name in sorted(os.listdir("/sys/block")) if Path(f"/dev/{name}").exists()),
    "",
)


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    for user in (None, two_users.ada):
        daemon.import_busybox(user=user)
    return daemon


@pytest.fixture(params=["root", "ada"])
def who(request: pytest.FixtureRequest, two_users: People) -> User | None:
    return two_users.ada if request.param == "ada" else None


@contextmanager
def running(daemon: Daemon, user: User | None, *options: str) -> Iterator[Mapping[str, Path]]:
    """The cgroups of a container, by controller."""
    run = ("run", "-d", *options, "busybox", "sleep", "600")
    made = daemon.docker(*run, user=user).stdout.strip()
    try:
        pid = daemon.docker("inspect", "-f", "{{.State.Pid}}", made, user=user).stdout.strip()
        found = {}
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            _, names, path = line.split(":", 2)
            for name in names.split(",") if names else ["unified"] if V1 else ["v2"]:
                mount = Path("/sys/fs/cgroup") / name if V1 else Path("/sys/fs/cgroup")
                found[name] = mount / path.lstrip("/")
        yield found
    finally:
        daemon.docker("rm", "-f", made, user=user)


LIMITS = (
    "--memory", "64m", "--memory-swap", "96m", "--memory-reservation", "32m", "--cpu-shares", "512",
    "--cpu-period", "50000", "--cpu-quota", "25000", "--cpuset-cpus", "0", "--cpuset-mems", "0",
    "--pids-limit", "77", "--memory-swappiness", "7",
)  # fmt: skip


@pytest.mark.skipif(not V1, reason="needs cgroup v1 controllers")
def test_limits_are_the_kernels(ready: Daemon, who: User | None) -> None:
    with running(ready, who, *LIMITS, "--cgroup-parent", "jobs/nightly") as groups:
        told = {
            name: (groups[controller] / name).read_text().strip()
            for controller, name in (
                ("memory", "memory.limit_in_bytes"),
                ("memory", "memory.soft_limit_in_bytes"),
                ("memory", "memory.swappiness"),
                ("cpu", "cpu.shares"),
                ("cpu", "cpu.cfs_period_us"),
                ("cpu", "cpu.cfs_quota_us"),
                ("cpuset", "cpuset.cpus"),
                ("cpuset", "cpuset.mems"),
                ("pids", "pids.max"),
            )
        }
        assert told == {
            "memory.limit_in_bytes": str(64 << 20),
            "memory.soft_limit_in_bytes": str(32 << 20),
            "memory.swappiness": "7",
            "cpu.shares": "512",
            "cpu.cfs_period_us": "50000",
            "cpu.cfs_quota_us": "25000",
            "cpuset.cpus": "0",
            "cpuset.mems": "0",
            "pids.max": "77",
        }
        owner = groups["memory"].parents[2]
        assert owner.name == f"u{who.uid if who else 0}"
        assert groups["memory"].relative_to(owner).parts[:2] == ("p-jobs", "p-nightly")
    assert not (owner / "p-jobs").exists(), "empty parents go"


@pytest.mark.skipif(not (V1 and DISK), reason="needs cgroup v1 controllers and a disk")
def test_a_disk_is_bounded_for_administrators(ready: Daemon, two_users: People) -> None:
    number = Path(DISK).stat().st_rdev
    device = f"{os.major(number)}:{os.minor(number)}"
    rates = ("--device-read-bps", f"{DISK}:1mb", "--device-write-iops", f"{DISK}:99")
    with running(ready, None, *rates) as groups:
        blkio = groups["blkio"]
        assert (blkio / "blkio.throttle.read_bps_device").read_text().split() == [
            device,
            str(1 << 20),
        ]
        assert (blkio / "blkio.throttle.write_iops_device").read_text().split() == [device, "99"]
    refused = ready.docker("create", *rates, "busybox", "true", user=two_users.ada, check=False)
    assert "rule device" in refused.stderr


def test_what_is_said_is_shown(ready: Daemon, who: User | None) -> None:
    made = ready.docker("create", *LIMITS, "--cgroup-parent", "jobs", "busybox", "true", user=who)
    shown = json.loads(ready.docker("inspect", made.stdout.strip(), user=who).stdout)[0]
    ready.docker("rm", made.stdout.strip(), user=who)
    host = shown["HostConfig"]
    assert (host["Memory"], host["MemorySwap"]) in {(64 << 20, 96 << 20), (64 << 20, -1)}
    assert (host["CpuPeriod"], host["CpuQuota"], host["CpuShares"]) == (50_000, 25_000, 512)
    assert (host["CpusetCpus"], host["CpusetMems"], host["PidsLimit"]) == ("0", "0", 77)
    assert host["CgroupParent"] == "jobs"


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"Memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"Memory": 1 << 24, "MemorySwap": 1 << 23}, "Minimum memoryswap limit should be larger"),
        ({"MemorySwap": 1 << 24}, "You should always set the Memory limit"),
        (
            {"Memory": 1 << 24, "MemoryReservation": 1 << 25},
            "can not be less than memory reservation",
        ),
        ({"MemorySwappiness": 101}, "MemorySwappiness"),
        ({"CpuPeriod": 9}, "CPU cfs period can not be less than 1ms"),
        ({"CpuQuota": 9}, "CPU cfs quota can not be less than 1ms"),
        ({"NanoCpus": 10**9, "CpuPeriod": 5_000}, "Nano CPUs and CPU Period cannot both be set"),
        ({"CpusetCpus": "4096"}, "Requested CPUs are not available"),
        ({"CpusetMems": "4096"}, "Requested memory nodes are not available"),
        ({"BlkioWeight": 9}, "Range of blkio weight is from 10 to 1000"),
        ({"CpuRealtimeRuntime": 9}, "CpuRealtimeRuntime"),
        ({"CgroupParent": "a/../../x"}, "cgroup"),
        ({"IOMaximumIOps": 1}, "IOMaximumIOps"),
    ],
)
def test_what_makes_no_sense(ready: Daemon, host: dict[str, object], words: str) -> None:
    body = {"Image": "busybox", "HostConfig": host, "Cmd": ["true"]}
    answer = ask(ready, "POST", "/containers/create", body)
    assert answer.status == 400, answer
    assert words in answer.message


@pytest.mark.skipif(
    not V1 or Path("/sys/fs/cgroup/blkio/blkio.weight").exists(), reason="this host can"
)
def test_what_this_host_cannot_limit_is_a_warning(ready: Daemon, two_users: People) -> None:
    body = {"Image": "busybox", "HostConfig": {"BlkioWeight": 300}, "Cmd": ["true"]}
    answer = ask(ready, "POST", "/containers/create", body, user=two_users.ada)
    assert answer.status == 201
    told = json.loads(answer.body)
    assert told["Warnings"] == [
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded."
    ]
    ask(ready, "DELETE", f"/containers/{told['Id']}", user=two_users.ada)


@pytest.mark.parametrize("namespace", ["host", "private"])
def test_a_container_sees_its_own_group_and_cannot_change_it(
    ready: Daemon, two_users: People, namespace: str
) -> None:
    """As in Docker, read-only; nobody else's group is there. The host's view of paths is for administrators."""
    script = """
        cd /sys/fs/cgroup; [ -d memory ] && cd memory
        cat memory.limit_in_bytes memory.max 2>/dev/null
        echo 1 2>/dev/null >cgroup.procs || echo ro; mkdir x 2>/dev/null || echo ro
        find / -xdev -type d -name 'u[0-9]*' 2>/dev/null; find /sys/fs/cgroup -mindepth 3 -type d -name 'u[0-9]*'
        echo paths; grep -c bakehouse /proc/self/cgroup
    """
    run = ("run", "--rm", "--memory", "64m")
    user = two_users.ada
    shown = ready.docker(*run, "busybox", "sh", "-c", script, user=user, check=False).stdout
    assert shown.split()[:4] == [str(64 << 20), "ro", "ro", "paths"]
    chosen = ready.docker(*run, "--cgroupns", namespace, "busybox", "sh", "-c", script, check=False)
    assert (chosen.stdout.split()[-1] == "0") is (namespace == "private")
    if namespace == "host":
        refused = ready.docker(
            *run, "--cgroupns", "host", "busybox", "true", user=user, check=False
        )
        assert "rule host-namespace" in refused.stderr

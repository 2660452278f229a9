"""What is wrong with a request, told before anything is made."""

from __future__ import annotations

import attrs
import pytest

from supervisor.access.requests import (
    ContainerRequest,
    DeviceValue,
    MountKind,
    MountRequest,
    PortRequest,
    Resources,
)
from supervisor.errors import NotFound
from supervisor.linux.cgroup_model import Ability
from supervisor.oci.image import ImageConfig
from supervisor.runtime.creation import check_platform
from supervisor.runtime.discards import fitted
from supervisor.runtime.sanity import Host, request_faults

HOST = Host(cpus=2, hard_limits={"nofile": 20_000})


def faults(fields: dict[str, object], *, remapped: bool = True, host: Host = HOST) -> list[str]:
    request = ContainerRequest(image="i", **fields)  # type: ignore[arg-type]
    return [fault.message for fault in request_faults(request, host, remapped=remapped)]


def tmpfs(*options: str) -> dict[str, object]:
    return {"mounts": (MountRequest(MountKind.TMPFS, "/t", options=options),)}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"runtime": "kata"}, "unknown or invalid runtime name: kata"),
        ({"sysctls": {"kernel.core_pattern": "x"}}, "not in a separate kernel namespace"),
        ({"sysctls": {"net/../kernel/core_pattern": "x"}}, "invalid sysctl"),
        ({"sysctls": {"net..core": "x"}}, "invalid sysctl"),
        ({"sysctls": {"vm.swappiness": "1"}}, "not in a separate kernel namespace"),
        (
            {"sysctls": {"net.core.somaxconn": "1"}, "network_mode": "host"},
            "not allowed in host network namespace",
        ),
        ({"sysctls": {"kernel.shmmax": "1"}, "ipc_mode": "host"}, "not allowed in host IPC"),
        ({"ulimits": (("nofile", 1, 20_001),)}, "above the hard limit of this host, 20000"),
        ({"ulimits": (("nofile", -1, -1),)}, "above the hard limit"),
        ({"cgroup_parent": "/x"}, "below its owner's own cgroup"),
        ({"cgroup_parent": "a/../.."}, "invalid cgroup parent"),
        ({"cgroup_parent": "a/b/c/d/e"}, "invalid cgroup parent"),
        ({"resources": Resources(cpuset_mems="0-7")}, "memory nodes are not available"),
        ({"hostname": "x" * 65}, "too long (maximum 64 bytes)"),
        ({"hostname": "x", "uts_mode": "host"}, "hostname and the UTS mode"),
        (tmpfs("uid=65536"), "invalid tmpfs option 'uid=65536'"),
        (tmpfs("gid=www"), "invalid tmpfs option 'gid=www'"),
        (tmpfs("oven=hot"), "invalid tmpfs option"),
        ({"mounts": (MountRequest(MountKind.TMPFS, "/" + "x" * 256),)}, "file name too long"),
        ({"mounts": (MountRequest(MountKind.TMPFS, "/x" * 2_048),)}, "file name too long"),
        ({"security_opt": ("seccomp={",)}, "Decoding seccomp profile failed"),
    ],
)
def test_a_fault_is_told(fields: dict[str, object], words: str) -> None:
    (told,) = faults(fields)
    assert words in told


@pytest.mark.parametrize(
    "fields",
    [
        {"sysctls": {"net.core.somaxconn": "1", "kernel.shmmax": "2", "fs.mqueue.msg_max": "3"}},
        {"sysctls": {"net.ipv4.conf.eth0.forwarding": "1"}},
        {"ulimits": (("nofile", 1, 20_000), ("core", -1, -1))},
        {"runtime": "crun", "hostname": "x" * 64},
        tmpfs("uid=65535", "gid=0", "nr_inodes=10k", "noexec"),
    ],
)
def test_what_makes_sense_has_no_fault(fields: dict[str, object]) -> None:
    assert faults(fields) == []


def test_who_is_not_remapped_has_every_id_and_who_may_raises_limits() -> None:
    assert faults(tmpfs("uid=100000"), remapped=False) == []
    able = attrs.evolve(HOST, raises_limits=True)
    assert faults({"ulimits": (("nofile", 1, 1_048_576),)}, host=able) == []


EVERYTHING = Resources(
    memory_bytes=1 << 27,
    memory_swap_bytes=1 << 28,
    memory_reservation_bytes=1 << 26,
    cpu_nanos=10**9,
    cpu_shares=512,
    cpuset_cpus="0",
    pids_max=9,
    io_weight=300,
    oom_kill_disable=True,
    swappiness=7,
    io_device_weights=(DeviceValue("/dev/x", 100),),
    read_bytes_max=(DeviceValue("/dev/x", 1),),
    write_operations_max=(DeviceValue("/dev/x", 1),),
)


def test_what_the_host_cannot_limit_is_left_out_with_a_warning() -> None:
    request = ContainerRequest(image="i", resources=EVERYTHING)
    assert fitted(request, frozenset(Ability)) == (request, [])
    bare, warnings = fitted(request, frozenset())
    assert bare.resources == Resources()
    assert len(warnings) == 12
    assert all("discarded" in warning for warning in warnings)
    partly, told = fitted(request, frozenset(Ability) - {Ability.SWAP, Ability.IO_WEIGHT})
    assert (partly.resources.memory_swap_bytes, partly.resources.io_weight) == (-1, 0)
    assert [warning.split(" or the")[0] for warning in told] == [
        "Your kernel does not support Block I/O weight",
        "Your kernel does not support swap limit capabilities",
    ]


def test_what_is_odd_is_warned_of() -> None:
    request = ContainerRequest(
        image="i",
        resources=Resources(oom_kill_disable=True),
        network_mode="host",
        ports=(PortRequest(80),),
    )
    assert [warning.split()[0] for warning in fitted(request, frozenset(Ability))[1]] == [
        "OOM",
        "Published",
    ]


@pytest.mark.parametrize(
    ("platform", "fits"),
    [("", True), ("linux", True), ("linux/arm64", True), ("linux/arm64/v8", True),
     ("linux/amd64", False)],
)  # fmt: skip
def test_an_image_of_another_platform_is_not_the_one(platform: str, fits: bool) -> None:
    request = ContainerRequest(image="i", platform=platform)
    image = ImageConfig(architecture="arm64")
    if fits:
        check_platform(request, image)
    else:
        with pytest.raises(NotFound, match="does not provide the specified platform"):
            check_platform(request, image)

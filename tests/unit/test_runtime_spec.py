"""The runtime spec, seccomp, limits and signals."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.access.requests import Resources
from supervisor.errors import InvalidArgument
from supervisor.linux.idmap import IdMap, IdRange
from supervisor.runtime import seccomp
from supervisor.runtime.cgroup_tree import limits_of
from supervisor.runtime.signals import parse_signal, signal_name
from supervisor.runtime.spec import (
    DEFAULT_CAPABILITIES,
    ProcessInputs,
    SpecInputs,
    SpecMount,
    build_spec,
    default_environment,
    laid_over,
    merge_environment,
    own_file,
)

REMAPPED = IdMap((IdRange(0, 1000, 1), IdRange(1, 100001, 65535)), (IdRange(0, 1000, 1),))
PROFILE = b"""{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "archMap": null, "syscalls": [
  {"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {}, "excludes": {}},
  {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": [], "includes": {"caps": ["CAP_SYS_ADMIN"]}, "excludes": {}},
  {"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": [], "includes": {}, "excludes": {"caps": ["CAP_SYS_ADMIN"]}}
]}"""


def inputs(**changes: object) -> SpecInputs:
    return SpecInputs(ProcessInputs(("true",)), Path("/r"), **{"id_map": REMAPPED, **changes})  # type: ignore[arg-type]


def namespaces(spec: dict[str, object]) -> dict[str, str | None]:
    linux = spec["linux"]
    assert isinstance(linux, dict)
    return {entry["type"]: entry.get("path") for entry in linux["namespaces"]}


def test_a_remapped_container_joins_its_owners_namespace_and_says_the_map() -> None:
    spec = build_spec(inputs(user_namespace=Path("/u"), network_namespace=Path("/n")))
    assert namespaces(spec) == {
        "mount": None, "pid": None, "ipc": None, "uts": None, "network": "/n", "user": "/u",
    }  # fmt: skip
    linux = spec["linux"]
    assert isinstance(linux, dict)
    assert linux["uidMappings"][1] == {"containerID": 1, "hostID": 100001, "size": 65535}


def test_beside_the_hosts_network_sysfs_is_bound_where_it_cannot_be_mounted() -> None:
    mounts = build_spec(inputs())["mounts"]
    assert isinstance(mounts, list)
    sys = next(mount for mount in mounts if mount["destination"] == "/sys")
    assert (sys["type"], sys["source"]) == ("bind", "/sys")


def test_a_file_of_the_run_directory_keeps_the_flags_of_run() -> None:
    hosts = own_file("/etc/hosts", "/run/x/hosts", read_only=True)
    assert set(hosts.options) == {"rbind", "ro", "nosuid", "nodev", "noexec"}
    script = own_file("/dev/pipes/EOF", "/run/x/script", read_only=False, executable=True)
    assert set(script.options) == {"rbind", "rw", "nosuid", "nodev"}


def test_ones_own_mount_takes_the_place_of_a_standard_one() -> None:
    mounts = build_spec(inputs(mounts=(SpecMount("/dev/shm", "/mine"),)))["mounts"]
    assert isinstance(mounts, list)
    assert [m["source"] for m in mounts if m["destination"] == "/dev/shm"] == ["/mine"]


def test_environments_merge_and_a_bare_name_unsets() -> None:
    assert merge_environment(["A=1", "B=2"], ["A=3", "B", "C="]) == ("A=3", "C=")
    assert laid_over(["A=1", "B=2"], ["B"]) == ("A=1", "B")
    assert "HOSTNAME=web" not in default_environment(["HOSTNAME"], "web", "/root", terminal=False)
    assert default_environment(["HOME=/h"], "web", "/root", terminal=True)[-1] == "HOME=/h"


def test_seccomp_rules_are_decided_by_capability() -> None:
    profile = seccomp.parse_profile(PROFILE.replace(b"null", b"[]"))
    without = seccomp.runtime_seccomp(profile, frozenset(DEFAULT_CAPABILITIES))["syscalls"]
    with_it = seccomp.runtime_seccomp(profile, frozenset({"CAP_SYS_ADMIN"}))["syscalls"]
    assert isinstance(without, list)
    assert isinstance(with_it, list)
    assert [(rule["names"], rule["action"]) for rule in without[1:]] == [
        (["mount"], "SCMP_ACT_ERRNO")
    ]
    assert [(rule["names"], rule["action"]) for rule in with_it[1:]] == [
        (["mount"], "SCMP_ACT_ALLOW")
    ]


def test_limits() -> None:
    limits = limits_of(Resources(cpu_nanos=1_500_000_000, memory_bytes=64), 100)
    assert (limits.cpu_quota_microseconds, limits.cpu_period_microseconds) == (150_000, 100_000)
    assert limits.memory_swap_bytes == 128
    assert limits.pids == 100
    assert limits_of(Resources(pids_max=-1), 100).pids == -1


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGKILL", 9), ("9", 9), ("sigrtmin+3", 37), ("RTMAX-1", 63), ("RTMIN", 34)],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NOPE", "-1", "RTMIN+x", "9" * 400])
def test_what_is_no_signal(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid signal"):
        parse_signal(text)


def test_signal_names() -> None:
    assert signal_name(15) == "SIGTERM"
    assert signal_name(40) == "40"

"""The policy table: every field has its line, and each rule refuses what it should, by name."""

from __future__ import annotations

import inspect

import attrs
import pytest

from supervisor.access import requests, rules
from supervisor.access.identity import Identity, Role
from supervisor.access.policy import UNLISTED, Action, Bounds, Request, check, decide
from supervisor.access.requests import (
    BuildRequest,
    ContainerRequest,
    DeviceRequest,
    DeviceValue,
    EndpointRequest,
    ExecRequest,
    LogRequest,
    MountKind,
    MountRequest,
    NetworkRequest,
    PoolRequest,
    PortRequest,
    Resources,
    VolumeRequest,
)
from supervisor.access.rules import TABLE
from supervisor.access.served import check_served
from supervisor.config import Config
from supervisor.errors import InvalidArgument, PermissionDenied

USER = Identity(uid=1_000, gid=1_000, groups=(1_000,), user="ada", home="/home/ada", role=Role.USER)
ADMIN = attrs.evolve(USER, role=Role.ADMIN)
BOUNDS = Bounds.of(Config(), {"nofile": 20_000})


def container(**fields: object) -> ContainerRequest:
    return ContainerRequest(image="debian", **fields)  # type: ignore[arg-type]


def bind(source: str, **fields: object) -> ContainerRequest:
    mount = MountRequest(kind=MountKind.BIND, source=source, target="/x", **fields)  # type: ignore[arg-type]
    return container(mounts=(mount,))


def rules_of(request: Request, identity: Identity = USER) -> list[str]:
    return [refusal.rule for refusal in decide(identity, request, BOUNDS, TABLE).refusals]


REFUSED: list[tuple[Request, list[str]]] = [
    (container(privileged=True), ["privileged"]),
    (container(pid_mode="host"), ["host-namespace"]),
    (container(ipc_mode="host"), ["host-namespace"]),
    (container(uts_mode="host"), ["host-namespace"]),
    (container(userns_mode="host"), ["host-namespace"]),
    (container(cgroupns_mode="host"), ["host-namespace"]),
    (container(network_mode="host"), ["host-namespace"]),
    (container(network_mode="ns:/proc/1/ns/net"), ["foreign-namespace"]),
    (
        container(endpoints=(EndpointRequest("lab", mac_address="02:00:00:00:00:01"),)),
        ["address"],
    ),
    (NetworkRequest("lab", pools=(PoolRequest("192.0.2.0/24"),)), ["subnet"]),
    (NetworkRequest("lab", pools=(PoolRequest("10.208.0.0/11"),)), ["subnet"]),
    (NetworkRequest("lab", pools=(PoolRequest("10.208.0.0/12"),)), ["subnet"]),
    (NetworkRequest("lab", pools=(PoolRequest("10.208.0.0/19"),)), ["subnet"]),
    (NetworkRequest("lab", pools=(PoolRequest("fdba:5e00::/63"),)), ["subnet"]),
    (NetworkRequest("lab", pools=(PoolRequest("x"),)), ["subnet"]),
    (
        NetworkRequest("lab", options={"com.docker.network.bridge.name": "br0"}),
        ["network-option"],
    ),
    (BuildRequest(network_mode="container:web"), ["network"]),
    (container(devices=(DeviceRequest("/dev/sda", "/dev/sda"),)), ["device"]),
    (container(cap_add=("SYS_ADMIN", "cap_net_admin", "CHOWN")), ["capability", "capability"]),
    (container(cap_add=("ALL",)), ["capability"]),
    (
        container(ports=(PortRequest(80, host_port=80), PortRequest(81, host_port=8_080))),
        ["low-port"],
    ),
    (container(security_opt=("seccomp=unconfined",)), ["seccomp-unconfined"]),
    (
        container(security_opt=("seccomp=/etc/profile.json", "apparmor=mine", "label=type:x")),
        ["seccomp-unconfined", "security-option", "security-option"],
    ),
    (container(security_opt=("systempaths=unconfined",)), ["masked-paths"]),
    (container(masked_paths=()), ["masked-paths"]),
    (container(readonly_paths=()), ["masked-paths"]),
    (container(cgroup_parent="/system.slice"), ["cgroup-parent"]),
    (container(cgroup_parent="jobs/../../u0"), ["cgroup-parent"]),
    (
        container(resources=Resources(read_bytes_max=(DeviceValue("/dev/sda", 1),))),
        ["device"],
    ),
    (container(runtime="/tmp/mine"), ["runtime"]),
    (
        container(sysctls={"kernel.core_pattern": "|/x", "net.ipv4.ip_forward": "1"}),
        ["sysctl", "sysctl"],
    ),
    (container(annotations={"run.oci.keep_original_groups": "1"}), ["annotations"]),
    (container(unknown_fields=("HostConfig.X",)), ["unknown-field"]),
    (container(oom_score_adj=-500), ["oom-score"]),
    (container(ulimits=(("nofile", 1_024, 1_048_576), ("core", -1, -1))), ["ulimit"]),
    (container(ulimits=(("nofile", -1, -1),)), ["ulimit"]),
    (container(resources=Resources(oom_kill_disable=True)), ["oom-kill"]),
    (container(log=LogRequest("syslog", {"path": "/etc/cron.d/x"})), ["log-driver", "log-path"]),
    (container(log=LogRequest("journald")), ["log-driver"]),
    (container(log=LogRequest("json-file", {"max-size": "2g"})), ["log-size"]),
    (container(log=LogRequest("json-file", {"max-file": "1000"})), ["log-size"]),
    (bind("/home/ada", propagation="shared"), ["propagation"]),
    (bind("/proc/1/root"), ["mount-source"]),
    (bind("//sys/"), ["mount-source"]),
    (bind("/home/../dev/sda"), ["mount-source"]),
    (ExecRequest(command=("id",), privileged=True), ["privileged"]),
    (
        BuildRequest(network_mode="host", security_opt=("seccomp=unconfined",)),
        ["host-namespace", "seccomp-unconfined"],
    ),
    (
        BuildRequest(resources=Resources(oom_kill_disable=True), cgroup_parent="/"),
        ["oom-kill", "cgroup-parent"],
    ),
    (VolumeRequest(options={"type": "none", "o": "bind", "device": "/proc/1"}), ["mount-source"]),
    (VolumeRequest(driver="nfs"), ["volume-driver"]),
]

ALLOWED: list[Request] = [
    container(),
    container(
        name="web", tty=True, open_stdin=True, user="33", read_only_rootfs=True, auto_remove=True
    ),
    container(cap_drop=("ALL",), cap_add=("CHOWN", "CAP_NET_BIND_SERVICE", "setuid")),
    container(security_opt=("no-new-privileges", "apparmor=unconfined", "label=disable")),
    container(security_opt=('seccomp={"defaultAction":"SCMP_ACT_ALLOW"}',), runtime="crun"),
    container(sysctls={"kernel.shmmax": "1", "fs.mqueue.msg_max": "20"}, group_add=("audio", "7")),
    container(network_mode="none"),
    container(network_mode="container:web"),
    container(
        network_mode="lab", endpoints=(EndpointRequest("lab", ("db",), ipv4_address="10.208.0.9"),)
    ),
    NetworkRequest(
        "lab",
        internal=True,
        pools=(PoolRequest("10.208.7.0/24", "10.208.7.128/25", "10.208.7.1", {"r": "10.208.7.9"}),),
        options={"com.docker.network.driver.mtu": "1400"},
    ),
    container(network_mode="bridge", ports=(PortRequest(80, host_port=8_080), PortRequest(81))),
    container(resources=Resources(memory_bytes=2**28, cpu_nanos=10**9, pids_max=50, cpu_shares=2)),
    container(ulimits=(("nofile", 1_024, 20_000), ("core", -1, -1))),
    container(sysctls={"net.core.somaxconn": "1024"}),
    container(oom_score_adj=500, shm_bytes=2**26, ipc_mode="private"),
    container(log=LogRequest("json-file", {"max-size": "10m"})),
    container(
        mounts=(MountRequest(kind=MountKind.TMPFS, target="/tmp", options=("noexec", "size=64m")),)
    ),
    bind("/home/ada/p", read_only=True, propagation="rprivate"),
    bind("/dev/shm"),
    container(volumes_from=("db:ro",), cgroup_parent="jobs/nightly"),
    bind("/process"),
    ExecRequest(command=("sh",), tty=True, user="root", working_dir="/"),
    BuildRequest(network_mode="lab-net"),
    BuildRequest(tags=("hello",), network_mode="none", build_args={"A": None}),
    VolumeRequest(name="data", labels={"a": "b"}),
    VolumeRequest(options={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}),
    VolumeRequest(options={"o": "bind", "device": "/home/ada"}),
]


@pytest.mark.parametrize(("request_", "expected"), REFUSED)
def test_users_are_refused_by_name(request_: Request, expected: list[str]) -> None:
    assert rules_of(request_) == expected


@pytest.mark.parametrize("request_", ALLOWED)
def test_users_are_allowed_what_is_harmless(request_: Request) -> None:
    assert rules_of(request_) == []


@pytest.mark.parametrize(("request_", "_expected"), REFUSED)
def test_admins_are_allowed_everything(request_: Request, _expected: list[str]) -> None:
    assert rules_of(request_, ADMIN) == []


def test_every_field_of_every_request_has_a_line() -> None:
    known = inspect.getmembers(requests, attrs.has)
    classes = [found for _, found in known if found.__module__ == requests.__name__]
    assert len(classes) > 10
    missing = {found.__name__: rules.fields_without_line(found) for found in classes}
    assert {name: fields for name, fields in missing.items() if fields} == {}


def test_every_line_is_of_a_field() -> None:
    for request, lines in TABLE.items():
        assert set(lines) == {field.name for field in attrs.fields(request)}


def test_a_field_without_a_line_is_refused_unless_at_its_default() -> None:
    bare = {**TABLE, ContainerRequest: {"image": TABLE[ContainerRequest]["image"]}}
    assert decide(USER, container(), BOUNDS, bare).allowed
    (refusal,) = decide(USER, container(hostname="x"), BOUNDS, bare).refusals
    assert (refusal.rule, refusal.field) == (UNLISTED, "hostname")


def test_a_request_without_a_table_is_refused() -> None:
    assert not decide(USER, container(), BOUNDS, {}).allowed


def test_the_refusal_names_every_rule_and_what_is_allowed() -> None:
    verdict = decide(USER, container(privileged=True, pid_mode="host"), BOUNDS, TABLE)
    with pytest.raises(PermissionDenied) as caught:
        check(verdict, Action.CONTAINER_CREATE, "web")
    text = caught.value.text()
    assert text.startswith(
        "cannot create container web: policy does not allow it to users (host-namespace, privileged)"
    )
    assert "refused by the rule privileged: privileged is True" in text
    assert "hint: allowed: private" in text


def test_a_flood_of_refusals_is_told_briefly() -> None:
    verdict = decide(USER, container(cap_add=("ALL",) * 100_000), BOUNDS, TABLE)
    with pytest.raises(PermissionDenied) as caught:
        check(verdict, Action.CONTAINER_CREATE)
    assert len(caught.value.text()) < 20_000
    assert "and 99950 more" in caught.value.text()


def test_what_is_not_served_is_refused_by_name_to_all() -> None:
    with pytest.raises(
        InvalidArgument, match="cannot create container web: not served yet"
    ) as caught:
        check_served(container(uts_mode="x", userns_mode="y"), Action.CONTAINER_CREATE, "web")
    assert [fault.message.split()[0] for fault in caught.value.faults] == [
        "uts_mode",
        "userns_mode",
    ]


def test_parts_that_are_not_served_are_told_with_their_place() -> None:
    request = container(
        userns_mode="odd",
        mounts=(MountRequest(kind=MountKind.BIND, source="/d", target="/d", propagation="shared"),),
    )
    with pytest.raises(InvalidArgument) as caught:
        check_served(request, Action.CONTAINER_CREATE)
    assert [fault.message.split()[0] for fault in caught.value.faults] == [
        "mounts[0].propagation",
        "userns_mode",
    ]


@pytest.mark.parametrize("request_", ALLOWED)
def test_what_users_are_allowed_is_served(request_: Request) -> None:
    check_served(request_, Action.CONTAINER_CREATE)


def test_the_printed_table_has_every_field() -> None:
    printed = rules.as_markdown()
    for request in TABLE:
        assert f"### {request.__name__}\n" in printed
        for field in attrs.fields(request):
            assert f"| `{field.name}` |" in printed

"""The table: who may set each field of each request; one screen to audit per request. Pure.

A test fails when a field has no line here. :func:`as_markdown` prints the table for the documents.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs

from supervisor.access import checks
from supervisor.access.policy import Access, Check, Line, Request, Table
from supervisor.access.requests import (
    BuildRequest,
    CommitRequest,
    ContainerRequest,
    DeviceRequest,
    DeviceValue,
    EndpointRequest,
    ExecRequest,
    HealthRequest,
    LogRequest,
    MountRequest,
    NetworkRequest,
    PoolRequest,
    PortRequest,
    Resources,
    RestartRequest,
    UpdateRequest,
    VolumeRequest,
)

_FREE = Line(Access.ALLOWED)
_PARTS = Line(Access.PARTS)


def _free(*names: str) -> dict[str, Line]:
    return dict.fromkeys(names, _FREE)


def _parts(*names: str) -> dict[str, Line]:
    return dict.fromkeys(names, _PARTS)


def _admin(rule: str, allowed: str) -> Line:
    return Line(Access.ADMIN, rule, allowed)


def _bounded(rule: str, allowed: str, check: Check) -> Line:
    return Line(Access.BOUNDED, rule, allowed, check)


_BUILD_NETWORK = _bounded(
    "network", "default, bridge, none, one's own networks", checks.build_network
)
_NETWORK = _bounded(
    "foreign-namespace",
    "default, bridge, none, one's own networks, container: and one's own",
    checks.network_mode,
)
_UNKNOWN = _admin("unknown-field", "the fields of the API version the daemon speaks")
_SECURITY = _bounded(
    "security-option",
    "no-new-privileges, and a seccomp profile, which takes away from the default one",
    checks.security_options,
)
_CGROUP_PARENT = _admin("cgroup-parent", "the owner's own cgroup, by leaving it out")
_PRIVILEGED = _admin("privileged", "running without --privileged: the owner's root, not the host's")

CONTAINER: Mapping[str, Line] = {
    **_free(
        "image",
        "name",
        "command",
        "entrypoint",
        "env",
        "working_dir",
        "user",
        "labels",
        "hostname",
        "domainname",
    ),
    **_free("tty", "open_stdin", "stdin_once", "attach_stdin", "attach_stdout", "attach_stderr"),
    **_free(
        "stop_signal",
        "stop_seconds",
        "exposed_ports",
        "anonymous_volumes",
        "read_only_rootfs",
        "publish_all",
    ),
    **_free("volumes_from", "auto_remove", "links", "cap_drop", "group_add", "shm_bytes", "init"),
    **_free("dns", "dns_search", "dns_options", "extra_hosts", "platform", "isolation"),
    **_parts("health", "mounts", "ports", "resources", "log", "restart", "endpoints"),
    "network_mode": _NETWORK,
    "privileged": _PRIVILEGED,
    "pid_mode": _bounded(
        "host-namespace",
        "private, container: and one's own",
        checks.joinable({"private"}, "host-namespace"),
    ),
    "ipc_mode": _bounded(
        "host-namespace",
        "private, shareable, none, container: and one's own",
        checks.joinable(checks.OWN_IPC, "host-namespace"),
    ),
    "uts_mode": _bounded("host-namespace", "private", checks.one_of({"private"}, "host-namespace")),
    "userns_mode": _bounded("host-namespace", "remap", checks.one_of({"remap"}, "host-namespace")),
    "cgroupns_mode": _bounded(
        "host-namespace", "private", checks.one_of({"private"}, "host-namespace")
    ),
    "cgroup_parent": _bounded(
        "cgroup-parent", "a name of the owner's own, below their cgroup", checks.cgroup_parent
    ),
    "cap_add": _bounded(
        "capability", ", ".join(sorted(checks.DEFAULT_CAPABILITIES)), checks.capabilities
    ),
    "security_opt": _SECURITY,
    "devices": _admin(
        "device", "the container's own /dev: null, zero, full, random, urandom, tty, ptmx, shm"
    ),
    "device_rules": _admin("device", "the container's own /dev"),
    "sysctls": _bounded(
        "sysctl", ", ".join(sorted({*checks.SAFE_SYSCTLS, "fs.mqueue.*"})), checks.sysctls
    ),
    "ulimits": _bounded("ulimit", "limits up to the host's hard ones", checks.ulimits),
    "oom_score_adj": _bounded("oom-score", "0 and above", checks.not_negative("oom-score")),
    "runtime": _bounded(
        "runtime",
        "the runtime the daemon took, by its name",
        checks.one_of(checks.RUNTIMES, "runtime"),
    ),
    "masked_paths": _admin("masked-paths", "the default masked paths, by leaving it out"),
    "readonly_paths": _admin("masked-paths", "the default read-only paths, by leaving it out"),
    "annotations": _admin("annotations", "labels"),
    "unknown_fields": _UNKNOWN,
}

MOUNT: Mapping[str, Line] = {
    **_free(
        "kind",
        "target",
        "read_only",
        "create_source",
        "copy_up",
        "subpath",
        "size_bytes",
        "mode",
        "labels",
        "recursive",
        "read_only_recursive",
        "form",
        "spelt",
    ),
    "source": _bounded(
        "mount-source", "what the caller may read, outside /proc, /sys, /dev", checks.mount_source
    ),
    "propagation": _bounded(
        "propagation", "private, rprivate", checks.one_of(checks.PRIVATE_PROPAGATION, "propagation")
    ),
    "options": _bounded(
        "mount-option",
        ", ".join(sorted(checks.TMPFS_FLAGS | checks.TMPFS_VALUES)),
        checks.tmpfs_options,
    ),
}

PORT: Mapping[str, Line] = {
    **_free("container_port", "protocol", "host_address"),
    "host_port": _bounded(
        "low-port", "ports from network.port_first (1024), or 0 for any", checks.host_port
    ),
    "host_port_last": _bounded(
        "low-port", "ports from network.port_first (1024), or 0 for any", checks.host_port
    ),
}

RESOURCES: Mapping[str, Line] = {
    **_free(
        "memory_bytes",
        "memory_swap_bytes",
        "memory_reservation_bytes",
        "cpu_nanos",
        "cpu_quota_microseconds",
    ),
    **_free(
        "cpu_period_microseconds",
        "cpu_shares",
        "cpuset_cpus",
        "cpuset_mems",
        "pids_max",
        "io_weight",
    ),
    "swappiness": _FREE,
    **dict.fromkeys(
        (
            "io_device_weights",
            "read_bytes_max",
            "write_bytes_max",
            "read_operations_max",
            "write_operations_max",
        ),
        _admin("device", "--blkio-weight, for all disks"),
    ),
    "oom_kill_disable": _admin("oom-kill", "a memory limit that ends the container"),
}

_NO_DEVICE = _admin("device", "the container's own /dev")

TABLE: Table = {
    ContainerRequest: CONTAINER,
    MountRequest: MOUNT,
    PortRequest: PORT,
    Resources: RESOURCES,
    HealthRequest: _free("test", "interval_ns", "timeout_ns", "start_period_ns", "retries"),
    DeviceRequest: dict.fromkeys(("host_path", "container_path", "permissions"), _NO_DEVICE),
    DeviceValue: dict.fromkeys(("path", "value"), _NO_DEVICE),
    RestartRequest: _free("name", "attempts_max"),
    LogRequest: {
        "driver": _bounded(
            "log-driver",
            "json-file, local, none",
            checks.one_of({"json-file", "local", "none"}, "log-driver"),
        ),
        "options": _bounded("log-path", ", ".join(sorted(checks.LOG_OPTIONS)), checks.log_options),
    },
    UpdateRequest: {
        **_parts("resources", "restart"),
        "unknown_fields": _admin(
            "unknown-field", "the fields of the API version the daemon speaks"
        ),
    },
    ExecRequest: {
        **_free("command", "env", "working_dir", "user", "tty", "detach_keys"),
        **_free("attach_stdin", "attach_stdout", "attach_stderr"),
        "privileged": _PRIVILEGED,
    },
    BuildRequest: {
        **_free(
            "dockerfile",
            "tags",
            "build_args",
            "labels",
            "target",
            "no_cache",
            "pull",
            "platform",
            "quiet",
        ),
        **_free("remove_intermediate", "cache_from", "extra_hosts", "shm_bytes", "squash"),
        **_parts("resources"),
        "network_mode": _BUILD_NETWORK,
        "cgroup_parent": _CGROUP_PARENT,
        "security_opt": _SECURITY,
    },
    CommitRequest: _free("reference", "author", "comment", "pause", "changes", "config"),
    EndpointRequest: {
        **_free("network", "aliases", "ipv4_address", "ipv6_address", "links", "driver_options"),
        "mac_address": _admin("address", "the address the daemon gives"),
    },
    NetworkRequest: {
        **_free("name", "driver", "internal", "attachable", "ingress", "enable_ipv6"),
        **_free("ipam_driver", "ipam_options", "labels"),
        **_parts("pools"),
        "options": _bounded(
            "network-option", ", ".join(sorted(checks.NETWORK_OPTIONS)), checks.network_options
        ),
        "unknown_fields": _UNKNOWN,
    },
    PoolRequest: {
        **_free("ip_range", "gateway", "auxiliary"),
        "subnet": _bounded(
            "subnet",
            "subnets of network.user_subnets, of network.pool from /20 and network.pool_ipv6 from /64 on, or none named",
            checks.subnet,
        ),
    },
    VolumeRequest: {
        **_free("name", "labels"),
        "driver": _admin("volume-driver", "the driver local"),
        "options": _bounded(
            "mount-source",
            "a tmpfs, or what the owner may read, outside /proc, /sys, /dev",
            checks.volume_options,
        ),
    },
}


def as_markdown() -> str:
    """The table as it stands in the documents."""
    return "\n".join(_markdown()) + "\n"


def _markdown() -> Iterator[str]:
    for request, lines in TABLE.items():
        yield from (
            f"### {request.__name__}",
            "",
            "| field | who | rule | what users may |",
            "| --- | --- | --- | --- |",
        )
        for field in attrs.fields(request):
            line = lines[field.name]
            rule = f"`{line.rule}`" if line.rule else ""
            yield f"| `{field.name}` | {line.access.value} | {rule} | {line.allowed} |"
        yield ""


def fields_without_line(request: type[Request]) -> list[str]:
    """The fields of ``request`` that are not in the table."""
    return [
        field.name for field in attrs.fields(request) if field.name not in TABLE.get(request, {})
    ]

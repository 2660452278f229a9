"""A container's request as Docker's HostConfig: what was asked for, in Docker's words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.access.requests import (
    ContainerRequest,
    DeviceValue,
    MountForm,
    MountKind,
    MountRequest,
    PortRequest,
    Resources,
)
from supervisor.api.http import JsonObject


def host_config(request: ContainerRequest) -> JsonObject:
    """``HostConfig`` of an inspected container."""
    return {
        "Binds": [mount.spelt for mount in request.mounts if mount.form is MountForm.BIND] or None,
        "ContainerIDFile": "",
        "LogConfig": {
            "Type": request.log.driver or "json-file",
            "Config": dict(request.log.options),
        },
        "NetworkMode": request.network_mode,
        "PortBindings": _port_bindings(request),
        "RestartPolicy": {
            "Name": request.restart.name,
            "MaximumRetryCount": request.restart.attempts_max,
        },
        "AutoRemove": request.auto_remove,
        "VolumeDriver": "",
        "VolumesFrom": _list(request.volumes_from),
        "Dns": list(request.dns),
        "DnsOptions": list(request.dns_options),
        "DnsSearch": list(request.dns_search),
        "ExtraHosts": _list(request.extra_hosts),
        "Links": _list(request.links),
        "PublishAllPorts": request.publish_all,
        "ShmSize": request.shm_bytes,
        "ConsoleSize": [0, 0],
        "Tmpfs": {
            mount.target: mount.spelt for mount in request.mounts if mount.form is MountForm.TMPFS
        }
        or None,
        "Mounts": [_mount(mount) for mount in request.mounts if mount.form is MountForm.MOUNT]
        or None,
        "Devices": [
            {
                "PathOnHost": device.host_path,
                "PathInContainer": device.container_path,
                "CgroupPermissions": device.permissions,
            }
            for device in request.devices
        ],
        "Ulimits": [
            {"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in request.ulimits
        ]
        or None,
        **_resources(request.resources),
        **_isolation(request),
    }


def _isolation(request: ContainerRequest) -> JsonObject:
    return {
        "CapAdd": _list(request.cap_add),
        "CapDrop": _list(request.cap_drop),
        "CgroupnsMode": request.cgroupns_mode,
        "IpcMode": request.ipc_mode or "private",
        "OomScoreAdj": request.oom_score_adj,
        "PidMode": request.pid_mode,
        "Privileged": request.privileged,
        "ReadonlyRootfs": request.read_only_rootfs,
        "SecurityOpt": _list(request.security_opt),
        "UTSMode": request.uts_mode,
        "UsernsMode": request.userns_mode,
        "Sysctls": dict(request.sysctls) or None,
        "Runtime": request.runtime,
        "Isolation": request.isolation,
        "Init": request.init,
        "DeviceCgroupRules": _list(request.device_rules),
        "DeviceRequests": None,
        "MaskedPaths": _list(request.masked_paths),
        "ReadonlyPaths": _list(request.readonly_paths),
        "CgroupParent": request.cgroup_parent,
        "GroupAdd": _list(request.group_add),
        "Cgroup": "",
    }


def _resources(resources: Resources) -> JsonObject:
    return {
        "CpuShares": resources.cpu_shares,
        "Memory": resources.memory_bytes,
        "NanoCpus": resources.cpu_nanos,
        "BlkioWeight": resources.io_weight,
        "BlkioWeightDevice": _device_values(resources.io_device_weights, "Weight") or [],
        "BlkioDeviceReadBps": _device_values(resources.read_bytes_max, "Rate"),
        "BlkioDeviceWriteBps": _device_values(resources.write_bytes_max, "Rate"),
        "BlkioDeviceReadIOps": _device_values(resources.read_operations_max, "Rate"),
        "BlkioDeviceWriteIOps": _device_values(resources.write_operations_max, "Rate"),
        "CpuPeriod": resources.cpu_period_microseconds,
        "CpuQuota": resources.cpu_quota_microseconds,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": resources.cpuset_cpus,
        "CpusetMems": resources.cpuset_mems,
        "KernelMemory": 0,
        "KernelMemoryTCP": 0,
        "MemoryReservation": resources.memory_reservation_bytes,
        "MemorySwap": resources.memory_swap_bytes or 0,
        "MemorySwappiness": resources.swappiness,
        "OomKillDisable": resources.oom_kill_disable,
        "PidsLimit": resources.pids_max or None,
        "CpuCount": 0,
        "CpuPercent": 0,
        "IOMaximumIOps": 0,
        "IOMaximumBandwidth": 0,
    }


def _device_values(values: Sequence[DeviceValue], key: str) -> list[JsonObject] | None:
    return [{"Path": each.path, key: each.value} for each in values] or None


def _port_bindings(request: ContainerRequest) -> dict[str, list[JsonObject]]:
    found: dict[str, list[JsonObject]] = {}
    for port in request.ports:
        binding: JsonObject = {
            "HostIp": port.host_address,
            "HostPort": _host_port(port),
        }
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(binding)
    return found


def _host_port(port: PortRequest) -> str:
    first, last = port.host_port, port.host_port_last
    if last:
        return f"{first}-{last}"
    return str(first) if first else ""


def _mount(mount: MountRequest) -> JsonObject:
    """One of ``Mounts``, with the options of its kind where something was said."""
    whole: JsonObject = {"Type": mount.kind.value, "Target": mount.target}
    whole |= {"Source": mount.source} if mount.source else {}
    whole |= {"ReadOnly": True} if mount.read_only else {}
    options: dict[MountKind, tuple[str, JsonObject]] = {
        MountKind.BIND: (
            "BindOptions",
            {
                "Propagation": mount.propagation,
                "NonRecursive": not mount.recursive,
                "CreateMountpoint": mount.create_source,
                "ReadOnlyNonRecursive": not mount.read_only_recursive,
            },
        ),
        MountKind.VOLUME: (
            "VolumeOptions",
            {
                "NoCopy": not mount.copy_up,
                "Labels": dict(mount.labels),
                "Subpath": mount.subpath,
            },
        ),
        MountKind.TMPFS: ("TmpfsOptions", {"SizeBytes": mount.size_bytes, "Mode": mount.mode}),
    }
    name, words = options[mount.kind]
    said = {word: value for word, value in words.items() if value}
    return {**whole, name: said} if said else whole


def _list(words: Sequence[str] | None) -> list[str] | None:
    return list(words) if words else None

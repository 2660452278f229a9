"""Docker's HostConfig: what of the host a container asks for. Pure.

Every field of the Engine API up to 1.43 is named here: read, known and without meaning here, or refused by name.
Binds are ``source:target[:options]``; ports are ``80/tcp``; a source that is no absolute path is a volume's name.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence

import attrs

from protocol.errors import Fault
from supervisor.access.requests import (
    DeviceRequest,
    DeviceValue,
    LogRequest,
    PortRequest,
    Resources,
    RestartRequest,
)
from supervisor.api.docker.fields import Fields
from supervisor.errors import InvalidArgument
from supervisor.runtime.files import HOST_GATEWAY
from supervisor.runtime.spec import ALL_CAPABILITIES

PORT_MAX = 65_535
MEMORY_BYTES_MIN = 6 * 1_048_576
CPU_MICROSECONDS_MIN, CPU_MICROSECONDS_MAX = 1_000, 1_000_000
BLKIO_WEIGHT_MIN, BLKIO_WEIGHT_MAX = 10, 1_000
ULIMITS = frozenset(
    {
        "core",
        "cpu",
        "data",
        "fsize",
        "locks",
        "memlock",
        "msgqueue",
        "nice",
        "nofile",
        "nproc",
        "rss",
        "rtprio",
        "rttime",
        "sigpending",
        "stack",
    }
)
DEVICE_RULE = re.compile(r"[abc] ([0-9]{1,10}|\*):([0-9]{1,10}|\*) [rwm]{1,3}")
DEVICE_PERMISSIONS = re.compile(r"[rwm]{1,3}")
DEVICE_PLACE = re.compile(r"/dev/[^\0]*[^\0/][^\0]*")
EVERY_CAPABILITY = "ALL"
NO_NEW_PRIVILEGES = "no-new-privileges"
RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")

REFUSED: Mapping[str, Sequence[object]] = {
    "Capabilities": (),
    "Cgroup": (),
    "CpuRealtimePeriod": (),
    "CpuRealtimeRuntime": (),
    "DeviceRequests": (),
    "IOMaximumBandwidth": (),
    "IOMaximumIOps": (),
    "StorageOpt": (),
    "VolumeDriver": ("local",),
}
"""Would change what happens, and is not supported; with the values beside zero that say nothing."""

WITHOUT_MEANING = (
    "ContainerIDFile", "ConsoleSize", "KernelMemory", "KernelMemoryTCP", "CpuCount", "CpuPercent",
)  # fmt: skip
"""Says something to the client only, or nothing on Linux as it is today."""


def resources(host: Fields) -> Resources:
    """The limits of a new container."""
    found = limits(host)
    _check_memory(host, found)
    return attrs.evolve(
        found,
        pids_max=max(found.pids_max, 0),
        cpu_quota_microseconds=max(found.cpu_quota_microseconds, 0),
    )


def limits(host: Fields) -> Resources:
    """The limits as they are said; -1 is none."""
    memory, swap = host.number("Memory", 0), host.number("MemorySwap", -1)
    if 0 < memory < MEMORY_BYTES_MIN:
        host.fault("Memory", "Minimum memory limit allowed is 6MB")
    quota, period = host.number("CpuQuota", -1), host.number("CpuPeriod", 0)
    nanos = host.number("NanoCpus", 0)
    _check_cpu(host, nanos, quota, period)
    weight = host.number("BlkioWeight", 0)
    if weight and not BLKIO_WEIGHT_MIN <= weight <= BLKIO_WEIGHT_MAX:
        host.fault("BlkioWeight", "Range of blkio weight is from 10 to 1000")
    swappiness = host.number_or_none("MemorySwappiness", -1, 100)
    return Resources(
        memory_bytes=memory,
        memory_swap_bytes=swap or None,
        memory_reservation_bytes=host.number("MemoryReservation", 0),
        cpu_nanos=nanos,
        cpu_quota_microseconds=quota,
        cpu_period_microseconds=period,
        cpu_shares=host.number("CpuShares", 0, 262_144),
        cpuset_cpus=_cpuset(host, "CpusetCpus"),
        cpuset_mems=_cpuset(host, "CpusetMems"),
        pids_max=host.number("PidsLimit", -1),
        io_weight=weight,
        oom_kill_disable=host.flag("OomKillDisable"),
        swappiness=None if swappiness == -1 else swappiness,
        io_device_weights=_device_values(host, "BlkioWeightDevice", "Weight"),
        read_bytes_max=_device_values(host, "BlkioDeviceReadBps", "Rate"),
        write_bytes_max=_device_values(host, "BlkioDeviceWriteBps", "Rate"),
        read_operations_max=_device_values(host, "BlkioDeviceReadIOps", "Rate"),
        write_operations_max=_device_values(host, "BlkioDeviceWriteIOps", "Rate"),
    )


def _check_memory(host: Fields, found: Resources) -> None:
    """What the limits of memory are to one another; in Docker's words."""
    memory, swap = found.memory_bytes, found.memory_swap_bytes or 0
    if swap > 0 and not memory:
        host.fault(
            "MemorySwap",
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        )
    elif 0 < swap < memory:
        host.fault(
            "MemorySwap", "Minimum memoryswap limit should be larger than memory limit, see usage"
        )
    if 0 < found.memory_reservation_bytes < MEMORY_BYTES_MIN:
        host.fault("MemoryReservation", "Minimum memory reservation allowed is 6MB")
    elif 0 < memory < found.memory_reservation_bytes:
        host.fault(
            "MemoryReservation",
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        )


def _check_cpu(host: Fields, nanos: int, quota: int, period: int) -> None:
    if nanos and period:
        host.fault("NanoCpus", "Conflicting options: Nano CPUs and CPU Period cannot both be set")
    if nanos and quota > 0:
        host.fault("NanoCpus", "Conflicting options: Nano CPUs and CPU Quota cannot both be set")
    if period and not CPU_MICROSECONDS_MIN <= period <= CPU_MICROSECONDS_MAX:
        host.fault(
            "CpuPeriod",
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        )
    if 0 < quota < CPU_MICROSECONDS_MIN:
        host.fault("CpuQuota", "CPU cfs quota can not be less than 1ms (i.e. 1000)")


def _device_values(host: Fields, name: str, key: str) -> tuple[DeviceValue, ...]:
    found = []
    for each in host.children(name):
        path, value = each.text("Path"), each.number(key, 0)
        if not path.startswith("/") or "\0" in path:
            each.fault("Path", f"is {path[:80]!r}, which is no device", "/dev/sda")
        found.append(DeviceValue(path, value))
    return tuple(found)


def _cpuset(host: Fields, name: str) -> str:
    text = host.text(name)
    if text and not re.fullmatch(r"[0-9]{1,5}(-[0-9]{1,5})?(,[0-9]{1,5}(-[0-9]{1,5})?)*", text):
        host.fault(
            name, f"is {text[:80]!r}, which is no list of numbers and ranges", "write it like 0-2,4"
        )
        return ""
    return text


def isolation(host: Fields) -> str:
    """Of Windows; here there is one kind, which may be named."""
    name = host.text("Isolation")
    if name.lower() not in {"", "default"}:
        host.faults.append(Fault(f"invalid isolation '{name[:40]}' on linux"))
    return name


def restart(host: Fields) -> RestartRequest:
    """The restart policy."""
    policy = host.child("RestartPolicy")
    name = policy.text("Name")
    if name not in RESTART_POLICIES:
        hint = "one of no, always, unless-stopped, on-failure"
        policy.faults.append(Fault(f"invalid restart policy '{name[:40]}'", hint=hint))
    attempts = policy.number("MaximumRetryCount")
    if attempts < 0:
        policy.faults.append(Fault("maximum retry count cannot be negative"))
    elif attempts and name != "on-failure":
        told = f"maximum retry count cannot be used with restart policy '{name[:40]}'"
        policy.faults.append(Fault(told))
    return RestartRequest(name or "no", attempts)


def log(host: Fields) -> LogRequest:
    """Where output goes."""
    config = host.child("LogConfig")
    return LogRequest(config.text("Type"), config.mapping("Config"))


def devices(host: Fields) -> tuple[DeviceRequest, ...]:
    """Host devices, each shown below /dev."""
    found = []
    for device in host.children("Devices"):
        path = device.text("PathOnHost")
        shown = device.text("PathInContainer") or path
        permissions = device.text("CgroupPermissions") or "rwm"
        if not path.startswith("/") or "\0" in path:
            device.fault("PathOnHost", f"is {path[:80]!r}, which is not an absolute path")
        if not DEVICE_PLACE.fullmatch(shown) or {".", ".."} & set(shown.split("/")):
            device.fault("PathInContainer", f"is {shown[:80]!r}, which is not below /dev")
        if not DEVICE_PERMISSIONS.fullmatch(permissions):
            device.fault("CgroupPermissions", f"is {permissions[:20]!r}", "of r, w and m")
        found.append(DeviceRequest(path, shown.rstrip("/"), permissions))
    return tuple(found)


def device_rules(host: Fields) -> tuple[str, ...]:
    """What may be done with kinds of devices: ``c 1:3 rwm``."""
    given = host.texts("DeviceCgroupRules")
    for rule in given:
        if not DEVICE_RULE.fullmatch(rule):
            host.fault(
                "DeviceCgroupRules",
                f"invalid device cgroup rule format: '{rule[:80]}'",
                "c 1:3 rwm",
            )
    return given


def ulimits(host: Fields) -> tuple[tuple[str, int, int], ...]:
    """(name, soft, hard) of each; -1 is unlimited."""
    found: list[tuple[str, int, int]] = []
    for each in host.children("Ulimits"):
        name, soft, hard = each.text("Name"), each.number("Soft", -1), each.number("Hard", -1)
        if name not in ULIMITS:
            each.fault("Name", f"is {name[:40]!r}, which is no limit", ", ".join(sorted(ULIMITS)))
        if hard != -1 and not -1 < soft <= hard:
            each.fault("Soft", f"is {soft}, which is above the hard limit {hard}")
        found.append((name, soft, hard))
    return tuple(found)


def addresses(host: Fields, name: str) -> tuple[str, ...]:
    """Addresses as people write them; they become lines of a file."""
    given = host.texts(name)
    for text in given:
        if not _is_address(text):
            host.fault(name, f"has {text[:60]!r}, which is no address")
    return given


def words(host: Fields, name: str) -> tuple[str, ...]:
    """Texts without white space; they become words of a line."""
    given = host.texts(name)
    for text in given:
        if text.split() != [text]:
            host.fault(name, f"has {text[:60]!r}, which is not one word")
    return given


def extra_hosts(host: Fields) -> tuple[str, ...]:
    """``name:address`` of each; ``host-gateway`` for the host, as the container reaches it."""
    given = words(host, "ExtraHosts")
    for text in given:
        name, _, address = text.partition(":")
        if not (name and (address == HOST_GATEWAY or _is_address(address))):
            host.fault(
                "ExtraHosts", f"has {text[:60]!r}, which is no name and address", "name:192.0.2.1"
            )
    return given


def container_paths(host: Fields, name: str) -> tuple[str, ...] | None:
    """Absolute paths in the container; None when nothing is said."""
    given = host.texts_or_none(name)
    for path in given or ():
        if not path.startswith("/") or "\0" in path:
            host.fault(name, f"has {path[:80]!r}, which is not an absolute path")
    return given


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def capabilities(host: Fields, name: str) -> tuple[str, ...]:
    """Capability names as the kernel has them, ``CAP_CHOWN``, or ``ALL``."""
    found: list[str] = []
    for given in host.texts(name):
        capability = given.upper()
        if capability != EVERY_CAPABILITY:
            capability = f"CAP_{capability.removeprefix('CAP_')}"
            if capability not in ALL_CAPABILITIES:
                host.fault(name, f"has an unknown capability: {given[:40]!r}")
        found.append(capability)
    return tuple(found)


def security_options(host: Fields) -> tuple[str, ...]:
    """Options as ``name=value``; ``no-new-privileges`` alone where it is wanted, and not at all where it is not."""
    found: list[str] = []
    for given in host.texts("SecurityOpt"):
        name, equals, value = given.partition("=")
        if not equals:
            name, equals, value = given.partition(":")  # Docker's older form
        if name != NO_NEW_PRIVILEGES:
            found.append(f"{name}={value.strip()}" if equals else name)
        elif value.lower() in {"", "true", "1"}:
            found.append(NO_NEW_PRIVILEGES)
        elif value.lower() not in {"false", "0"}:
            host.fault("SecurityOpt", f"has {NO_NEW_PRIVILEGES} {value[:40]!r}", "true or false")
    return tuple(found)


_HOST_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)


def ports(host: Fields) -> tuple[PortRequest, ...]:
    """Published ports."""
    table = host.table("PortBindings")
    place = Fields(table, host.at("PortBindings"), host.faults)
    found: list[PortRequest] = []
    for key in table:
        port = place.read(key, parse_port, key)
        for binding in place.children(key):
            first, last = _host_ports(binding)
            if port is not None:
                found.append(PortRequest(*port, binding.text("HostIp"), first, last))
    return tuple(sorted(set(found)))


def _host_ports(binding: Fields) -> tuple[int, int]:
    """One host port, or the first and the last of several of which one will do; 0 for any."""
    text = binding.text("HostPort")
    if not text:
        return 0, 0
    match = _HOST_PORTS.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or 0)) if match else (PORT_MAX + 1, 0)
    if max(first, last) > PORT_MAX or 0 < last < first:
        binding.fault(
            "HostPort",
            f"is {text[:40]!r}, which is no port",
            "a number up to 65535, two with - between, or nothing",
        )
        return 0, 0
    return first, last if last > first else 0


def exposed_ports(names: Sequence[str], fields: Fields) -> tuple[str, ...]:
    """Ports as ``80/tcp``."""
    parsed = [fields.read(f"ExposedPorts.{name}", parse_port, name) for name in names]
    return tuple(f"{port[0]}/{port[1]}" for port in parsed if port is not None)


def parse_port(text: str) -> tuple[int, str]:
    """``80/tcp`` or ``80`` as number and protocol.

    Raises:
        InvalidArgument: It is none; ranges are for clients to expand.
    """
    number, _, protocol = text.partition("/")
    protocol = protocol.lower() or "tcp"
    if protocol not in {"tcp", "udp"}:
        raise InvalidArgument(f"{protocol[:20]!r} is no protocol a port can have", "tcp or udp")
    if not re.fullmatch(r"[0-9]{1,5}", number, re.ASCII) or not 0 < int(number) <= PORT_MAX:
        raise InvalidArgument(
            f"{text[:40]!r} is no port", "a number from 1 to 65535, then /tcp or /udp"
        )
    return int(number), protocol

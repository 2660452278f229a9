"""The OCI runtime spec of a container or a build step; pure.

Follows https://github.com/opencontainers/runtime-spec (config.md, config-linux.md), with Docker's defaults for
capabilities, masked and read-only paths, and devices. Whoever is remapped runs in their owner's user namespace, joined by
path: the mappings are written all the same, because runc wants them, but it is the pinned namespace's own map that holds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from attrs import field, frozen

from supervisor.linux.idmap import IdMap, IdRange
from supervisor.runtime.passwd import ContainerUser

Json = Mapping[str, object]

DEFAULT_CAPABILITIES = (
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
)
"""What a container's root may do, as in Docker."""

ALL_CAPABILITIES = (
    *DEFAULT_CAPABILITIES,
    "CAP_AUDIT_CONTROL",
    "CAP_AUDIT_READ",
    "CAP_BLOCK_SUSPEND",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
    "CAP_DAC_READ_SEARCH",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_LEASE",
    "CAP_LINUX_IMMUTABLE",
    "CAP_MAC_ADMIN",
    "CAP_MAC_OVERRIDE",
    "CAP_NET_ADMIN",
    "CAP_NET_BROADCAST",
    "CAP_PERFMON",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_MODULE",
    "CAP_SYS_NICE",
    "CAP_SYS_PACCT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
)
"""capabilities(7), as of Linux 5.9."""

MASKED_PATHS = (
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)

READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


DEVICE_RULES = (
    *("c *:* m", "b *:* m"),
    *("c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm"),
    *("c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm"),
)
"""Docker's, as cgroup v1 writes them: any node may be made, only these may be used."""


@frozen
class SpecMount:
    """A bind of ``source`` (seen in the daemon's mount namespace) at ``target``, or a file system of ``kind``."""

    target: str
    source: str
    kind: str = "bind"
    options: tuple[str, ...] = ("rbind", "rw")


def own_file(target: str, source: str, *, read_only: bool, executable: bool = False) -> SpecMount:
    """A bind of a file of the daemon's, which may lie in the run directory.

    It says the flags that /run has where systemd mounts it. In a user namespace they are locked, and runc takes off
    what is not said when it makes a bind read-only, which the kernel refuses.
    """
    flags = ("nosuid", "nodev") if executable else ("nosuid", "nodev", "noexec")
    return SpecMount(target, source, "bind", ("rbind", "ro" if read_only else "rw", *flags))


@frozen
class ProcessInputs:
    """One process: the container's first, or an exec.

    Attributes:
        args: Command and arguments; the command is looked up in the environment's PATH by the runtime.
        user: Ids inside.
        capabilities: Of the bounding set; effective and permitted for root.
        rlimits: (RLIMIT_…, soft, hard).
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: ContainerUser = field(factory=ContainerUser)
    terminal: bool = False
    capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES
    no_new_privileges: bool = False
    rlimits: tuple[tuple[str, int, int], ...] = ()
    oom_score_adj: int | None = None
    console_size: tuple[int, int] | None = None


SharedNamespaces = Mapping[str, str]
"""Paths of namespaces that are joined, by kind: ``pid``, ``ipc``."""

NO_NAMESPACES: SharedNamespaces = MappingProxyType({})


@frozen
class SpecInputs:
    """Everything a spec is made from.

    Attributes:
        rootfs: Where the root file system is mounted.
        id_map: The owner's; identity means no user namespace.
        user_namespace: The pinned namespace of a remapped owner.
        network_namespace: A pinned one; None means the host's.
        joined: Namespaces of other containers.
        own_shm: It has a ``/dev/shm`` of its own, of ``shm_bytes``, unless something is mounted there.
        cgroups_path: For a runtime that places processes itself; None when we place them.
        cgroup_mount: Whether a read-only view of the cgroup tree can be shown.
        cgroup_namespace: Whether it is the root of what it sees of the tree.
        mounts: Added after the standard ones.
        seccomp: ``linux.seccomp``, or None for none.
        devices: Further device nodes.
        device_rules: What may be done with which, as cgroup v1 writes it.
    """

    process: ProcessInputs
    rootfs: Path
    id_map: IdMap
    hostname: str = ""
    domainname: str = ""
    read_only_rootfs: bool = False
    user_namespace: Path | None = None
    network_namespace: Path | None = None
    host_pid: bool = False
    host_ipc: bool = False
    host_uts: bool = False
    joined: SharedNamespaces = NO_NAMESPACES
    own_shm: bool = True
    cgroups_path: str | None = None
    cgroup_mount: bool = False
    cgroup_namespace: bool = False
    mounts: tuple[SpecMount, ...] = ()
    shm_bytes: int = 67_108_864
    seccomp: Json | None = None
    masked_paths: tuple[str, ...] = MASKED_PATHS
    readonly_paths: tuple[str, ...] = READONLY_PATHS
    sysctls: Mapping[str, str] = field(factory=dict)
    privileged: bool = False
    devices: tuple[Json, ...] = ()
    device_rules: tuple[str, ...] = DEVICE_RULES
    annotations: Mapping[str, str] = field(factory=dict)

    @property
    def follows_host(self) -> bool:
        """Whether something the host mounts later shall appear."""
        return any({"slave", "rslave"} & set(mount.options) for mount in self.mounts)


def build_spec(inputs: SpecInputs) -> dict[str, object]:
    """The runtime's ``config.json``."""
    spec: dict[str, object] = {
        "ociVersion": "1.0.2",
        "process": process_spec(inputs.process),
        "root": {"path": str(inputs.rootfs), "readonly": inputs.read_only_rootfs},
        "mounts": [*_standard_mounts(inputs), *map(_mount, inputs.mounts)],
        "linux": _linux(inputs),
    }
    if inputs.hostname and not inputs.host_uts:
        spec["hostname"] = inputs.hostname
    if inputs.domainname and not inputs.host_uts:
        spec["domainname"] = inputs.domainname
    if inputs.annotations:
        spec["annotations"] = dict(inputs.annotations)
    return spec


def process_spec(process: ProcessInputs) -> dict[str, object]:
    """The ``process`` object: of the container, or alone in the file an exec is started with."""
    caps = sorted(process.capabilities)
    root = process.user.uid == 0
    spec: dict[str, object] = {
        "terminal": process.terminal,
        "user": {
            "uid": process.user.uid,
            "gid": process.user.gid,
            "additionalGids": list(
                dict.fromkeys((process.user.gid, *process.user.additional_gids))
            ),
        },
        "args": list(process.args),
        "env": list(process.env),
        "cwd": process.cwd,
        "capabilities": {
            "bounding": caps,
            "effective": caps if root else [],
            "permitted": caps if root else [],
            "inheritable": [],
            "ambient": [],
        },
        "noNewPrivileges": process.no_new_privileges,
        "rlimits": [
            {"type": name, "soft": soft, "hard": hard} for name, soft, hard in process.rlimits
        ],
    }
    if process.oom_score_adj is not None:
        spec["oomScoreAdj"] = process.oom_score_adj
    if process.terminal and process.console_size:
        height, width = process.console_size
        spec["consoleSize"] = {"height": height, "width": width}
    return spec


def merge_environment(*layers: Sequence[str]) -> tuple[str, ...]:
    """``NAME=value`` lists put over one another, later ones winning, in the order names first appear.

    A bare ``NAME`` unsets, as ``docker run -e NAME`` does with a name the client does not have.
    """
    return tuple(entry for entry in laid_over(*layers) if "=" in entry)


def laid_over(*layers: Sequence[str]) -> tuple[str, ...]:
    """The same with the bare names still in it, to be put over a further list."""
    merged: dict[str, str] = {}
    for layer in layers:
        for entry in layer:
            merged[entry.partition("=")[0]] = entry
    return tuple(merged.values())


def default_environment(
    env: Sequence[str], hostname: str, home: str, *, terminal: bool
) -> tuple[str, ...]:
    """What Docker adds when nobody says otherwise: PATH, HOSTNAME, TERM on a terminal, HOME."""
    base = [DEFAULT_PATH, f"HOSTNAME={hostname}", *(["TERM=xterm"] if terminal else [])]
    merged = merge_environment(base, env)
    named = {entry.partition("=")[0] for entry in merged}
    return merged if "HOME" in named else (*merged, f"HOME={home}")


def _mount(mount: SpecMount) -> dict[str, object]:
    return {
        "destination": mount.target,
        "type": mount.kind,
        "source": mount.source,
        "options": list(mount.options),
    }


def _standard_mounts(inputs: SpecInputs) -> list[dict[str, object]]:
    taken = {mount.target for mount in inputs.mounts}
    gid = ["gid=5"]
    standard = [
        SpecMount("/proc", "proc", "proc", ("nosuid", "noexec", "nodev")),
        SpecMount("/dev", "tmpfs", "tmpfs", ("nosuid", "strictatime", "mode=755", "size=65536k")),
        SpecMount(
            "/dev/pts",
            "devpts",
            "devpts",
            ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *gid),
        ),
        _sys(inputs),
        SpecMount("/dev/mqueue", "mqueue", "mqueue", ("nosuid", "noexec", "nodev")),
        SpecMount(
            "/dev/shm",  # noqa: S108  # in the container
            "shm",
            "tmpfs",
            ("nosuid", "noexec", "nodev", "mode=1777", f"size={inputs.shm_bytes}"),
        ),
    ]
    if inputs.cgroup_mount:
        mode = "rw" if inputs.privileged else "ro"
        standard.append(
            SpecMount(
                "/sys/fs/cgroup",
                "cgroup",
                "cgroup",
                ("nosuid", "noexec", "nodev", "relatime", mode),
            )
        )
    if not inputs.own_shm:
        taken.add("/dev/shm")  # noqa: S108  # in the container
    return [_mount(mount) for mount in standard if mount.target not in taken]


def _sys(inputs: SpecInputs) -> SpecMount:
    """A new sysfs needs a network namespace that our user namespace owns; beside the host's only a bind will do."""
    mode = "rw" if inputs.privileged else "ro"
    if inputs.id_map.remapped and inputs.network_namespace is None:
        return SpecMount("/sys", "/sys", "bind", ("rbind", "nosuid", "noexec", "nodev", mode))
    return SpecMount("/sys", "sysfs", "sysfs", ("nosuid", "noexec", "nodev", mode))


def _linux(inputs: SpecInputs) -> dict[str, object]:
    linux: dict[str, object] = {
        "namespaces": _namespaces(inputs),
        "maskedPaths": [] if inputs.privileged else list(inputs.masked_paths),
        "readonlyPaths": [] if inputs.privileged else list(inputs.readonly_paths),
        "sysctl": _sysctls(inputs),
        "resources": {"devices": _device_rules(inputs)},
    }
    if inputs.follows_host:
        linux["rootfsPropagation"] = "rslave"
    if inputs.devices:
        linux["devices"] = list(inputs.devices)
    if inputs.id_map.remapped:
        linux["uidMappings"] = _mappings(inputs.id_map.uids)
        linux["gidMappings"] = _mappings(inputs.id_map.gids)
    if inputs.cgroups_path is not None:
        linux["cgroupsPath"] = inputs.cgroups_path
    if inputs.seccomp is not None and not inputs.privileged:
        linux["seccomp"] = inputs.seccomp
    return linux


def _sysctls(inputs: SpecInputs) -> dict[str, str]:
    """With the domain name, for runtimes that do not know its field yet; in a user namespace nobody may write it."""
    sysctls = dict(inputs.sysctls)
    if inputs.domainname and not inputs.host_uts and not inputs.id_map.remapped:
        sysctls["kernel.domainname"] = inputs.domainname
    return sysctls


def _namespaces(inputs: SpecInputs) -> list[dict[str, object]]:
    spaces: list[dict[str, object]] = [{"type": "mount"}]
    spaces += [
        {"type": name, "path": inputs.joined[name]} if name in inputs.joined else {"type": name}
        for name, host in (
            ("pid", inputs.host_pid),
            ("ipc", inputs.host_ipc),
            ("uts", inputs.host_uts),
        )
        if not host
    ]
    if inputs.cgroup_namespace:
        spaces.append({"type": "cgroup"})
    if inputs.network_namespace is not None:
        spaces.append({"type": "network", "path": str(inputs.network_namespace)})
    if inputs.user_namespace is not None:
        spaces.append({"type": "user", "path": str(inputs.user_namespace)})
    return spaces


def _device_rules(inputs: SpecInputs) -> list[dict[str, object]]:
    """For a runtime that manages cgroups; where it does not, we do, or the user namespace holds."""
    if inputs.privileged:
        return [{"allow": True, "access": "rwm"}]
    return [{"allow": False, "access": "rwm"}, *map(_device_rule, inputs.device_rules)]


def _device_rule(text: str) -> dict[str, object]:
    kind, numbers, access = text.split(" ")
    named = zip(("major", "minor"), numbers.split(":"), strict=True)
    rule: dict[str, object] = {"allow": True, "type": kind, "access": access}
    return {**rule, **{name: int(number) for name, number in named if number != "*"}}


def _mappings(ranges: Sequence[IdRange]) -> list[dict[str, int]]:
    return [
        {"containerID": entry.inside, "hostID": entry.outside, "size": entry.count}
        for entry in ranges
    ]

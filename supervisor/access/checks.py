"""What is wrong with a user's value of a bounded field; one function per kind of value. Pure.

A check gets the value of a field that is not at its default and says every objection it has. A value of a type it does
not know is refused: checks never let pass what they cannot read.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

from supervisor.access.log_sizes import count, size_bytes
from supervisor.access.policy import Bounds, Check, Objection, shown

DEFAULT_CAPABILITIES = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "MKNOD",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
"""Docker's default set."""

SAFE_SYSCTLS = frozenset(
    {
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shm_rmid_forced",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "net.core.somaxconn",
        "net.ipv4.ip_local_port_range",
        "net.ipv4.ip_unprivileged_port_start",
        "net.ipv4.ping_group_range",
        "net.ipv4.tcp_fin_timeout",
        "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes",
        "net.ipv4.tcp_keepalive_time",
        "net.ipv4.tcp_syncookies",
        "net.ipv6.conf.all.disable_ipv6",
        "net.ipv6.conf.default.disable_ipv6",
        "net.ipv6.conf.lo.disable_ipv6",
    }
)
"""Of the container's own IPC namespace (with those in ``fs.mqueue``), or of its network namespace alone and without a
say in what is routed or accepted."""

RUNTIMES = frozenset({"crun", "runc"})
NETWORK_OPTIONS = frozenset(
    {
        "com.docker.network.bridge.enable_icc",
        "com.docker.network.bridge.enable_ip_masquerade",
        "com.docker.network.bridge.host_binding_ipv4",
        "com.docker.network.driver.mtu",
    }
)
"""Of the bridge driver; they concern the network alone."""

OWN_IPC = frozenset({"private", "shareable", "none"})
PRIVATE_PROPAGATION = frozenset({"private", "rprivate"})
NO_NEW_PRIVILEGES = "no-new-privileges"
NO_MODULES = ("apparmor=unconfined", "label=disable")
"""What is so anyway: no security module confines a container."""
TMPFS_FLAGS = frozenset(
    {"ro", "rw", "exec", "noexec", "suid", "nosuid", "nodev", "noatime", "sync", "async"}
)
TMPFS_VALUES = frozenset({"size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"})
LOG_OPTIONS = frozenset(
    {"max-size", "max-file", "mode", "max-buffer-size", "compress", "labels", "env", "tag"}
    | {"labels-regex", "env-regex"}
)
KERNEL_TREES = ("/proc", "/sys", "/dev")
USABLE_TREES = ("/dev/shm",)  # noqa: S108  # a name that is compared, never used

OPTION_LENGTH_MAX = 60
POOL_PREFIX_LENGTH_MIN = {4: 20, 6: 64}
"""Of a subnet that a user names in a pool that all share, by version of the protocol."""

_SECURITY_RULES: tuple[tuple[str, str], ...] = (
    ("seccomp", "seccomp-unconfined"),
    ("systempaths", "masked-paths"),
)


def one_of(values: Collection[str], rule: str) -> Check:
    """A text that must be one of ``values``; ``host`` and ``container:`` have rules of their own."""

    def check(value: object, _: Bounds) -> Iterable[Objection]:
        if value == "host":
            yield Objection("host-namespace", "the host's namespace is asked for")
        elif isinstance(value, str) and value.startswith("container:"):
            yield Objection(
                "foreign-namespace", f"another container's namespace is asked for: {value}"
            )
        elif value not in values:
            yield Objection(rule, f"{value!r} is asked for")

    return check


def joinable(values: Collection[str], rule: str) -> Check:
    """The same, or another container's: which there are for the caller is known elsewhere."""
    others = one_of(values, rule)

    def check(value: object, bounds: Bounds) -> Iterable[Objection]:
        if not (isinstance(value, str) and value.startswith("container:")):
            yield from others(value, bounds)

    return check


def network_mode(value: object, _: Bounds) -> Iterable[Objection]:
    """A network by name, or another container's: which there are for the caller is known elsewhere."""
    if value == "host":
        yield Objection("host-namespace", "the host's namespace is asked for")
    elif not isinstance(value, str) or value.startswith("ns:"):
        yield Objection("foreign-namespace", f"a namespace by its path is asked for: {value}")


def build_network(value: object, _: Bounds) -> Iterable[Objection]:
    """A network by name: which there are for the caller is known elsewhere."""
    if value == "host":
        yield Objection("host-namespace", "the host's network is asked for")
    elif ":" in str(value):
        yield Objection("network", f"{value!r} is asked for")


def subnet(value: object, bounds: Bounds) -> Iterable[Objection]:
    """A subnet by its number: the host's way to all of it will lead to the network."""
    try:
        wanted = ip_network(value, strict=False) if isinstance(value, str) else None
    except ValueError:
        wanted = None
    if wanted is None or not any(_within(wanted, one) for one in (*bounds.subnets, *bounds.pools)):
        yield Objection("subnet", f"the subnet {value} is asked for")
    elif wanted.prefixlen < POOL_PREFIX_LENGTH_MIN[wanted.version] and not any(
        _within(wanted, one) for one in bounds.subnets
    ):
        yield Objection("subnet", f"so much of what all share is asked for: {value}")


def _within(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def network_options(value: object, _: Bounds) -> Iterable[Objection]:
    """Options of the bridge driver by name; what is not Docker's means nothing to anybody."""
    for name in _keys(value):
        if name.startswith("com.docker.") and name not in NETWORK_OPTIONS:
            yield Objection("network-option", f"the option {_short(name)} is asked for")


def capabilities(value: object, _: Bounds) -> Iterable[Objection]:
    """Capabilities by name, with or without ``CAP_``."""
    for name in _texts(value):
        if name.upper().removeprefix("CAP_") not in DEFAULT_CAPABILITIES:
            yield Objection("capability", f"the capability {name} is asked for")


def security_options(value: object, _: Bounds) -> Iterable[Objection]:
    """Options as ``--security-opt`` takes them."""
    for option in _texts(value):
        if option in {NO_NEW_PRIVILEGES, "seccomp=builtin", *NO_MODULES}:
            continue
        if option.startswith("seccomp={"):  # only ever takes away from the default profile
            continue
        rule = next(
            (rule for start, rule in _SECURITY_RULES if option.startswith(start)), "security-option"
        )
        yield Objection(rule, f"the option {_short(option)} is asked for")


def sysctls(value: object, _: Bounds) -> Iterable[Objection]:
    """Kernel parameters by name."""
    for name in _keys(value):
        if name not in SAFE_SYSCTLS and not name.startswith("fs.mqueue."):
            yield Objection("sysctl", f"the kernel parameter {name} is asked for")


def cgroup_parent(value: object, _: Bounds) -> Iterable[Objection]:
    """A path below the owner's own group."""
    names = value.split("/") if isinstance(value, str) else ["/"]
    if "" in names or ".." in names or "." in names:
        yield Objection("cgroup-parent", f"the cgroup {shown(value)} is asked for")


def host_port(value: object, bounds: Bounds) -> Iterable[Objection]:
    """One host port; 0 lets the daemon choose."""
    if not isinstance(value, int) or 0 < value < bounds.port_first or value < 0:
        yield Objection("low-port", f"the host port {value} is below {bounds.port_first}")


def ulimits(value: object, bounds: Bounds) -> Iterable[Objection]:
    """Triples of name, soft and hard limit; -1 is unlimited."""
    for name, soft, hard in value if isinstance(value, tuple) else ():
        bound = bounds.hard_limits.get(name)
        if bound is not None and any(not 0 <= limit <= bound for limit in (soft, hard)):
            yield Objection("ulimit", f"the limit {name}={soft}:{hard} is above the host's {bound}")


def not_negative(rule: str) -> Check:
    """A number that must not be below zero."""

    def check(value: object, _: Bounds) -> Iterable[Objection]:
        if not isinstance(value, int) or value < 0:
            yield Objection(rule, f"{value} is asked for")

    return check


def mount_source(value: object, _: Bounds) -> Iterable[Objection]:
    """Where a bind mount comes from, by its looks: the kernel's own trees are no files to share."""
    path = posixpath.normpath(value) if isinstance(value, str) else "/proc"
    path = "/" + path.lstrip("/") if path.startswith("/") else path
    if _below(path, KERNEL_TREES) and not _below(path, USABLE_TREES):
        yield Objection("mount-source", f"the kernel's own tree {path} is asked for")


def tmpfs_options(value: object, _: Bounds) -> Iterable[Objection]:
    """Options of a tmpfs: flags, and sizes and owners."""
    for option in _texts(value):
        name, _equals, _value = option.partition("=")
        if option not in TMPFS_FLAGS and name not in TMPFS_VALUES:
            yield Objection("mount-option", f"the mount option {option} is asked for")


def volume_options(value: object, bounds: Bounds) -> Iterable[Objection]:
    """Options of a volume: a host's directory is opened as its owner at each use, and must look like one to share."""
    options = value if isinstance(value, Mapping) else {"device": value}
    if options.get("type") != "tmpfs":
        yield from mount_source(options.get("device", ""), bounds)


def log_options(value: object, bounds: Bounds) -> Iterable[Objection]:
    """Options of the log; a path would be written by the daemon, not by the caller.

    Nor may it be large.
    """
    for name in _keys(value):
        if name not in LOG_OPTIONS:
            yield Objection("log-path", f"the log option {name} is asked for")
    options = value if isinstance(value, Mapping) else {}
    size = size_bytes(str(options.get("max-size", "0"))) or 0
    files = count(str(options.get("max-file", "1"))) or 1
    if max(size, bounds.log_bytes_default) * files > bounds.log_bytes_max:
        seen = f"{files} files of {size or bounds.log_bytes_default} bytes are asked for"
        yield Objection("log-size", f"{seen}, and {bounds.log_bytes_max} bytes are allowed")


def _below(path: str, trees: Iterable[str]) -> bool:
    return any(path == tree or path.startswith(f"{tree}/") for tree in trees)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, tuple):
        yield from map(str, value)
    else:
        yield repr(value)


def _keys(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from map(str, value)
    else:
        yield repr(value)


def _short(option: str) -> str:
    """A seccomp profile comes as the whole JSON text."""
    return option if len(option) <= OPTION_LENGTH_MAX else f"{option[:OPTION_LENGTH_MAX]}…"

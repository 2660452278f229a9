"""What callers can ask for, parsed and typed: the objects policy judges and handlers act on.

They are the same objects, so that policy can never have seen another request than the handler (a body read twice, a
key given twice, a field only one of them knows). Values only: no I/O, nothing looked up. A field's default is what a
request that does not name it means.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from supervisor.oci.image import Execution


class MountKind(enum.StrEnum):
    """Where a mount's content comes from."""

    BIND = "bind"
    VOLUME = "volume"
    TMPFS = "tmpfs"


class MountForm(enum.StrEnum):
    """How a mount was said; it is shown back in the same way."""

    MOUNT = "mount"
    BIND = "bind"
    TMPFS = "tmpfs"


@attrs.frozen
class MountRequest:
    """One mount of a container.

    Attributes:
        source: A host path for a bind, a volume's name (empty: anonymous) for a volume, nothing for a tmpfs.
        target: Absolute path in the container.
        create_source: A missing host path is made, with the caller's credentials (``-v`` does, ``--mount`` does not).
        propagation: ``""`` or ``private``, ``rprivate``, ``shared``, ``slave``, …
        copy_up: A new volume is filled from the image (``nocopy`` turns it off).
        size_bytes: Of a tmpfs; 0 for the kernel's default.
        mode: Of a tmpfs' root; None for 1777.
        options: Further tmpfs options as given (``noexec``, …).
        subpath: The part of a volume that is mounted, a relative path in it.
        recursive: A bind shows what is mounted below its source too (administrators only: users never see it).
        read_only_recursive: Read-only means all of that as well.
        form, spelt: How it was said, and the whole text of ``-v`` or ``--tmpfs``; nothing follows from it.
    """

    kind: MountKind
    target: str
    source: str = ""
    read_only: bool = False
    create_source: bool = False
    propagation: str = ""
    copy_up: bool = True
    subpath: str = ""
    size_bytes: int = 0
    mode: int | None = None
    options: tuple[str, ...] = ()
    labels: Mapping[str, str] = attrs.field(factory=dict)
    recursive: bool = True
    read_only_recursive: bool = True
    form: MountForm = MountForm.MOUNT
    spelt: str = ""


@attrs.frozen(order=True)
class PortRequest:
    """One published port. ``host_port`` 0 lets us choose; ``host_address`` empty means all addresses.

    With a ``host_port_last`` above ``host_port`` it is one of the ports from the one to the other.
    """

    container_port: int
    protocol: str = "tcp"
    host_address: str = ""
    host_port: int = 0
    host_port_last: int = 0


@attrs.frozen
class DeviceValue:
    """A number for one disk, named by its device node: a weight, or the most in a second. Admins only."""

    path: str
    value: int


@attrs.frozen
class Resources:
    """Limits of a container; 0 (``None`` for swap and swappiness) means not limited."""

    memory_bytes: int = 0
    memory_swap_bytes: int | None = None
    memory_reservation_bytes: int = 0
    cpu_nanos: int = 0
    cpu_quota_microseconds: int = 0
    cpu_period_microseconds: int = 0
    cpu_shares: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_max: int = 0
    io_weight: int = 0
    oom_kill_disable: bool = False
    swappiness: int | None = None
    io_device_weights: tuple[DeviceValue, ...] = ()
    read_bytes_max: tuple[DeviceValue, ...] = ()
    write_bytes_max: tuple[DeviceValue, ...] = ()
    read_operations_max: tuple[DeviceValue, ...] = ()
    write_operations_max: tuple[DeviceValue, ...] = ()


@attrs.frozen
class HealthRequest:
    """A health check as the image or the caller states it; times in nanoseconds, 0 means inherit or default."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    retries: int = 0


@attrs.frozen
class DeviceRequest:
    """A host device in a container; admins only."""

    host_path: str
    container_path: str
    permissions: str = "rwm"


@attrs.frozen
class RestartRequest:
    """A restart policy: ``no``, ``always``, ``unless-stopped``, ``on-failure`` with a bound on the attempts (0: none)."""

    name: str = "no"
    attempts_max: int = 0


@attrs.frozen
class LogRequest:
    """Where a container's output goes. ``driver`` empty means the default."""

    driver: str = ""
    options: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class EndpointRequest:
    """A place on a network that is asked for a container.

    Attributes:
        network: Its name, its id, or the beginning of it.
        aliases: Further names the container has there.
        ipv4_address: Empty for one that is chosen. Likewise ``ipv6_address`` and ``mac_address``.
        links: ``container:alias``: the container, as this one calls it.
        driver_options: Kept for inspection; Docker's own are not served.
    """

    network: str
    aliases: tuple[str, ...] = ()
    ipv4_address: str = ""
    ipv6_address: str = ""
    mac_address: str = ""
    links: tuple[str, ...] = ()
    driver_options: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class ContainerRequest:
    """Everything a caller can say when creating a container.

    ``command`` and ``entrypoint`` are ``None`` when the image decides; an empty ``entrypoint`` clears the image's.
    ``unknown_fields`` are the places of what was said and nobody here knows.
    """

    image: str
    name: str = ""
    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    hostname: str = ""
    domainname: str = ""
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    stop_signal: str = ""
    stop_seconds: int | None = None
    exposed_ports: tuple[str, ...] = ()
    anonymous_volumes: tuple[str, ...] = ()
    health: HealthRequest | None = None
    mounts: tuple[MountRequest, ...] = ()
    read_only_rootfs: bool = False
    network_mode: str = "default"
    ports: tuple[PortRequest, ...] = ()
    publish_all: bool = False
    resources: Resources = Resources()
    auto_remove: bool = False
    log: LogRequest = LogRequest()
    restart: RestartRequest = RestartRequest()
    privileged: bool = False
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    userns_mode: str = ""
    cgroupns_mode: str = ""
    cgroup_parent: str = ""
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security_opt: tuple[str, ...] = ()
    devices: tuple[DeviceRequest, ...] = ()
    device_rules: tuple[str, ...] = ()
    group_add: tuple[str, ...] = ()
    sysctls: Mapping[str, str] = attrs.field(factory=dict)
    ulimits: tuple[tuple[str, int, int], ...] = ()
    shm_bytes: int = 0
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_options: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    volumes_from: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    init: bool = False
    oom_score_adj: int = 0
    runtime: str = ""
    isolation: str = ""
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    endpoints: tuple[EndpointRequest, ...] = ()
    platform: str = ""
    unknown_fields: tuple[str, ...] = ()


@attrs.frozen
class UpdateRequest:
    """Other limits or another restart policy for a container; what is not said, or 0, stays as it is, and -1 lifts."""

    resources: Resources = Resources()
    restart: RestartRequest | None = None
    unknown_fields: tuple[str, ...] = ()


@attrs.frozen
class ExecRequest:
    """A further process in a running container."""

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    privileged: bool = False
    detach_keys: str = ""


@attrs.frozen
class BuildRequest:
    """A build, as ``POST /build`` and our own client state it. The context comes beside it."""

    dockerfile: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    build_args: Mapping[str, str | None] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    target: str = ""
    no_cache: bool = False
    pull: bool = False
    platform: str = ""
    network_mode: str = "default"
    quiet: bool = False
    remove_intermediate: bool = True
    cache_from: tuple[str, ...] = ()
    extra_hosts: tuple[str, ...] = ()
    shm_bytes: int = 0
    resources: Resources = Resources()
    cgroup_parent: str = ""
    security_opt: tuple[str, ...] = ()
    squash: bool = False


@attrs.frozen
class VolumeRequest:
    """A named volume."""

    name: str = ""
    driver: str = "local"
    options: Mapping[str, str] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class CommitRequest:
    """An image of a container, as ``POST /commit`` states it.

    Attributes:
        reference: The name it gets; none if empty.
        pause: Whether the container stands still meanwhile.
        changes: Dockerfile instructions, one each, that say how its containers are run.
        config: What is said of how its containers are run, over the container's own.
    """

    reference: str = ""
    author: str = ""
    comment: str = ""
    pause: bool = True
    changes: tuple[str, ...] = ()
    config: Execution = attrs.field(factory=Execution)


@attrs.frozen
class PoolRequest:
    """Where a network's addresses shall come from; empty for what is chosen.

    Attributes:
        subnet: Such as ``10.210.7.0/24``.
        ip_range: The part of it that addresses are chosen from.
        gateway: The host's address in it.
        auxiliary: Addresses that nobody is given, by what they are for.
    """

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class NetworkRequest:
    """A network of one's own.

    Attributes:
        internal: Without a way out.
        attachable: Kept for inspection; outside a swarm it means nothing.
        pools: At most one for each kind of address.
    """

    name: str
    driver: str = "bridge"
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    enable_ipv6: bool = False
    ipam_driver: str = "default"
    ipam_options: Mapping[str, str] = attrs.field(factory=dict)
    pools: tuple[PoolRequest, ...] = ()
    options: Mapping[str, str] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    unknown_fields: tuple[str, ...] = ()

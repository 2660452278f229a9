"""The settings: TOML on disk, attrs in memory, every limit named with its unit.

A key that does not exist is refused with the one that was likely meant; all faults of a file are told at once.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import attrs
import cattrs
from cattrs.errors import BaseValidationError, ClassValidationError, ForbiddenExtraKeysError

from protocol.errors import Fault, Place
from supervisor.errors import InvalidArgument, NotFound

T = TypeVar("T")

INSTALLED_DATA_ROOT = Path("/var/lib/bakehouse")
INSTALLED_RUN_ROOT = Path("/run/bakehouse")
INSTALLED_CONFIG = Path("/etc/bakehouse/bakehouse.toml")
_SCALARS: Mapping[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
}


@attrs.frozen
class AccessConfig:
    """Who may use the daemon, and the ids their containers get.

    Attributes:
        user_group: Members may use the daemon for themselves.
        admin_group: Members, and root, see and may do everything.
        range_pool_first_id: First host id of the pool from which each owner is allotted 65,536 ids.
        range_pool_owners_max: How many owners the pool holds.
    """

    user_group: str = "bakehouse"
    admin_group: str = "bakehouse-admin"
    range_pool_first_id: int = 1_879_048_192
    range_pool_owners_max: int = 4_000


@attrs.frozen
class ApiConfig:
    """Bounds on what one connection or one person may ask of the API.

    Attributes:
        header_bytes_max: Size of a request's head.
        json_body_bytes_max: Size of a request's JSON; archives and builds are not JSON.
        head_seconds_max: For a request's head to arrive whole.
        idle_seconds_max: After which a connection without a request is closed.
        connections_per_owner_max: Of one person at once; one more is refused.
        write_stall_seconds_max: For a client to take what it is sent; one that reads nothing for so long is gone.
    """

    header_bytes_max: int = 65_536
    json_body_bytes_max: int = 8_388_608
    head_seconds_max: float = 30.0
    idle_seconds_max: float = 300.0
    connections_per_owner_max: int = 1_024
    write_stall_seconds_max: float = 600.0


@attrs.frozen
class JournalConfig:
    """How much history is kept, for each owner.

    Attributes:
        events_per_owner_max: Events kept; the oldest go first.
        bytes_per_owner_max: Their size.
        age_days_max: After which events are dropped.
        refusals_per_minute_max: Of one person's refusals that become events; the others are counted.
        page_events_max: Events read at once for somebody who catches up.
        page_bytes_max: Size of what is read at once.
        recent_events_max: The newest events, held in memory for those who follow.
        recent_bytes_max: Their size.
        bookmark_seconds: Between two signs of life on a stream on which nothing happens.
    """

    events_per_owner_max: int = 100_000
    bytes_per_owner_max: int = 67_108_864
    age_days_max: int = 30
    refusals_per_minute_max: int = 30
    page_events_max: int = 500
    page_bytes_max: int = 1_048_576
    recent_events_max: int = 4_096
    recent_bytes_max: int = 4_194_304
    bookmark_seconds: float = 5.0


@attrs.frozen
class NetworkConfig:
    """Where container addresses come from.

    Attributes:
        pool: IPv4 network from which small subnets are cut, around the host's own routes.
        pool_ipv6: The same for networks that want IPv6; each gets a /64 of it.
        subnet_prefix_length: Size of one subnet.
        bridge_prefix_length: Size of the subnet of an owner's default bridge.
        user_subnets: Where users may put a subnet they name, beside the pools. The host's way to every address in
            such a subnet leads to their containers: give only what nobody on this host speaks to.
        port_first: First host port users may publish.
        ephemeral_first: First of the ports chosen when none is asked for.
        ephemeral_last: Last of them.
    """

    pool: str = "10.208.0.0/12"
    pool_ipv6: str = "fdba:5e00::/32"
    subnet_prefix_length: int = 24
    bridge_prefix_length: int = 22
    user_subnets: tuple[str, ...] = ()
    port_first: int = 1_024
    ephemeral_first: int = 49_153
    ephemeral_last: int = 65_535


@attrs.frozen
class RuntimeConfig:
    """How containers are run.

    Attributes:
        runtimes: Tried in this order with a real container; the first that works is taken.
        conmon: The monitor that holds a container's output and exit code: a name on the path, or a path.
        seccomp_profile: The distribution's packaged default profile.
        log_bytes_max: Size at which a container's log is rotated.
        log_files_max: Rotated files kept, the current one included.
        log_bytes_asked_max: What users may ask to be kept of one container's output.
        stop_seconds: Grace between the stop signal and SIGKILL.
        pids_max: Default limit of processes in a container.
        shm_bytes: Default size of /dev/shm.
        favordynmods: Set the host's cgroup v2 option of that name while the daemon runs; see
            :mod:`supervisor.linux.favordynmods`.
        cgroup_unit: The systemd unit (with ``Delegate=yes``) in whose control group containers live, apart from the
            daemon's own; empty: a group of theirs at the top of the host's.
    """

    runtimes: tuple[str, ...] = ("crun", "runc")
    conmon: str = "conmon"
    seccomp_profile: Path = Path("/usr/share/containers/seccomp.json")
    log_bytes_max: int = 10_485_760
    log_files_max: int = 3
    log_bytes_asked_max: int = 1_073_741_824
    stop_seconds: float = 10.0
    pids_max: int = 4_096
    shm_bytes: int = 67_108_864
    favordynmods: bool = True
    cgroup_unit: str = ""


@attrs.frozen
class OwnerConfig:
    """The defaults of every owner's share and quota; 0 means no limit. Administrators may set single owners' otherwise.

    Attributes:
        cpu_weight: Share of the processors beside other owners who want them, 1 to 10,000; 100 is normal.
        cpus_max: Processors' worth of work at most, also while nobody else wants them; 1.5 is one and a half.
        memory_high_bytes: Above this all that is the owner's is slowed and reclaimed from. On cgroup v1, which has no
            such bound, it is what reclaim goes for first when the host is short of memory.
        memory_bytes_max: Memory of all that is the owner's.
        pids_max: Processes and threads.
        io_weight: Share of the disks beside other owners who want them, 1 to 10,000; 100 is normal.
        io_read_bytes_per_second_max: From each single disk.
        io_write_bytes_per_second_max: To each single disk.
        containers_max: Containers, whether they run or not.
        networks_max: Networks that they made.
        builds_max: Builds at once.
        ports_max: Ports of the host that their containers have published.
        volumes_max: Volumes, anonymous ones too.
        execs_max: Further processes in their containers that have not ended.
        disk_bytes_max: What their things take: images by share, what containers wrote, logs, volumes, build cache. It is
            counted now and then, and held when the next is allotted.
    """

    cpu_weight: int = 100
    cpus_max: float = 0.0
    memory_high_bytes: int = 0
    memory_bytes_max: int = 0
    pids_max: int = 16_384
    io_weight: int = 100
    io_read_bytes_per_second_max: int = 0
    io_write_bytes_per_second_max: int = 0
    containers_max: int = 1_000
    networks_max: int = 64
    builds_max: int = 8
    ports_max: int = 1_000
    volumes_max: int = 1_000
    execs_max: int = 1_000
    disk_bytes_max: int = 0


@attrs.frozen
class BuildConfig:
    """Bounds on one build.

    Attributes:
        context_bytes_max: Size of the context that is sent.
        context_entries_max: Files and directories in it.
        dockerfile_bytes_max: Size of the Dockerfile.
        log_bytes_max: Kept of its output.
        parallel_steps_max: Steps that run at the same time.
        cache_entries_per_owner_max: Results of steps kept for each person; the longest unused go first.
    """

    context_bytes_max: int = 10_737_418_240
    context_entries_max: int = 1_000_000
    dockerfile_bytes_max: int = 1_048_576
    log_bytes_max: int = 4_194_304
    parallel_steps_max: int = 4
    cache_entries_per_owner_max: int = 2_000


@attrs.frozen
class StoreConfig:
    """Bounds on what is unpacked.

    Attributes:
        layer_bytes_max: Size of a layer's files.
        layer_entries_max: Files and directories in a layer.
        layers_per_image_max: Layers of an image.
    """

    layer_bytes_max: int = 53_687_091_200
    layer_entries_max: int = 2_000_000
    layers_per_image_max: int = 125


@attrs.frozen
class MonitorConfig:
    """How often the host is looked at, and when it counts as under pressure.

    Attributes:
        tick_seconds: Between two samples while somebody reads them or work waits.
        idle_tick_seconds: Between two samples while nobody does.
        history_samples_max: Samples kept.
        memory_some_percent_tight: PSI memory ``some avg10`` from which the host is tight.
        memory_full_percent_critical: PSI memory ``full avg10`` from which it is critical.
        io_full_percent_tight: PSI IO ``full avg10`` from which the host is tight.
        tickets_max: Starts and build steps at once; 0 means twice the processors.
        relief: Do something about pressure on memory or disks, from the mildest: hold new build steps, lower the weights
            of who is furthest above their share, reclaim their memory, freeze their builds, end the cheapest of what
            they run.
        relief_dry_run: Decide and tell it, and do nothing.
    """

    tick_seconds: float = 1.0
    idle_tick_seconds: float = 30.0
    history_samples_max: int = 600
    memory_some_percent_tight: float = 20.0
    memory_full_percent_critical: float = 20.0
    io_full_percent_tight: float = 60.0
    tickets_max: int = 0
    relief: bool = True
    relief_dry_run: bool = False


@attrs.define
class Config:
    """All settings of one daemon. Its tables are values; :mod:`supervisor.reloading` puts others in their place.

    Attributes:
        data_root: What is kept: database, images, volumes, logs. Its file system has to be a local one.
        run_root: What is lost at a reboot: pins of namespaces, sessions, the socket.
        socket: Where clients connect; ``bakehouse.sock`` in ``run_root`` when it is not set.
        access: Who may use the daemon.
        api: Bounds on requests.
        journal: How much history is kept.
        network: Addresses and ports.
        runtime: How containers are run.
        owner: Each person's share and quota.
        build: Bounds on builds.
        store: Bounds on layers.
        monitor: Looking at the host.
    """

    data_root: Path = INSTALLED_DATA_ROOT
    run_root: Path = INSTALLED_RUN_ROOT
    socket: Path | None = None
    access: AccessConfig = AccessConfig()
    api: ApiConfig = ApiConfig()
    journal: JournalConfig = JournalConfig()
    network: NetworkConfig = NetworkConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    owner: OwnerConfig = OwnerConfig()
    build: BuildConfig = BuildConfig()
    store: StoreConfig = StoreConfig()
    monitor: MonitorConfig = MonitorConfig()

    @property
    def socket_path(self) -> Path:
        """Where clients connect."""
        return self.socket or self.run_root / "bakehouse.sock"

    @property
    def instance(self) -> str:
        """Names this daemon's cgroup, table and namespaces: ``bakehouse``, or with a tail when it is not the installed one."""
        return "bakehouse" + (f"-{self.instance_tag}" if self.instance_tag else "")

    @property
    def instance_tag(self) -> str:
        """Six hex digits that tell several daemons of one host apart; empty for the installed one."""
        if (self.data_root, self.run_root) == (INSTALLED_DATA_ROOT, INSTALLED_RUN_ROOT):
            return ""
        return hashlib.sha256(f"{self.data_root}\0{self.run_root}".encode()).hexdigest()[:6]


def load(path: Path | None) -> Config:
    """Read the settings from ``path``; without one from the installed file if it is there, else the defaults.

    Raises:
        NotFound: ``path`` was named and is not there.
        InvalidArgument: The file is not TOML, or says what makes no sense; every fault is told.
    """
    if path is None:
        return (
            parse(INSTALLED_CONFIG.read_text(), str(INSTALLED_CONFIG))
            if INSTALLED_CONFIG.exists()
            else Config()
        )
    try:
        text = path.read_text()
    except OSError as error:
        raise NotFound(f"cannot read the settings {path}: {error.strerror}") from error
    return parse(text, str(path))


def parse(text: str, name: str) -> Config:
    """The settings in ``text``, a TOML document called ``name`` in errors.

    Raises:
        InvalidArgument: See :func:`load`.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument(f"cannot read the settings {name}: {error}") from error
    try:
        return _converter().structure(table, Config)
    except BaseValidationError as error:
        faults = [Fault(message, _place(text, name, message)) for message in _told(error, ())]
        raise InvalidArgument(f"cannot use the settings {name}", faults=faults) from error


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(Path, lambda value, _: Path(value))
    for scalar in _SCALARS:
        converter.register_structure_hook(scalar, _strict)
    return converter


def _strict(value: object, wanted: type[T]) -> T:
    """Take no text for a number and no number for a text; a whole number will do for a float."""
    if type(value) is wanted:
        return value
    if wanted is float and type(value) is int:
        return wanted(value)  # type: ignore[call-arg]  # float, as just checked
    message = f"{value!r} is not {_SCALARS[wanted]}"
    raise ValueError(message)


def _told(error: BaseException, path: tuple[str, ...]) -> list[str]:
    """Flatten cattrs' tree of errors to one sentence each."""
    if isinstance(error, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(error.cl)]
        return [_unknown(".".join((*path, key)), key, known) for key in sorted(error.extra_fields)]
    if not isinstance(error, ClassValidationError):
        return [f"{'.'.join(path)}: {error}"]
    noted, others = error.group_exceptions()
    told = [text for inner, note in noted for text in _told(inner, (*path, str(note.name)))]
    return told + [text for inner in others for text in _told(inner, path)]


def _unknown(full: str, key: str, known: list[str]) -> str:
    likely = difflib.get_close_matches(key, known, n=1)
    return f"{full}: no such setting" + (f"; did you mean {likely[0]}?" if likely else "")


def _place(text: str, name: str, message: str) -> Place | None:
    """The line on which the last word of the setting's path stands."""
    key = message.partition(":")[0].rpartition(".")[2]
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip().removeprefix("[").startswith(key):
            return Place(name, number, line.index(key) + 1)
    return None

"""What is written down about a container and its execs, and what changes while it lives.

Words: a *record* is fixed when the container is created (renaming aside); its *state* changes, and is changed by its
keeper alone. Both are kept as JSON beside the columns that are searched by.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
import cattrs
import orjson
from cattrs.preconf.orjson import make_converter

from supervisor.access.requests import (
    ContainerRequest,
    ExecRequest,
    HealthRequest,
    MountKind,
    PortRequest,
)
from supervisor.clock import rfc3339
from supervisor.network.endpoints import Connection
from supervisor.runtime.health import HealthState
from supervisor.runtime.restart import Backoff
from supervisor.runtime.status import Status


@attrs.frozen
class MountRecord:
    """A mount as it was settled at creation.

    Attributes:
        source: The host path of a bind, the name of a volume, empty for a tmpfs.
        anonymous: A volume that goes with its container.
        options: tmpfs options as the kernel takes them.
        subpath: The part of a volume that is mounted.
        recursive: A bind brings what is mounted below its source, as far as its owner may have that.
        read_only_recursive: Read-only means all of that as well.
        labels: For a volume that is made.
        mode: As Docker shows it.
    """

    kind: MountKind
    target: str
    source: str = ""
    read_only: bool = False
    anonymous: bool = False
    create_source: bool = False
    copy_up: bool = True
    options: tuple[str, ...] = ()
    propagation: str = ""
    subpath: str = ""
    recursive: bool = True
    read_only_recursive: bool = True
    labels: Mapping[str, str] = attrs.field(factory=dict)
    mode: str = ""


@attrs.frozen
class ContainerRecord:
    """What a container is, settled at creation: the request over the image's defaults.

    Attributes:
        id: 64 hex digits.
        owner: The host uid whose container it is.
        name: Without Docker's leading slash.
        image_reference: As the caller named it.
        layers: The image's layers, bottom first.
        args: The command that is run, entry point and all.
        entrypoint: What of it is the entry point, for inspection.
        command: What of it is the command.
        remapped: It runs in its owner's user namespace.
        health: Its health check, over the image's.
        shell: The image's, for what is to be run in one.
        connections: To networks, in the order in which they are made at each start; None of one that is older than these,
            which is on its mode's network.
        links: On the default bridge: another container's id, and what this one calls it.
    """

    id: str
    owner: int
    name: str
    created_ns: int
    request: ContainerRequest
    image_id: str
    image_reference: str
    layers: tuple[str, ...]
    args: tuple[str, ...]
    entrypoint: tuple[str, ...] | None
    command: tuple[str, ...] | None
    env: tuple[str, ...]
    working_dir: str
    user: str
    labels: Mapping[str, str]
    hostname: str
    stop_signal: str
    exposed_ports: tuple[str, ...]
    mounts: tuple[MountRecord, ...]
    remapped: bool
    health: HealthRequest | None = None
    shell: tuple[str, ...] = ()
    connections: tuple[Connection, ...] | None = None
    links: tuple[tuple[str, str], ...] = ()

    @property
    def ports(self) -> tuple[PortRequest, ...]:
        """What is published: what was asked for, and with ``--publish-all`` every other exposed port, anywhere."""
        asked = self.request.ports
        if not self.request.publish_all:
            return asked
        taken = {(port.container_port, port.protocol) for port in asked}
        exposed = (port.partition("/") for port in self.exposed_ports)
        wanted = ((int(number), protocol or "tcp") for number, _, protocol in exposed)
        return (*asked, *(PortRequest(*port) for port in wanted if port not in taken))

    @property
    def short_id(self) -> str:
        """The first twelve digits, as people read them."""
        return self.id[:12]


@attrs.frozen
class ProcessIdentity:
    """A process that can be told from any later one with the same pid.

    Attributes:
        start_ticks: Field 22 of ``/proc/<pid>/stat``.
        boot_id: ``/proc/sys/kernel/random/boot_id``.
    """

    pid: int
    start_ticks: int
    boot_id: str


@attrs.frozen
class ContainerState:
    """What changes while a container lives; replaced as a whole by its keeper.

    Attributes:
        process: Its first process while there is one.
        exit_code: Of the last run.
        error: Why the last start failed, or why an exit code is unknown.
        oom_killed: The kernel ended a process of the last run for want of memory.
        started_ns: Of the last run; 0 if it never ran. Likewise ``finished_ns``.
        backoff: How its restart policy has fared.
        health: How it is, if it has a health check.
        stopped: Somebody asked for its end since it was last started by hand.
        volumes_too: Its removal, once begun, takes its anonymous volumes along.
    """

    status: Status = Status.CREATING
    process: ProcessIdentity | None = None
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_ns: int = 0
    finished_ns: int = 0
    backoff: Backoff = attrs.field(factory=Backoff)
    stopped: bool = False
    volumes_too: bool = False
    health: HealthState | None = None

    @property
    def started_at(self) -> str:
        """RFC 3339."""
        return rfc3339(self.started_ns)


@attrs.frozen
class ExecRecord:
    """A further process of a container.

    Attributes:
        process: While it runs.
        exit_code: None until it ended.
        failure: Why it could not be started.
    """

    id: str
    container_id: str
    owner: int
    request: ExecRequest
    created_ns: int
    process: ProcessIdentity | None = None
    started: bool = False
    exit_code: int | None = None
    failure: str = ""

    @property
    def running(self) -> bool:
        """It was started and has not ended."""
        return self.process is not None and self.exit_code is None


def _make() -> cattrs.Converter:
    converter = make_converter()
    converter.omit_if_default = True
    return converter


_CONVERTER = _make()


def dump(value: ContainerRecord | ContainerState | ExecRecord) -> str:
    """As it is kept in the database."""
    return orjson.dumps(_CONVERTER.unstructure(value)).decode()


def load_record(text: str) -> ContainerRecord:
    """The inverse of :func:`dump`."""
    return _CONVERTER.structure(orjson.loads(text), ContainerRecord)


def load_state(text: str) -> ContainerState:
    """The inverse of :func:`dump`."""
    return _CONVERTER.structure(orjson.loads(text), ContainerState)


def load_exec(text: str) -> ExecRecord:
    """The inverse of :func:`dump`."""
    return _CONVERTER.structure(orjson.loads(text), ExecRecord)

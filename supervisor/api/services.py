"""Everything the API stands on, in one bundle made by the composition root."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from supervisor.access.audit import Audit
    from supervisor.access.owners import Owners
    from supervisor.access.suspension import Suspensions
    from supervisor.build.builds import Builds
    from supervisor.config import Config
    from supervisor.database.database import Database
    from supervisor.events.journal import Events
    from supervisor.monitor.monitor import Monitor
    from supervisor.network.networks import Networks
    from supervisor.reloading import Reread
    from supervisor.runtime.containers import Containers
    from supervisor.runtime.disk_use import DiskUse
    from supervisor.store.store import Store


@attrs.frozen
class HostFacts:
    """What ``/version`` and ``/info`` say of this host; found once, at start.

    Attributes:
        runtime: Name of the OCI runtime taken, e.g. ``crun``.
        runtime_version: As it prints it.
        cgroups: ``v1``, ``hybrid`` or ``v2``.
        lacks: What this host cannot do, in words; shown as warnings.
        started_ns: When the daemon started.
        daemon_id: Tells this daemon from others: the epoch of its database.
    """

    version: str
    kernel: str
    operating_system: str
    os_version: str
    architecture: str
    hostname: str
    cpus: int
    memory_bytes: int
    runtime: str
    runtime_path: str
    runtime_version: str
    cgroups: str
    lacks: tuple[str, ...] = ()
    started_ns: int = 0
    daemon_id: str = ""


@attrs.frozen
class Services:
    """The floors below, open.

    Attributes:
        reread: Reads the settings again, and lets those hold that may change.
    """

    config: Config
    database: Database
    events: Events
    owners: Owners
    audit: Audit
    suspensions: Suspensions
    store: Store
    networks: Networks
    monitor: Monitor
    containers: Containers
    builds: Builds
    disk: DiskUse
    facts: HostFacts
    reread: Callable[[], Awaitable[Reread]]

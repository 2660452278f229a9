"""What every keeper, exec and build step works with, gathered once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from attrs import frozen

from supervisor.access.audit import Audit
from supervisor.access.owners import Owner, Owners
from supervisor.config import Config
from supervisor.database.database import Database
from supervisor.events.journal import Events
from supervisor.linux.mounts import user_namespace
from supervisor.linux.spawner import Spawner
from supervisor.monitor.monitor import Monitor
from supervisor.network.networks import Networks
from supervisor.runtime.cgroup_tree import CgroupTree
from supervisor.runtime.oci_runtime import OciRuntime
from supervisor.runtime.sanity import Host
from supervisor.runtime.seccomp import Profile
from supervisor.store.store import Store

ONLINE_NODES = Path("/sys/devices/system/node/online")


@frozen
class Parts:
    """The services below the runtime, and what was found out about the host at start.

    Attributes:
        boot_id: Of this boot, for telling processes apart across reboots.
        profile: The default seccomp profile.
        bounding: The capabilities the daemon can hand on at all.
    """

    config: Config
    database: Database
    events: Events
    spawner: Spawner
    owners: Owners
    audit: Audit
    store: Store
    networks: Networks
    monitor: Monitor
    tree: CgroupTree
    runtime: OciRuntime
    profile: Profile
    boot_id: str
    bounding: frozenset[str]

    @property
    def run_root(self) -> Path:
        """What is lost at a reboot."""
        return self.config.run_root

    @property
    def data_root(self) -> Path:
        """What is kept."""
        return self.config.data_root

    @property
    def host(self) -> Host:
        """What a request for a container must fit."""
        return Host(
            cpus=os.cpu_count() or 1,
            hard_limits=self.audit.bounds.hard_limits,
            raises_limits="CAP_SYS_RESOURCE" in self.bounding,
            runtime=self.runtime.name,
            memory_nodes=memory_nodes(),
            abilities=self.tree.abilities,
        )

    def confines_devices(self, owner: Owner) -> bool:
        """Whether something keeps the owner's processes from using a device node they made."""
        return owner.remapped or self.runtime.places or self.tree.confines_devices

    def within_bounds(self, capabilities: Sequence[str]) -> tuple[str, ...]:
        """Those of ``capabilities`` that the daemon has itself: a runtime that wants more of them fails as a whole."""
        return tuple(name for name in capabilities if name in self.bounding)

    async def user_namespace(self, owner: Owner) -> Path | None:
        """The owner's pinned user namespace, made when it is first wanted; None for who is not remapped."""
        if not owner.remapped:
            return None
        pin = self.run_root / "ns" / "user" / f"{owner.uid}-{owner.map_digest}"
        await user_namespace(self.spawner, pin, owner.id_map)
        return pin


def memory_nodes() -> frozenset[int]:
    """The memory nodes that are online; one where the kernel knows of no others."""
    try:
        text = ONLINE_NODES.read_text()
    except OSError:
        return frozenset({0})
    ranges = (part.partition("-") for part in text.strip().split(","))
    return frozenset(
        number for first, _, last in ranges for number in range(int(first), int(last or first) + 1)
    )


def own_directory(path: Path, owner: Owner) -> None:
    """``path`` exists, and only root and the owner's container root can enter it.

    Runtimes look below it as the container's root, so the directory belongs to the group that is 0 inside; the boundary
    for everybody else is that what is mounted below it is in the daemon's own mount namespace.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if owner.remapped:
        os.chown(path, 0, owner.id_map.gid_outside(0))
        path.chmod(0o710)

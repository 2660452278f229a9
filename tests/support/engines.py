"""The daemon's parts below the API, put together as the daemon does it, with a small image: for tests of what runs."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import attrs

from supervisor.access.audit import open_audit
from supervisor.access.identity import Role
from supervisor.access.owners import open_owners
from supervisor.access.requests import ContainerRequest
from supervisor.config import Config
from supervisor.database.database import open_database
from supervisor.events.journal import open_events
from supervisor.linux import capabilities
from supervisor.linux.cgroup import detect
from supervisor.linux.mount_namespace import seen_in_mounts
from supervisor.linux.mounts import release_mounts
from supervisor.linux.spawner import SpawnerSeed, open_spawner, start_spawner
from supervisor.monitor.monitor import open_monitor
from supervisor.network.networks import open_networks
from supervisor.oci.image import Execution, ImageConfig
from supervisor.oci.reference import parse
from supervisor.runtime import processes, seccomp
from supervisor.runtime.cgroup_tree import CgroupTree
from supervisor.runtime.containers import Containers
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.oci_runtime import open_runtime
from supervisor.runtime.opening import open_containers
from supervisor.runtime.parts import Parts
from supervisor.runtime.spec import DEFAULT_CAPABILITIES
from supervisor.store.store import open_store
from supervisor.tasks import finish_within, in_thread
from tests.support.cancelling import Ground
from tests.support.daemon import busybox_tar
from tests.support.people import ADA, ROOT, ListedDirectory, identity

ADA_IDENTITY = identity(ADA)
ROOT_IDENTITY = identity(ROOT, Role.ADMIN)
IMAGE = "busybox:latest"
FAREWELL_SECONDS = 10.0


@attrs.frozen
class Engine:
    """One daemon's life.

    Attributes:
        ground: Where to look for what remains.
    """

    parts: Parts
    containers: Containers
    seed: SpawnerSeed

    @property
    def ground(self) -> Ground:
        config = self.parts.config
        return Ground(
            spawner=self.parts.spawner,
            helper=self.seed.helper.pid,
            roots=(config.run_root, config.data_root),
            cgroups=self.parts.tree.cgroups,
            prefixes=(f"bh{config.instance_tag}-", f"bv{config.instance_tag}-"),
            database=config.data_root / "database.sqlite",
        )

    async def create(self, *command: str, **more: object) -> Keeper:
        """A container of Ada's, without a network unless told otherwise."""
        values = {"image": IMAGE, "network_mode": "none", "command": command, **more}
        request = ContainerRequest(**values)  # type: ignore[arg-type]  # checked by attrs
        keeper, _ = await self.containers.create(ADA_IDENTITY, request)
        return keeper

    async def run(self, *command: str, **more: object) -> Keeper:
        """The same, started."""
        keeper = await self.create(*command, **more)
        await keeper.perform(keeper.start)
        return keeper

    async def remove(self, keeper: Keeper) -> None:
        await keeper.perform(lambda: keeper.remove(force=True, volumes=True))


@asynccontextmanager
async def open_parts(
    config: Config, seed: SpawnerSeed, *, farewell: bool = True
) -> AsyncIterator[Parts]:
    """All that the runtime stands on; with ``farewell`` nothing stays on the host at the end."""
    for path, mode in ((config.data_root, 0o700), (config.run_root, 0o711)):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    async with AsyncExitStack() as rungs:
        opened = rungs.enter_async_context
        spawner = await opened(open_spawner(seed))
        if farewell:
            rungs.push_async_callback(_release, partial(release_mounts, spawner))
        database = await opened(open_database(config.data_root / "database.sqlite"))
        events = await opened(open_events(database, config.journal))
        owners = await opened(open_owners(database, events, config, ListedDirectory()))
        audit = await opened(open_audit(events, config))
        audit = await opened(open_audit(events, config))
        store = await opened(open_store(database, events, spawner, owners, config))
        networks = await opened(open_networks(database, events, spawner, owners, config))
        cgroups = await in_thread(partial(detect, config.instance))
        monitor = await opened(open_monitor(events, cgroups, config.monitor))
        profile = seccomp.read_profile(config.runtime.seccomp_profile)
        bounding = capabilities.bounding_set()
        runtime = await opened(
            open_runtime(
                config.runtime.runtimes,
                spawner,
                cgroups,
                config.run_root,
                seccomp.runtime_seccomp(profile, bounding & frozenset(DEFAULT_CAPABILITIES)),
            )
        )
        tree = CgroupTree(cgroups, config.owner, partial(seen_in_mounts, config.run_root))
        if farewell:
            rungs.callback(tree.remove_empty)
        yield Parts(
            config=config,
            database=database,
            events=events,
            spawner=spawner,
            owners=owners,
            audit=audit,
            store=store,
            networks=networks,
            monitor=monitor,
            tree=tree,
            runtime=runtime,
            profile=profile,
            boot_id=processes.boot_id(),
            bounding=bounding,
        )


async def _release(release: object) -> None:
    assert callable(release)
    with finish_within(FAREWELL_SECONDS):
        await release()


def seed_in(root: Path) -> tuple[Config, SpawnerSeed]:
    """Settings with roots below ``root``, and a spawner for one life."""
    config = Config(data_root=root / "data", run_root=root / "run")
    config.run_root.mkdir(parents=True, exist_ok=True)
    return config, start_spawner(config.run_root, config.instance)


@asynccontextmanager
async def engine_in(root: Path, *, farewell: bool = True) -> AsyncIterator[Engine]:
    """A whole engine below ``root`` with one image; a second one there is the next daemon's life."""
    config, seed = seed_in(root)
    async with open_parts(config, seed, farewell=farewell) as parts:
        if not await parts.store.images.exists(ROOT_IDENTITY, IMAGE):
            await _import(parts)
        async with open_containers(parts) as containers:
            yield Engine(parts, containers, seed)


async def _import(parts: Parts) -> None:
    place = await in_thread(parts.store.layers.new_place)

    def unpack() -> None:
        with tarfile.open(fileobj=io.BytesIO(busybox_tar())) as tar:
            tar.extractall(place)

    await in_thread(unpack)
    layer = await parts.store.layers.adopt(place)
    config = ImageConfig(config=Execution(cmd=("sh",)))
    await parts.store.images.create_from(config, [layer.id], ROOT.uid, [parse(IMAGE)])
    await parts.store.images.publish(ROOT_IDENTITY, IMAGE)


@contextmanager
def fresh_root() -> Iterator[Path]:
    """Where an engine may live, and other users may look; short, because a socket's path is.

    A test that fails between two lives leaves processes, groups and mounts of exactly this root: they are ended here.
    """
    root = Path(tempfile.mkdtemp(prefix="bhe-", dir="/var/tmp"))
    root.chmod(0o755)
    try:
        yield root
    finally:
        config = Config(data_root=root / "data", run_root=root / "run")
        cgroups = detect(config.instance)
        while cgroups.exists("") and not cgroups.remove(""):
            cgroups.kill("")
            time.sleep(0.01)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            place = Path(line.split()[4])
            if place.is_relative_to(root):
                subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(root)

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

from supervisor.access.identity import Role
from supervisor.access.requests import ContainerRequest
from supervisor.config import Config
from supervisor.daemon import open_parts
from supervisor.linux.cgroup import detect
from supervisor.linux.mounts import release_mounts
from supervisor.linux.spawner import SpawnerSeed, open_spawner, start_spawner
from supervisor.oci.image import Execution, ImageConfig
from supervisor.oci.reference import parse
from supervisor.runtime.containers import Containers
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.opening import open_containers
from supervisor.runtime.parts import Parts
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
async def parts_in(
    config: Config, seed: SpawnerSeed, *, farewell: bool = True
) -> AsyncIterator[Parts]:
    """All that the runtime stands on; with ``farewell`` nothing stays on the host at the end."""
    for path, mode in ((config.data_root, 0o700), (config.run_root, 0o711)):
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
    async with AsyncExitStack() as rungs:
        spawner = await rungs.enter_async_context(open_spawner(seed))
        if farewell:
            rungs.push_async_callback(_release, partial(release_mounts, spawner))
        parts = await rungs.enter_async_context(open_parts(config, spawner, ListedDirectory()))
        if farewell:
            rungs.callback(parts.tree.remove_empty)
        yield parts


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
    async with parts_in(config, seed, farewell=farewell) as parts:
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

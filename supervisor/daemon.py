"""The composition root: one ladder of services, opened in order and closed in reverse.

The order is the order of birth: whoever is opened later may use what was opened before, and nothing else. *Open* means
*ready*: a service has recovered what a daemon before it left, before the next one is opened.
"""

from __future__ import annotations

import gc
import importlib.metadata
import logging
import os
import platform
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import trio

from protocol.events import DaemonStart, DaemonStop
from supervisor.access.audit import open_audit
from supervisor.access.directory import Directory
from supervisor.access.owners import open_owners
from supervisor.access.suspension import open_suspensions
from supervisor.api.server import Api, open_api
from supervisor.api.services import HostFacts, Services
from supervisor.build.builds import Builds, open_builds
from supervisor.clock import now_ns
from supervisor.config import Config
from supervisor.database.database import open_database
from supervisor.events.journal import Events, open_events
from supervisor.linux import capabilities
from supervisor.linux.cgroup import Cgroups, detect
from supervisor.linux.favordynmods import favouring_moves
from supervisor.linux.mount_namespace import seen_in_mounts
from supervisor.linux.mounts import release_mounts
from supervisor.linux.spawner import Spawner, SpawnerSeed, open_spawner
from supervisor.linux.systemd import NOBODY, ServiceManager
from supervisor.monitor.monitor import open_monitor
from supervisor.monitor.samples import Who
from supervisor.network.networks import open_networks
from supervisor.runtime import processes, seccomp
from supervisor.runtime.cgroup_tree import CgroupTree
from supervisor.runtime.containers import Containers
from supervisor.runtime.disk_use import open_disk_use
from supervisor.runtime.oci_runtime import OciRuntime, open_runtime
from supervisor.runtime.opening import open_containers
from supervisor.runtime.parts import Parts
from supervisor.runtime.relief_hands import ReliefHands
from supervisor.runtime.spec import DEFAULT_CAPABILITIES
from supervisor.service.hangups import Hangups
from supervisor.service.log_events import log_events
from supervisor.service.reload import Reloading
from supervisor.service.rungs import STEP_SECONDS_MAX, Rungs
from supervisor.service.standing import Standing, keep_told
from supervisor.service.watchdog import Beat, feed
from supervisor.store.store import open_store
from supervisor.tasks import finish_within, in_thread

ROOT = 0
DATABASE = "database.sqlite"
FAREWELL_SECONDS = 5.0
DIRECTORY_MODES = (("data_root", 0o700), ("run_root", 0o711))

log = logging.getLogger(__name__)


async def serve(
    config: Config, seed: SpawnerSeed, manager: ServiceManager, read: Callable[[], Config]
) -> None:
    """Be the daemon until told to stop by SIGTERM or SIGINT; a second one ends it at once. SIGHUP reads the settings again.

    Args:
        config: The settings.
        seed: The spawner, forked before the first thread.
        manager: Whoever started us.
        read: Reads the settings anew.

    Raises:
        BakehouseError: This host cannot be served; nothing was left half open.
    """
    async with trio.open_nursery() as nursery:
        stop = trio.Event()
        hangups = Hangups()
        await nursery.start(partial(_listen_for_signals, stop, hangups, nursery.cancel_scope))
        async with _ladder(config, seed, manager, read) as reread, trio.open_nursery() as serving:
            gc.freeze()  # what lives as long as we do need not be looked through again and again
            serving.start_soon(hangups.answer, reread, manager)
            await stop.wait()
            manager.stopping("stopping; containers go on")
            log.info("stopping; containers go on")
            serving.cancel_scope.cancel()
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _ladder(
    config: Config, seed: SpawnerSeed, manager: ServiceManager, read: Callable[[], Config]
) -> AsyncIterator[Reloading]:
    await in_thread(partial(_make_directories, config))
    started_ns = now_ns()
    async with AsyncExitStack() as stack:
        opened = Rungs(stack, manager).opened
        spawner = await opened("the spawner", open_spawner(seed))
        parts = await stack.enter_async_context(open_parts(config, spawner, manager=manager))
        if manager.journal:
            await stack.enter_async_context(_logged(parts))
        containers = await opened("the containers", _containers(parts, manager))
        builds = await opened("the builds", open_builds(parts))
        suspensions = await opened("the people", open_suspensions(parts.database, parts.events))
        disk = await opened("the disk's use", open_disk_use(parts, containers))
        parts.monitor.watch(partial(_census, containers, builds))
        parts.monitor.equip(ReliefHands(parts.tree, parts.owners.limits))
        parts.store.images.watch_users(containers.using_image)
        facts = _host_facts(parts.runtime, parts.tree.cgroups, parts.database.epoch, started_ns)
        standing = partial(_standing, containers, builds)
        reloading = Reloading(parts, read, manager, lambda: standing().line())
        services = Services(
            config=config,
            database=parts.database,
            events=parts.events,
            owners=parts.owners,
            audit=parts.audit,
            suspensions=suspensions,
            store=parts.store,
            networks=parts.networks,
            monitor=parts.monitor,
            containers=containers,
            builds=builds,
            disk=disk,
            facts=facts,
            reread=reloading,
        )
        await stack.enter_async_context(_life(parts.events, facts, parts.runtime.reason))
        activated = [each for _, each in manager.sockets]
        api = await opened("the API", open_api(services, activated))
        beats = _beats(parts, containers, api)
        await stack.enter_async_context(_told_to(manager, parts, standing, beats))
        log.info("ready at %s", ", ".join(api.places))
        yield reloading


@asynccontextmanager
async def open_parts(
    config: Config,
    spawner: Spawner,
    directory: Directory | None = None,
    manager: ServiceManager = NOBODY,
) -> AsyncIterator[Parts]:
    """The lower rungs: all that containers and builds stand on.

    Args:
        config: The settings; the root directories are there.
        spawner: Outlives all of it.
        directory: Where accounts are looked up; the host's own when ``None``.
        manager: Is told what is being opened.
    """
    async with AsyncExitStack() as stack:
        opened = Rungs(stack, manager).opened
        favoured = favouring_moves(spawner, config.run_root, wanted=config.runtime.favordynmods)
        await opened("the cgroups", favoured)
        database = await opened("the database", open_database(config.data_root / DATABASE))
        events = await opened("the journal", open_events(database, config.journal))
        owners = await opened("the owners", open_owners(database, events, config, directory))
        audit = await opened("the audit", open_audit(events, config))
        store = await opened("the store", open_store(database, events, spawner, owners, config))
        networks = await opened(
            "the networks", open_networks(database, events, spawner, owners, config)
        )
        cgroups = await in_thread(partial(detect, config.instance, config.runtime.cgroup_unit))
        watching = open_monitor(events, cgroups, config.monitor, weight_of=owners.weight)
        monitor = await opened("the monitor", watching)
        profile = await in_thread(partial(seccomp.read_profile, config.runtime.seccomp_profile))
        bounding = await in_thread(capabilities.bounding_set)
        usual = seccomp.runtime_seccomp(profile, bounding & frozenset(DEFAULT_CAPABILITIES))
        runtimes = config.runtime.runtimes
        tried = open_runtime(runtimes, spawner, cgroups, config.run_root, usual)
        runtime = await opened("the runtime", tried)
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
            tree=CgroupTree(cgroups, owners.limits, partial(seen_in_mounts, config.run_root)),
            runtime=runtime,
            profile=profile,
            boot_id=await in_thread(processes.boot_id),
            bounding=bounding,
        )


@asynccontextmanager
async def _life(events: Events, facts: HostFacts, reason: str) -> AsyncIterator[None]:
    """The daemon's start and stop are events."""
    start = DaemonStart(
        version=facts.version,
        runtime=facts.runtime,
        runtime_reason=reason,
        cgroups=facts.cgroups,
        lacks=facts.lacks,
    )
    await events.emit(start, owner=ROOT, subject=facts.daemon_id)
    try:
        yield
    finally:
        with finish_within(FAREWELL_SECONDS):
            await events.emit(DaemonStop(), owner=ROOT, subject=facts.daemon_id)


@asynccontextmanager
async def _told_to(
    manager: ServiceManager,
    parts: Parts,
    standing: Callable[[], Standing],
    beats: Mapping[str, Beat],
) -> AsyncIterator[None]:
    """The service manager knows that we are ready, and from now on how we stand and that we live."""
    line = standing().line()
    manager.ready(line)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_told, manager, parts.events, standing, line)
        nursery.start_soon(feed, manager, beats)
        yield
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _logged(parts: Parts) -> AsyncIterator[None]:
    """What happens from now on is told in the log, too."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(log_events, parts.events, parts.events.last_seq, parts.owners.name_of)
        yield
        nursery.cancel_scope.cancel()


def _standing(containers: Containers, builds: Builds) -> Standing:
    running = [keeper.record.owner for keeper in containers.census().values()]
    building = builds.at_work()
    return Standing(len(running), sum(building.values()), {*running, *building})


def _beats(parts: Parts, containers: Containers, api: Api) -> Mapping[str, Beat]:
    """The loops that live as long as the daemon, each by something it does only if it goes round."""

    async def spawner() -> None:
        await parts.spawner.call("mounted", {"below": str(parts.run_root)})

    return {
        "the journal's writer": lambda: parts.database.write(lambda _: None),
        "the spawner": spawner,
        "the monitor": parts.monitor.beat,
        "the containers": containers.beat,
        "the API": api.beat,
    }


@asynccontextmanager
async def _containers(parts: Parts, manager: ServiceManager) -> AsyncIterator[Containers]:
    """The containers; when none runs any more at the end, no mount and no cgroup of ours is left on the host."""

    def progress(done: int, of: int) -> None:
        manager.starting(f"recovering {of} containers: {done} done", STEP_SECONDS_MAX)

    async with open_containers(parts, progress) as containers:
        yield containers
    if any(keeper.alive for keeper in containers.every()):
        return
    with finish_within(FAREWELL_SECONDS):
        await in_thread(parts.tree.remove_empty)
        await release_mounts(parts.spawner)


def _census(containers: Containers, builds: Builds) -> Mapping[str, Who]:
    living = {
        group: Who(keeper.record.owner, keeper.record.id, keeper.record.name)
        for group, keeper in containers.census().items()
    }
    return {**living, **builds.census()}


def _make_directories(config: Config) -> None:
    for name, mode in DIRECTORY_MODES:
        path = getattr(config, name)
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)


async def _listen_for_signals(
    stop: trio.Event,
    hangups: Hangups,
    scope: trio.CancelScope,
    task_status: trio.TaskStatus[None],
) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGHUP:
                hangups.come()
                continue
            if stop.is_set():
                log.warning("told to stop twice: stopping at once")
                scope.cancel()
            stop.set()


def _host_facts(runtime: OciRuntime, cgroups: Cgroups, epoch: str, started_ns: int) -> HostFacts:
    system = platform.freedesktop_os_release()
    return HostFacts(
        version=importlib.metadata.version("bakehouse"),
        kernel=platform.release(),
        operating_system=system.get("PRETTY_NAME", "Linux"),
        os_version=system.get("VERSION_ID", ""),
        architecture=platform.machine(),
        hostname=platform.node(),
        cpus=os.cpu_count() or 1,
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        runtime=runtime.name,
        runtime_path=runtime.program,
        runtime_version=runtime.version,
        cgroups=cgroups.kind,
        lacks=cgroups.lacks,
        started_ns=started_ns,
        daemon_id=epoch,
    )

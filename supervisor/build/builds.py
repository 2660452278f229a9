"""Builds: a recipe and a context become an image.

Words: a *build* is one request; see :mod:`graph` for the words of its inside.

Rules: a build belongs to the task that asked for it: cancelled, nothing of it is left but its events and what the cache
keeps. Its row is there from BuildStart until BuildDone, BuildFail or BuildCancel, so that a crash between them is told
at the next start.
"""

from __future__ import annotations

import platform as host
import secrets
import shutil
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from protocol.errors import Fault
from protocol.events import (
    BuildCancel,
    BuildDone,
    BuildFail,
    BuildPrune,
    BuildStart,
    EventData,
    StepDone,
    StepStart,
)
from supervisor import clock
from supervisor.access.identity import Identity
from supervisor.access.owners import Owner
from supervisor.access.requests import BuildRequest
from supervisor.build import context as contexts
from supervisor.build.cache import Cache
from supervisor.build.context import Context, ContextTree
from supervisor.build.conversion import BaseImage, Platform, Wanted, Wish
from supervisor.build.convert import convert, platform_fault
from supervisor.build.dockerfile.recognise import load
from supervisor.build.dockerfile.source import refused
from supervisor.build.export import export
from supervisor.build.flights import Flights
from supervisor.build.graph import Graph, Run
from supervisor.build.narration import Narration
from supervisor.build.progress import BuildWarning, ImageBuilt, Progress, Tagged
from supervisor.build.solver import Outcome, Solve, Task
from supervisor.errors import (
    BakehouseError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
)
from supervisor.monitor.samples import Who
from supervisor.oci.reference import Reference
from supervisor.runtime.cgroup_tree import BUILDS, build_group, owner_group
from supervisor.runtime.parts import Parts
from supervisor.store import trees
from supervisor.store.image_records import Image
from supervisor.store.images import wanted_name
from supervisor.tasks import finish_within, in_thread

BUILD_ID_BYTES = 16
CLEANUP_SECONDS = 60.0
DOCKERFILE = "Dockerfile"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}

ProgressCallback = Callable[[Progress], Awaitable[None]]


@attrs.define(eq=False)
class _Build:
    """One build at work."""

    id: str
    identity: Identity
    owner: Owner
    request: BuildRequest
    tags: tuple[Reference, ...]
    progress: ProgressCallback
    noted: list[EventData] = attrs.field(factory=list)
    more: trio.Event = attrs.field(factory=trio.Event)

    @property
    def attributes(self) -> dict[str, str]:
        """Of its events."""
        return {"name": self.tags[0].familiar} if self.tags else {}

    def note(self, task: Task, over: bool) -> None:
        """Put a step's beginning or end down for the journal."""
        name, key = task.vertex.title.partition("\n")[0], task.vertex.key
        if over:
            error = task.error.message if task.error else "" if task.outcome else "cancelled"
            cached = task.flight is None and task.outcome is not None
            self.noted.append(StepDone(self.id, key, name, cached, round(task.seconds, 6), error))
        else:
            self.noted.append(StepStart(self.id, key, name))
        self.more.set()


@attrs.define(eq=False)
class Builds:
    """All builds of this daemon. Made by :func:`open_builds`."""

    _parts: Parts
    _cache: Cache
    _flights: Flights
    _at_work: dict[int, int] = attrs.field(factory=dict)
    _limiters: dict[int, trio.CapacityLimiter] = attrs.field(factory=dict)

    async def build(
        self,
        identity: Identity,
        request: BuildRequest,
        context: Context,
        progress: ProgressCallback,
    ) -> Image:
        """Build an image; its story goes to ``progress``. Cancelled, the build is cancelled.

        Args:
            identity: Who asks; policy has let the request pass.
            request: What is asked.
            context: The uploaded archive.
            progress: Called with each value in order, one at a time.

        Raises:
            StepFailed: A command ended badly (an InvalidArgument).
            BakehouseError: The recipe, the context or the request is wrong, or something failed.
        """
        tags = tuple(wanted_name(tag) for tag in request.tags)
        owner = await self._parts.owners.owner_of(identity)
        request = await self._with_cache(identity, request)
        build = _Build(secrets.token_hex(BUILD_ID_BYTES), identity, owner, request, tags, progress)
        with self._counted(identity):
            await self._record(build)
            end: EventData = BuildCancel(build.id)
            try:
                image = await self._build(build, context)
                end = BuildDone(build.id, image.id)
            except BakehouseError as error:
                end = BuildFail(build.id, error.text())
                raise
            finally:
                with finish_within(CLEANUP_SECONDS):
                    await self._over(build, end)
        await progress(ImageBuilt(image.id))
        for tag in tags:
            await progress(Tagged(tag.tagged.familiar))
        return image

    def census(self) -> Mapping[str, Who]:
        """The cgroups of the commands that run now, for the monitor."""
        return self._flights.census()

    def at_work(self) -> Mapping[int, int]:
        """How many builds each owner has now."""
        return dict(self._at_work)

    async def prune(self, identity: Identity) -> int:
        """Forget this person's cached steps (an admin: everybody's); bytes that are free now."""
        reclaimed = await self._cache.prune(None if identity.admin else identity.owner)
        data = BuildPrune(reclaimed_bytes=reclaimed)
        await self._parts.events.emit(data, owner=identity.owner, subject="")
        return reclaimed

    async def usage(self, identity: Identity) -> tuple[int, int]:
        """Entries and bytes of this person's cache (an admin: everybody's)."""
        return await self._cache.usage(None if identity.admin else identity.owner)

    # One build

    async def _with_cache(self, identity: Identity, request: BuildRequest) -> BuildRequest:
        """``--cache-from`` names images whose steps may be taken; where none of them is here, none is, as with dockerd."""
        if not request.cache_from:
            return request
        here = [await self._parts.store.images.exists(identity, one) for one in request.cache_from]
        return request if any(here) else attrs.evolve(request, no_cache=True)

    async def _build(self, build: _Build, context: Context) -> Image:
        place = self._parts.data_root / "builds" / build.id
        tree = await contexts.receive(context, place, self._parts.spawner, self._parts.config.build)
        async with tree.held():
            graph, images = await self._plan(build, tree)
            held = [layer for image in images for layer in image.layers]
            async with self._parts.store.layers.busy(held):
                return await self._solve(build, graph, images, tree)

    async def _plan(self, build: _Build, tree: ContextTree) -> tuple[Graph, Sequence[Image]]:
        """Read the recipe and make its graph, looking up the images it names."""
        name = build.request.dockerfile or DOCKERFILE
        bytes_max = self._parts.config.build.dockerfile_bytes_max
        data = await in_thread(lambda: contexts.read_file(tree, name, bytes_max))
        await in_thread(lambda: contexts.hide_recipe(tree, name))
        file = await in_thread(lambda: load(data, name))
        wish = self._wish(build.request)
        images: dict[str, Image] = {}
        while True:
            known = {
                reference: BaseImage(image.id, image.config) for reference, image in images.items()
            }
            made = await in_thread(lambda known=known: convert(file, wish, known))  # type: ignore[misc]
            if isinstance(made, Graph):
                break
            images |= await self._look_up(build.identity, made, name)
        _check_network(build.identity, made, name)
        for warning in made.warnings:
            await build.progress(BuildWarning(warning))
        return made, tuple(images.values())

    def _wish(self, request: BuildRequest) -> Wish:
        machine = host.machine()
        here = Platform("linux", MACHINES.get(machine, machine))
        fault = platform_fault(request.platform, here) if request.platform else ""
        if fault:
            msg = f"cannot build: {fault}"
            raise InvalidArgument(msg, f"leave --platform out, or write {here}")
        return Wish(
            target=request.target,
            build_args=request.build_args,
            labels=request.labels,
            platform=here,
            network=request.network_mode or "default",
        )

    async def _look_up(self, identity: Identity, wanted: Wanted, name: str) -> dict[str, Image]:
        """The images of that name that this person may use; all that are missing are told at once."""
        found: dict[str, Image] = {}
        faults: list[Fault] = []
        for reference, fault in wanted.images.items():
            try:
                found[reference] = await self._parts.store.images.resolve(identity, reference)
            except NotFound:
                faults.append(fault)
            except InvalidArgument as error:
                faults.append(attrs.evolve(fault, message=error.message, hint=error.hint))
        if faults:
            raise NotFound(refused(name, faults).message, faults=faults)
        return found

    async def _solve(
        self, build: _Build, graph: Graph, images: Sequence[Image], tree: ContextTree
    ) -> Image:
        uid = build.owner.uid
        limiter = self._limiters.setdefault(
            uid, trio.CapacityLimiter(self._parts.config.build.parallel_steps_max)
        )
        solve = Solve(
            parts=self._parts,
            cache=self._cache,
            flights=self._flights,
            graph=graph,
            request=build.request,
            owner=build.owner,
            images={image.id: image.layers for image in images},
            context=tree,
            limiter=limiter,
            note=build.note,
        )
        try:
            outcomes = await self._carry_out(build, solve)
            return await export(self._parts, self._cache, graph, outcomes, uid, build.tags)
        finally:
            solve.release()

    async def _carry_out(self, build: _Build, solve: Solve) -> Mapping[str, Outcome]:
        """Solve the graph while telling of it; what its vertices came to."""
        failed: BakehouseError | None = None
        async with trio.open_nursery() as journal:
            journal.start_soon(self._write_notes, build)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(Narration(solve, build.progress).run)
                try:
                    await solve.solve()
                except BakehouseError as error:
                    failed = error
            journal.cancel_scope.cancel()
        if failed is not None:
            raise failed
        await self._cache.used(solve.hits)
        if solve.fresh:
            await self._cache.remember(solve.fresh, build.owner.uid, None, "config")
        return {key: task.outcome for key, task in solve.tasks.items() if task.outcome}

    # Records

    def _counted(self, identity: Identity) -> _Counted:
        most = self._parts.owners.limits(identity.owner).builds_max
        if most and self._at_work.get(identity.owner, 0) >= most:
            message = f"cannot build: {most} builds of yours are at work"
            raise ResourceExhausted(message, "wait for one of them to end")
        return _Counted(self._at_work, identity.owner)

    async def _record(self, build: _Build) -> None:
        data = BuildStart(build.id, tuple(tag.familiar for tag in build.tags))

        def begin(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO builds (id, owner, started_ns) VALUES (?, ?, ?)",
                (build.id, build.owner.uid, clock.now_ns()),
            )
            self._note(connection, build, data)

        await self._parts.database.write(begin)

    async def _write_notes(self, build: _Build) -> None:
        """Bring what is noted into the journal, as it comes; the rest goes with the build's end."""
        while True:
            await build.more.wait()
            build.more = trio.Event()
            await self._parts.database.write(
                lambda connection: self._write_noted(connection, build)
            )

    def _write_noted(self, connection: sqlite3.Connection, build: _Build) -> None:
        """Runs in the writer's thread, which is the only one that takes notes away."""
        while build.noted:
            self._note(connection, build, build.noted.pop(0))

    async def _over(self, build: _Build, data: EventData) -> None:
        """The end and all that was noted on the way, in one unit."""

        def end(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM builds WHERE id = ?", (build.id,))
            self._write_noted(connection, build)
            self._note(connection, build, data)

        await self._parts.database.write(end)

    def _note(self, connection: sqlite3.Connection, build: _Build, data: EventData) -> None:
        self._parts.events.record(
            connection, data, owner=build.owner.uid, subject=build.id, attributes=build.attributes
        )


@attrs.define
class _Counted:
    """An owner has one more build at work for as long as this is entered."""

    counts: dict[int, int]
    owner: int

    def __enter__(self) -> None:
        self.counts[self.owner] = self.counts.get(self.owner, 0) + 1

    def __exit__(self, *_: object) -> None:
        self.counts[self.owner] -= 1


def _check_network(identity: Identity, graph: Graph, name: str) -> None:
    """``RUN --network=host`` is what ``--network host`` is: for administrators."""
    if identity.admin:
        return
    faults = [
        Fault(
            "RUN --network=host is for administrators",
            vertex.place,
            "use the default network, or none",
        )
        for vertex in graph.vertices.values()
        if isinstance(vertex.op, Run) and vertex.op.network == "host"
    ]
    if faults:
        message = f"cannot build from {name}: the rule network refuses what is for administrators"
        raise PermissionDenied(message, faults=faults)


@asynccontextmanager
async def open_builds(parts: Parts) -> AsyncIterator[Builds]:
    """The builds; what a crash left of them is told and cleared away first. At the end those at work are cancelled."""
    cache = Cache(
        parts.database, parts.store.layers, parts.config.build.cache_entries_per_owner_max
    )
    await _recover(parts)
    await cache.open()
    async with trio.open_nursery() as nursery:
        flights = Flights(nursery, parts.data_root / "builds", parts.config.build.log_bytes_max)
        yield Builds(parts, cache, flights)
        nursery.cancel_scope.cancel()


async def _recover(parts: Parts) -> None:
    """Nothing of a build of before is left: no process, cgroup, runtime state or directory; each is told to have failed."""
    groups = await in_thread(partial(_groups, parts))
    for group in groups:
        await parts.tree.clear(group)
    for bundle in await in_thread(lambda: sorted((parts.run_root / "builds").glob("u*/*"))):
        await parts.runtime.delete(parts.spawner, bundle.name)
        await parts.networks.detach(bundle.name)
    await in_thread(lambda: _clear(parts))

    def tell(connection: sqlite3.Connection) -> None:
        for row in connection.execute("SELECT id, owner FROM builds").fetchall():
            data = BuildFail(row["id"], "the daemon ended during the build")
            parts.events.record(
                connection, data, owner=row["owner"], subject=row["id"], attributes={}
            )
        connection.execute("DELETE FROM builds")

    await parts.database.write(tell)


def _groups(parts: Parts) -> list[str]:
    return [
        build_group(owner, name)
        for owner in parts.tree.owners()
        for name in parts.tree.cgroups.children(f"{owner_group(owner)}/{BUILDS}")
    ]


def _clear(parts: Parts) -> None:
    shutil.rmtree(parts.run_root / "builds", ignore_errors=True)
    builds = parts.data_root / "builds"
    builds.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in builds.iterdir():
        trees.remove(left)

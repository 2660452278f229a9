"""Carrying out a graph: one task per vertex, each waiting for its inputs, as wide as the owner's bound allows.

Words: an *outcome* is what a vertex came to: the layers of its file system, or the context.

A vertex is looked up in the cache when its inputs are known, and only then begun; what another build of the owner's is
doing already is joined (see :mod:`flights`). The first failure ends the build's other vertices.
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, nullcontext
from typing import assert_never

import attrs
import trio

from protocol.errors import Fault
from supervisor.access.owners import Owner
from supervisor.access.requests import BuildRequest
from supervisor.build import cache as keys
from supervisor.build import operation_file, operation_run
from supervisor.build.cache import Cache
from supervisor.build.context import ContextTree
from supervisor.build.flights import Flight, Flights, Made
from supervisor.build.graph import (
    Files,
    Graph,
    MakeDirectory,
    Run,
    Scratch,
    SourceContext,
    SourceImage,
    Vertex,
)
from supervisor.build.operation_file import OpenSource
from supervisor.build.operation_run import RunWork, StepFailed
from supervisor.errors import BakehouseError, NotFound
from supervisor.runtime.parts import Parts

STEP_ID_BYTES = 16


@attrs.frozen
class Outcome:
    """What a vertex came to.

    Attributes:
        layers: Bottom first.
        context: For the context vertex.
        added: It put a layer on top.
        made_ns: When it was made; 0 for what was there.
        cached: Nothing was done for it.
    """

    layers: tuple[str, ...] = ()
    context: ContextTree | None = None
    added: bool = False
    made_ns: int = 0
    cached: bool = True


@attrs.define(eq=False)
class Task:
    """A vertex in one build.

    Attributes:
        begun: Its work is under way, or it is over.
        over: It has come to something, or to nothing because the build ended.
        flight: The work, once begun.
    """

    vertex: Vertex
    begun: trio.Event = attrs.field(factory=trio.Event)
    over: trio.Event = attrs.field(factory=trio.Event)
    flight: Flight | None = None
    outcome: Outcome | None = None
    error: BakehouseError | None = None
    seconds: float = 0.0


@attrs.define(eq=False)
class Solve:
    """One build's way through its graph.

    Attributes:
        owner: Whose.
        images: Layers of the base images, by image id.
        context: What the client sent.
        limiter: How many steps of the owner's are carried out at once.
        note: Told each vertex that is begun (False) and that is over (True); must not wait.
        held: Layers held busy until the build is over.
        hits: Cache entries that were of use.
        fresh: Keys to be remembered when the build is done, of steps that have no layer.
    """

    parts: Parts
    cache: Cache
    flights: Flights
    graph: Graph
    request: BuildRequest
    owner: Owner
    images: Mapping[str, tuple[str, ...]]
    context: ContextTree
    limiter: trio.CapacityLimiter
    note: Callable[[Task, bool], object]
    tasks: dict[str, Task] = attrs.field(factory=dict)
    held: list[str] = attrs.field(factory=list)
    hits: list[str] = attrs.field(factory=list)
    fresh: list[str] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.tasks = {key: Task(vertex) for key, vertex in self.graph.vertices.items()}

    async def solve(self) -> Outcome:
        """Carry out the whole graph; what its target came to.

        Raises:
            BakehouseError: The first failure of a vertex.
        """
        try:
            async with trio.open_nursery() as nursery:
                for task in self.tasks.values():
                    nursery.start_soon(self._vertex, task, nursery.cancel_scope)
        finally:
            for task in self.tasks.values():
                task.begun.set()
                task.over.set()
        failed = next((task.error for task in self.tasks.values() if task.error), None)
        if failed is not None:
            raise failed
        outcome = self.tasks[self.graph.target].outcome
        assert outcome is not None
        return outcome

    def release(self) -> None:
        """The build is over: its layers are kept by what needs them."""
        self.parts.store.layers.release_busy(self.held)
        self.held = []

    async def _vertex(self, task: Task, scope: trio.CancelScope) -> None:
        inputs = [self.tasks[key] for key in task.vertex.inputs]
        for each in inputs:
            await each.over.wait()
        outcomes = [each.outcome for each in inputs if each.outcome is not None]
        if len(outcomes) != len(inputs):
            return
        start = trio.current_time()
        try:
            task.outcome = await self._carry_out(task, outcomes)
        except BakehouseError as error:
            task.error = _placed(error, task.vertex)
            scope.cancel()
        finally:
            task.seconds = trio.current_time() - start
            task.begun.set()
            task.over.set()
            if isinstance(task.vertex.op, Run | Files | MakeDirectory):
                self.note(task, True)

    async def _carry_out(self, task: Task, inputs: list[Outcome]) -> Outcome:
        op = task.vertex.op
        match op:
            case Scratch():
                return Outcome()
            case SourceImage():
                return Outcome(layers=self.images[op.image])
            case SourceContext():
                return Outcome(context=self.context)
            case Run():
                return await self._run(task, op, inputs[0].layers)
            case Files():
                return await self._files(task, op, inputs[0].layers, inputs[1])
            case MakeDirectory():
                return await self._directory(task, op, inputs[0].layers)
            case _:
                assert_never(op)

    async def _run(self, task: Task, op: Run, layers: tuple[str, ...]) -> Outcome:
        key = keys.run_key(op, layers, self.owner.uid, remapped=self.owner.remapped)
        work = RunWork(
            op=op,
            hidden_env=task.vertex.secret_env,
            layers=layers,
            owner=self.owner,
            resources=self.request.resources,
            extra_hosts=self.request.extra_hosts,
            shm_bytes=self.request.shm_bytes,
        )

        async def carry_out(flight: Flight) -> str | None:
            return await operation_run.run(self.parts, work, flight)

        return await self._once(task, layers, key, carry_out)

    async def _directory(self, task: Task, op: MakeDirectory, layers: tuple[str, ...]) -> Outcome:
        async def carry_out(flight: Flight) -> str | None:
            return await operation_file.make_directory(
                self.parts, op, layers, flight.step_id, self.owner.uid
            )

        return await self._once(task, layers, keys.directory_key(op, layers), carry_out)

    async def _files(
        self, task: Task, op: Files, layers: tuple[str, ...], source: Outcome
    ) -> Outcome:
        if source.context is None:
            return await self._files_from(task, op, layers, source.layers)
        step_id = secrets.token_hex(STEP_ID_BYTES)
        context = source.context
        async with operation_file.opened(self.parts, context, step_id, self.owner.uid) as opened:
            key = keys.files_key(op, layers, await operation_file.key_of(op, opened))

        async def carry_out(flight: Flight) -> str | None:
            async with operation_file.opened(
                self.parts, context, flight.step_id, self.owner.uid
            ) as opened:
                return await self._copy(op, layers, opened, flight)

        return await self._once(task, layers, key, carry_out, context)

    async def _files_from(
        self, task: Task, op: Files, layers: tuple[str, ...], source: tuple[str, ...]
    ) -> Outcome:
        """From a stage or image: looked into only when its layers have not been copied from like this before."""

        async def carry_out(flight: Flight) -> str | None:
            async with operation_file.opened(
                self.parts, source, flight.step_id, self.owner.uid
            ) as opened:
                key = keys.files_key(op, layers, await operation_file.key_of(op, opened))
                known = None if self.request.no_cache else await self.cache.find(key)
                if known is not None and await self._is_there(known.layer):
                    return known.layer
                layer = await self._copy(op, layers, opened, flight)
                await self.cache.remember([key], self.owner.uid, layer, task.vertex.title)
                return layer

        return await self._once(task, layers, keys.files_from_key(op, layers, source), carry_out)

    async def _copy(
        self, op: Files, layers: tuple[str, ...], opened: OpenSource, flight: Flight
    ) -> str:
        return await operation_file.copy_files(
            self.parts, op, layers, opened, flight.step_id, self.owner.uid
        )

    async def _once(
        self,
        task: Task,
        layers: tuple[str, ...],
        key: str,
        carry_out: Callable[[Flight], Awaitable[str | None]],
        context: ContextTree | None = None,
    ) -> Outcome:
        """From the cache, or from whoever is doing it, or by doing it; ``context`` outlives this build if need be."""
        if not self.request.no_cache:
            entry = await self.cache.find(key)
            if entry is not None and await self._hold(entry.layer):
                self.hits.append(key)
                return _outcome(layers, entry.layer, entry.made_ns, cached=True)

        async def work(flight: Flight) -> Made:
            # Held before anything else: the build that began this may leave while others wait.
            async with context.held() if context else nullcontext(), self._settled(flight):
                async with self.limiter:
                    layer = await carry_out(flight)
                title = task.vertex.title
                made_ns = await self.cache.remember([key], self.owner.uid, layer, title)
            return Made(layer, made_ns, cached=False, key=key)

        def seen(flight: Flight) -> None:
            task.flight = flight
            task.begun.set()
            self.note(task, False)

        flying = f"{self.owner.uid}:{self.owner.remapped}:{key}"
        while True:
            made = await self.flights.join(flying, secrets.token_hex(STEP_ID_BYTES), work, seen)
            if await self._hold(made.layer):  # else it was pruned in this moment
                return _outcome(layers, made.layer, made.made_ns, cached=False)

    @asynccontextmanager
    async def _settled(self, flight: Flight) -> AsyncIterator[None]:
        """The layer that the block makes is its cache entry's, or when it was cut off it goes."""
        layers, done = self.parts.store.layers, False
        try:
            yield
            done = True
        finally:
            made = layers.made_by(flight.step_id)
            if done:
                layers.used(made)
            else:
                await layers.settle(made)

    async def _is_there(self, layer: str | None) -> bool:
        try:
            await self.parts.store.layers.get([layer] if layer else [])
        except NotFound:
            return False
        return True

    async def _hold(self, layer: str | None) -> bool:
        """Keep a layer for this build; False when it is gone."""
        if layer is None:
            return True
        try:
            await self.parts.store.layers.hold_busy([layer])
        except NotFound:
            return False
        self.held.append(layer)
        return True


def _outcome(layers: tuple[str, ...], layer: str | None, made_ns: int, *, cached: bool) -> Outcome:
    above = () if layer is None else (layer,)
    return Outcome((*layers, *above), None, layer is not None, made_ns, cached)


def _placed(error: BakehouseError, vertex: Vertex) -> BakehouseError:
    """The error with the place of the instruction that failed, for all but commands: those speak for themselves."""
    if isinstance(error, StepFailed) or error.faults or vertex.place is None:
        return error
    placed = copy.copy(error)
    placed.faults = (Fault(vertex.title.partition("\n")[0], vertex.place),)
    return placed

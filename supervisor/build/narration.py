"""Telling a build's story to the one who waits for it.

Stages are carried out at once but told one after the other, in the order of the recipe, as the classic builder does:
what a later stage's commands write waits in their logs. The journal, in contrast, has every step when it happens.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing

import attrs

from supervisor.build.cache import config_key
from supervisor.build.graph import Scratch, SourceImage, Step
from supervisor.build.progress import Progress, StepDone, StepOutput, StepRunning, StepStarted
from supervisor.build.solver import Solve, Task

Tell = Callable[[Progress], Awaitable[None]]


@attrs.define(eq=False)
class Narration:
    """One build's story, told to ``tell``."""

    solve: Solve
    tell: Tell
    _claimed: set[str] = attrs.field(factory=set)
    _names: dict[int, list[str]] = attrs.field(factory=dict)

    async def run(self) -> None:
        """Until every step is over, or none of its stage comes any more."""
        ended: set[int] = set()
        for step in self.solve.graph.steps:
            if step.stage_index in ended:
                continue
            task = self.solve.tasks[step.vertex or step.stands_on]
            first = step.stage_index not in self._names
            names = self._names.setdefault(step.stage_index, [])
            names.append(step.name)
            if self._claims(step, task) and not first:
                await self._work(step, task)
            else:
                await task.over.wait()
                await self._config(step, task, [] if first else names)
            if task.outcome is None:
                ended.add(step.stage_index)

    def _claims(self, step: Step, task: Task) -> bool:
        """Whether the vertex's work is told with this step: the first that asks for it."""
        if step.vertex is None or step.vertex in self._claimed:
            return False
        self._claimed.add(step.vertex)
        return not isinstance(task.vertex.op, Scratch | SourceImage)

    async def _config(self, step: Step, task: Task, names: list[str]) -> None:
        """Tell a step without work of its own; one without ``names`` is a FROM."""
        if task.outcome is None:
            return
        cached = False
        if names:
            key = config_key(names, task.outcome.layers, self.solve.owner.uid)
            known = await self.solve.cache.find(key)
            cached = known is not None and not self.solve.request.no_cache
            (self.solve.hits if known else self.solve.fresh).append(key)
        await self.tell(self._started(step, cached=cached))
        await self.tell(StepDone(step.index, cached=cached))

    async def _work(self, step: Step, task: Task) -> None:
        """Tell a step that has work of its own."""
        await task.begun.wait()
        if task.flight is not None:
            await self.tell(self._started(step, cached=False))
            await self._output(step, task)
        elif task.outcome is not None or task.error is not None:
            await self.tell(self._started(step, cached=task.error is None))
        else:
            return
        await task.over.wait()
        error = task.error.message if task.error else ""
        await self.tell(
            StepDone(step.index, task.seconds, task.flight is None and not error, error)
        )

    async def _output(self, step: Step, task: Task) -> None:
        flight = task.flight
        assert flight is not None
        async with aclosing(flight.log.read()) as pieces:
            async for piece in pieces:
                if piece.data:
                    await self.tell(StepOutput(step.index, piece.data, piece.errors))
                else:
                    await self.tell(StepRunning(step.index, flight.step_id))

    def _started(self, step: Step, *, cached: bool) -> StepStarted:
        total = len(self.solve.graph.steps)
        return StepStarted(step.index, total, step.name, step.stage, cached)

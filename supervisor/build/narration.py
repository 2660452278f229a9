"""Telling a build's story while it happens: to the one who waits for it, and to the journal.

The steps of a stage are told in the order of the recipe, those of different stages as they come. A step that only
changes the config is told when the one before it is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import groupby

import attrs
import trio

from protocol.events import EventData, StepStart
from protocol.events import StepDone as StepDoneEvent
from supervisor.build.graph import Scratch, SourceImage, Step
from supervisor.build.progress import Progress, StepDone, StepOutput, StepRunning, StepStarted
from supervisor.build.solver import Solve, Task

Tell = Callable[[Progress], Awaitable[None]]
Note = Callable[[EventData], object]


@attrs.define(eq=False)
class Narration:
    """One build's story.

    Attributes:
        tell: For the one who waits; called by one task at a time.
        note: For the journal; must not wait.
    """

    build_id: str
    solve: Solve
    tell: Tell
    note: Note
    _claimed: set[str] = attrs.field(factory=set)
    _speaking: trio.Lock = attrs.field(factory=trio.Lock)

    async def run(self) -> None:
        """Until every step is over."""
        async with trio.open_nursery() as nursery:
            for _, steps in groupby(self.solve.graph.steps, key=lambda step: step.stage_index):
                nursery.start_soon(self._stage, list(steps))

    async def _say(self, progress: Progress) -> None:
        async with self._speaking:
            await self.tell(progress)

    async def _stage(self, steps: list[Step]) -> None:
        cached = True
        for step in steps:
            task = self.solve.tasks[step.vertex or step.stands_on]
            own = step.vertex is not None and step.vertex not in self._claimed
            if (
                own
                and not isinstance(task.vertex.op, Scratch | SourceImage)
                and step is not steps[0]
            ):
                self._claimed.add(task.vertex.key)
                cached = await self._work(step, task) and cached
            else:
                await task.over.wait()
                if task.outcome is not None:
                    await self._say(self._started(step, cached=cached and step is not steps[0]))
                    await self._say(StepDone(step.index, cached=cached))
            if task.outcome is None:
                return

    def _started(self, step: Step, *, cached: bool) -> StepStarted:
        total = len(self.solve.graph.steps)
        return StepStarted(step.index, total, step.name, step.stage, cached)

    async def _work(self, step: Step, task: Task) -> bool:
        """Tell a step that has work of its own; whether it was cached."""
        await task.begun.wait()
        key = task.vertex.key
        if task.flight is None:
            if task.outcome is None and task.error is None:
                return False
            cached = task.error is None
            await self._say(self._started(step, cached=cached))
        else:
            cached = False
            self.note(StepStart(self.build_id, key, step.name))
            await self._say(self._started(step, cached=False))
            await self._output(step, task)
        await task.over.wait()
        error = task.error.message if task.error else ""
        self.note(
            StepDoneEvent(self.build_id, key, step.name, cached, round(task.seconds, 6), error)
        )
        await self._say(StepDone(step.index, task.seconds, cached, error))
        return cached

    async def _output(self, step: Step, task: Task) -> None:
        flight = task.flight
        assert flight is not None
        announced = False
        async for piece in flight.log.read():
            if not announced:
                announced = True
                await self._say(StepRunning(step.index, flight.step_id))
            await self._say(StepOutput(step.index, piece))

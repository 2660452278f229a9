"""Carrying out a container's health check: one probe after another, beside its run.

A probe is an exec like any other, told by the same events, and forgotten when it has answered. While the container is
paused none is begun, and one under way is not waited for. At the end of the run this is cancelled; what a probe left
running ends with the container. Of one owner's probes few are begun at once: whoever has a thousand containers that are
probed a thousand times a second waits for themselves, and nobody else does.
"""

from __future__ import annotations

from typing import Protocol

import trio
from typing_extensions import override

from protocol.events import ContainerHealth
from supervisor.access.requests import ExecRequest
from supervisor.clock import NANOSECONDS_PER_SECOND, now_ns
from supervisor.errors import BakehouseError
from supervisor.runtime.execs import Exec
from supervisor.runtime.health import (
    NOT_RUN_CODE,
    OUTPUT_BYTES_MAX,
    HealthState,
    Plan,
    ProbeResult,
    after_probe,
    output_text,
    took_too_long,
)
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.status import Status

STARTS_AT_ONCE_MAX = 4
KILL_SECONDS = 10.0
KILL_AGAIN_SECONDS = 0.2


class Execs(Protocol):
    """Where probes come from, and go when they have answered."""

    async def make_exec(self, keeper: Keeper, owner: int, request: ExecRequest) -> Exec:
        """A further process of a running container, not started yet."""

    async def forget_exec(self, made: Exec) -> None:
        """It is written down no more."""

    def starting(self, owner: int) -> trio.CapacityLimiter:
        """Held while a probe of this owner's is begun."""


class Kept(trio.abc.Stream):
    """The first bytes of a probe's output; the rest is only counted."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self.kept = bytearray()
        self.more = False

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Keep what there is room for."""
        await trio.lowlevel.checkpoint()
        room = self._bytes_max - len(self.kept)
        self.kept += data[:room]
        self.more = self.more or len(data) > room

    @override
    async def wait_send_all_might_not_block(self) -> None:
        """It never blocks."""
        await trio.lowlevel.checkpoint()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """A probe has no input."""
        await trio.lowlevel.checkpoint()
        return b""

    @override
    async def aclose(self) -> None:
        """There is nothing to let go of."""
        await trio.lowlevel.checkpoint()


async def tend_health(execs: Execs, keeper: Keeper, plan: Plan) -> None:
    """Probe the container for as long as it runs; the caller cancels this when it does not."""
    while True:
        await trio.sleep(plan.interval_ns / NANOSECONDS_PER_SECOND)
        result = await _probe(execs, keeper, plan)
        if keeper.state.status is Status.RUNNING:  # else it answered for what is over
            await _take(keeper, plan, result)


async def _take(keeper: Keeper, plan: Plan, result: ProbeResult) -> None:
    before = keeper.state.health or HealthState()
    after = after_probe(plan, before, result, keeper.state.started_ns)
    told = [ContainerHealth(status=after.status.value, output=result.output)]
    await keeper.row.note(*(told if after.status is not before.status else ()), health=after)


async def _probe(execs: Execs, keeper: Keeper, plan: Plan) -> ProbeResult:
    start_ns = now_ns()
    request = ExecRequest(command=plan.command, attach_stdout=True, attach_stderr=True)
    try:
        made = await execs.make_exec(keeper, keeper.record.owner, request)
    except BakehouseError as error:
        return ProbeResult(start_ns, now_ns(), NOT_RUN_CODE, error.message)
    code, output = await _answer(made, plan, execs.starting(keeper.record.owner))
    await execs.forget_exec(made)
    return ProbeResult(start_ns, now_ns(), code, output)


async def _answer(made: Exec, plan: Plan, starting: trio.CapacityLimiter) -> tuple[int, str]:
    """The probe's exit code and output."""
    kept = Kept(OUTPUT_BYTES_MAX)
    attachment = made.attachment(framed=False)
    try:
        with trio.CancelScope() as patience:
            async with starting:
                timeout_seconds = plan.timeout_ns / NANOSECONDS_PER_SECOND
                patience.deadline = trio.current_time() + timeout_seconds
                await made.start(attachment)
            await attachment.serve(kept)
            await made.ended.wait()
    except BakehouseError as error:
        return NOT_RUN_CODE, error.message
    finally:
        attachment.close()
    if patience.cancelled_caught:
        await _kill(made)
        return NOT_RUN_CODE, took_too_long(plan.timeout_ns)
    code = made.record.exit_code
    return NOT_RUN_CODE if code is None else code, output_text(bytes(kept.kept), cut=kept.more)


async def _kill(made: Exec) -> None:
    """It is dead, with all it started; one that is only being started is killed when it is there."""
    with trio.move_on_after(KILL_SECONDS):
        while not made.ended.is_set():
            await made.kill()
            with trio.move_on_after(KILL_AGAIN_SECONDS):
                await made.ended.wait()

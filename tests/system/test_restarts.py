"""Restart policies on the real kernel, runtime and conmon, through daemons that end and begin."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from protocol.events import ContainerDie
from supervisor.access.requests import HealthRequest, RestartRequest
from supervisor.clock import now_ns
from supervisor.errors import Conflict
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.status import Status
from tests.support.engines import ADA_IDENTITY, Engine, engine_in, fresh_root

pytestmark = pytest.mark.root

PATIENCE_SECONDS = 20
ALWAYS, UNLESS_STOPPED = RestartRequest("always"), RestartRequest("unless-stopped")


@pytest.fixture
def root() -> Iterator[Path]:
    with fresh_root() as place:
        yield place


@asynccontextmanager
async def engine(root: Path, *, last: bool = True) -> AsyncIterator[Engine]:
    async with engine_in(root, farewell=last) as made:
        with trio.fail_after(PATIENCE_SECONDS):
            yield made
            if last:
                for keeper in made.containers.every():
                    await made.remove(keeper)


async def until(true: Callable[[], object]) -> None:
    while not true():
        await trio.sleep(0.002)


def again(made: Engine, keeper: Keeper) -> Keeper:
    return made.containers.find(ADA_IDENTITY, keeper.record.id)


async def in_long_backoff(*keepers: Keeper) -> None:
    """Wait until all of them will wait for a second or so."""
    await until(
        lambda: all(
            keeper.state.status is Status.RESTARTING
            and keeper.state.backoff.remaining_ns(now_ns()) >= 1_200_000_000
            for keeper in keepers
        )
    )


async def test_it_is_started_again_and_counted(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.run("false", restart=RestartRequest("on-failure", 3))
        await until(lambda: keeper.state.status is Status.EXITED)
        assert keeper.state.backoff.count == 3
        assert keeper.state.exit_code == 1
        delays = [data.restart_after_ns for data in await deaths(made, keeper)]
        assert delays == [100_000_000, 200_000_000, 400_000_000, 0]
        assert await keeper.perform(keeper.start)
        assert keeper.state.backoff.count <= 1, "who starts it by hand starts anew"


async def deaths(made: Engine, keeper: Keeper) -> list[ContainerDie]:
    page = await made.parts.events.page(0, visible_to=None, limit=1_000)
    told = [event.data for event in page.events if event.subject == keeper.record.id]
    return [data for data in told if isinstance(data, ContainerDie)]


async def test_who_waits_to_be_restarted_can_be_stopped_killed_and_removed_at_once(
    root: Path,
) -> None:
    async with engine(root) as made:
        stopped, killed, removed, restarted = [
            await made.run("false", restart=policy)
            for policy in (ALWAYS, UNLESS_STOPPED, ALWAYS, ALWAYS)
        ]
        await in_long_backoff(stopped, killed, removed, restarted)
        with trio.fail_after(1):
            with pytest.raises(Conflict, match="is restarting"):
                await stopped.perform(stopped.pause)
            with pytest.raises(Conflict, match="is restarting"):
                stopped.check_execs()
            with pytest.raises(Conflict, match="remove a restarting container"):
                await removed.perform(lambda: removed.remove(force=False, volumes=True))
            assert not await stopped.perform(stopped.start), "it is about to run already"
            assert await stopped.perform(lambda: stopped.stop(5, signal.SIGTERM))
            await killed.perform(lambda: killed.kill(signal.SIGKILL))
            await made.remove(removed)
        assert stopped.state.status is killed.state.status is Status.EXITED
        assert stopped.state.stopped
        await restarted.perform(lambda: restarted.restart(5, signal.SIGTERM))
        assert restarted.state.backoff.count <= 1
        await trio.sleep(1)
        assert stopped.state.status is killed.state.status is Status.EXITED


async def test_whoever_stops_or_kills_it_ends_its_restarts(root: Path) -> None:
    async with engine(root) as made:
        stopped = await made.run("sleep", "60", restart=ALWAYS)
        killed = await made.run("sleep", "60", restart=ALWAYS)
        hailed = await made.run("sleep", "60", restart=ALWAYS)
        await stopped.perform(lambda: stopped.stop(0, signal.SIGTERM))
        await killed.perform(lambda: killed.kill(signal.SIGKILL))
        await killed.wait("not-running")
        await hailed.perform(lambda: hailed.kill(signal.SIGWINCH))
        assert hailed.state.process is not None
        os.kill(hailed.state.process.pid, signal.SIGKILL)  # nobody asked for that
        await until(lambda: hailed.state.backoff.count == 1 and hailed.alive)
        assert stopped.state.status is killed.state.status is Status.EXITED
        assert stopped.state.exit_code == 137


async def test_policies_at_a_daemons_start(root: Path) -> None:
    async with engine(root, last=False) as made:
        always = await made.run("sleep", "60", restart=ALWAYS)
        unless = await made.run("sleep", "60", restart=UNLESS_STOPPED)
        never_run = await made.create("sleep", "60", restart=ALWAYS)
        for keeper in (always, unless):
            await keeper.perform(lambda keeper=keeper: keeper.stop(0, signal.SIGTERM))  # type: ignore[misc]
        died = await made.run("sh", "-c", "sleep 0.3; exit 7", restart=RestartRequest("on-failure"))
        waiting = await made.run("false", restart=ALWAYS)
        await in_long_backoff(waiting)
        backoff = waiting.state.backoff
        runs_on = await made.run("sleep", "60", restart=ALWAYS)
        process = runs_on.state.process
    await trio.sleep(0.5)
    async with engine(root) as made:
        assert again(made, unless).state.status is Status.EXITED
        assert again(made, never_run).state.status is Status.CREATED
        assert again(made, runs_on).state.process == process
        await until(lambda: again(made, always).alive)
        assert not again(made, always).state.stopped
        told = await deaths(made, died)
        assert told[0].exit_code == 7
        assert told[0].restart_after_ns > 0
        await until(lambda: again(made, died).state.backoff.count >= 1 and again(made, died).alive)
        await until(lambda: again(made, waiting).state.backoff.count > backoff.count)


async def test_deaths_nobody_saw_are_told_in_their_order_with_their_times(root: Path) -> None:
    async with engine(root, last=False) as made:
        later = await made.run("sh", "-c", "sleep 0.6; exit 2")
        sooner = await made.run("sh", "-c", "sleep 0.2; exit 1")
        began_ns = {one.record.id: one.state.started_ns for one in (later, sooner)}
    await trio.sleep(1)
    async with engine(root) as made:
        told = [(await deaths(made, one))[0] for one in (sooner, later)]
        assert [data.exit_code for data in told] == [1, 2]
        for one, data, seconds in ((sooner, told[0], 0.2), (later, told[1], 0.6)):
            assert data.ended_ns == again(made, one).state.finished_ns
            assert data.ended_ns - began_ns[one.record.id] == pytest.approx(
                seconds * 1e9, abs=0.35e9
            )
        page = await made.parts.events.page(0, visible_to=None, limit=1_000)
        order = [event.subject for event in page.events if event.type == "container.die"]
        assert order == [sooner.record.id, later.record.id]


async def test_a_start_cut_off_by_the_daemons_end_is_begun_anew(root: Path) -> None:
    async with engine(root, last=False) as made:
        keeper = await made.create("sleep", "60", restart=UNLESS_STOPPED)
        other = await made.create("sleep", "60")
        for one in (keeper, other):
            keeper.nursery.start_soon(one.perform, one.start)
        await until(lambda: keeper.state.status is other.state.status is Status.STARTING)
    async with engine(root) as made:
        assert again(made, other).state.status is Status.CREATED
        await until(lambda: again(made, keeper).alive)


async def test_what_is_killed_while_paused_is_probed_once_when_it_runs_again(root: Path) -> None:
    async with engine(root) as made:
        check = HealthRequest(("CMD", "true"), interval_ns=300_000_000)
        keeper = await made.run("sleep", "60", health=check)
        for number in (signal.SIGKILL, signal.SIGTERM):
            await keeper.perform(keeper.pause)
            await keeper.perform(lambda number=number: keeper.stop(0.05, number))  # type: ignore[misc]
            assert keeper.state.status is Status.EXITED
            await keeper.perform(keeper.start)
        await trio.sleep(1.1)
        assert keeper.state.health is not None
        assert 1 <= len(keeper.state.health.log) <= 3, "one who looks, not several"

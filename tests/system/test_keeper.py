"""One container's life under its keeper, with everything that can cross it: on the real kernel, runtime and conmon."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio
import trio.testing
from typing_extensions import override

from supervisor.access.requests import ExecRequest
from supervisor.errors import BakehouseError, Conflict, InvalidArgument, NotFound
from supervisor.linux import mounts
from supervisor.runtime.assembly import session_paths
from supervisor.runtime.attach import Attachment, AttachRequest
from supervisor.runtime.conmon import SessionPaths
from supervisor.runtime.endings import Exit, read_ending
from supervisor.runtime.execs import Exec
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.lines import Lines
from supervisor.runtime.processes import identify
from supervisor.runtime.status import Status
from tests.support.cancelling import Ground
from tests.support.engines import ADA_IDENTITY, Engine, engine_in, fresh_root

pytestmark = pytest.mark.root

PATIENCE_SECONDS = 20


@pytest.fixture
def root() -> Iterator[Path]:
    with fresh_root() as place:
        yield place


@asynccontextmanager
async def engine(root: Path) -> AsyncIterator[Engine]:
    """An engine in which nothing remains at the end but what the owner keeps for the next container."""
    async with engine_in(root) as made:
        await made.remove(await made.run("true"))
        ground = made.ground
        await ground.remember()
        with trio.fail_after(PATIENCE_SECONDS):
            yield made
        for keeper in made.containers.every():
            await made.remove(keeper)
        await ground.check_nothing_remains()


async def nothing_remains_of_a_run(made: Engine, ground: Ground) -> None:
    """What is on disk of a container that was started, its log and its snapshot, stays until it is removed."""
    kept = (made.parts.data_root, made.parts.run_root / "rootfs")
    await ground.check_nothing_remains("row of snapshot", *(f"path {path}" for path in kept))


async def until(true: Callable[[], object]) -> None:
    while not true():
        await trio.sleep(0.002)


async def exec_of(made: Engine, keeper: Keeper, *command: str) -> Exec:
    return await made.containers.create_exec(ADA_IDENTITY, keeper, ExecRequest(command=command))


# --- starts that fail ----------------------------------------------------------------------------------------------


async def test_a_start_that_fails_leaves_nothing_and_wakes_who_waits(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.create("/no/such/command")
        ground = made.ground
        await ground.remember()
        attachment = await keeper.clients.attachment(AttachRequest())
        near, _ = trio.testing.memory_stream_pair()

        async def fail() -> None:
            with pytest.raises(BakehouseError):
                await keeper.perform(keeper.start)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(attachment.serve, near)
            nursery.start_soon(fail)
            await until(lambda: keeper.state.status is Status.STARTING)
            assert (await keeper.wait("not-running")).code == 127
        assert keeper.state.status is Status.CREATED
        assert keeper.state.error
        await nothing_remains_of_a_run(made, ground)


async def test_a_failed_start_removes_what_was_to_be_removed(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.create("/no/such/command", auto_remove=True)
        with pytest.raises(BakehouseError):
            await keeper.perform(keeper.start)
        await keeper.gone.wait()


async def test_a_working_directory_that_is_a_file_is_refused(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.create("true", working_dir="/etc/passwd")
        with pytest.raises(InvalidArgument, match="working directory"):
            await keeper.perform(keeper.start)


def nowhere() -> trio.Nursery:
    raise RuntimeError


class Saboteur(Attachment):
    """A client at whose coming, between create and start, something happens."""

    def __init__(self, deed: Callable[[], object]) -> None:
        super().__init__(AttachRequest(), Lines(nowhere), terminal=False, stdin_once=False)
        self._deed = deed

    @override
    async def connect(self, attach_socket: Path) -> None:
        self._deed()
        await super().connect(attach_socket)


async def test_a_start_fails_after_the_runtime_created(root: Path) -> None:
    """The runtime loses its state between create and start: conmon and process go all the same."""
    async with engine(root) as made:
        keeper = await made.create("sleep", "60")
        ground = made.ground
        await ground.remember()
        state = made.parts.runtime.root / keeper.record.id
        client = Saboteur(lambda: shutil.rmtree(state))
        keeper.runs.waiting.add(client)
        with pytest.raises(BakehouseError):
            await keeper.perform(keeper.start)
        client.close()
        await nothing_remains_of_a_run(made, ground)
        await keeper.perform(keeper.start)
        assert keeper.alive


async def test_conmon_is_killed_while_it_starts(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.create("sleep", "60")
        ground = made.ground
        await ground.remember()
        client = Saboteur(lambda: kill_monitor(made, keeper))
        keeper.runs.waiting.add(client)
        with pytest.raises(BakehouseError):
            await keeper.perform(keeper.start)
        client.close()
        await nothing_remains_of_a_run(made, ground)


def kill_monitor(made: Engine, keeper: Keeper) -> None:
    monitor = monitor_of(made, keeper)
    os.kill(monitor, signal.SIGKILL)
    while identify(monitor, "") is not None:
        time.sleep(0.001)


def monitor_of(made: Engine, keeper: Keeper) -> int:
    return int(session_paths(made.parts.run_root, keeper.record).monitor_pid_file.read_text())


# --- changes that cross ----------------------------------------------------------------------------------------------


async def test_two_removes_and_a_start_at_once(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.run("sleep", "60")
        told: list[str] = []

        async def attempt(change: Callable[[], Awaitable[object]]) -> None:
            try:
                await keeper.perform(change)
                told.append("done")
            except BakehouseError as error:
                told.append(type(error).__name__)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(attempt, lambda: keeper.remove(force=True, volumes=True))
            nursery.start_soon(attempt, keeper.start)
            nursery.start_soon(attempt, keeper.pause)
        assert told.count("done") >= 1
        assert set(told) <= {"done", "NotFound", "Conflict"}
        with pytest.raises(NotFound):
            await keeper.perform(keeper.start)
        with pytest.raises(NotFound):
            await keeper.clients.attachment(AttachRequest())


async def test_a_stop_during_a_start_stops_it(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.create("sleep", "60")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.perform, keeper.start)
            await until(lambda: keeper.state.status is Status.STARTING)
            assert await keeper.perform(lambda: keeper.stop(0, signal.SIGKILL))
        assert keeper.state.status is Status.EXITED


async def test_a_remove_during_a_start_comes_after_it(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.create("sleep", "60")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.perform, keeper.start)
            await until(lambda: keeper.state.status is Status.STARTING)
            with pytest.raises(Conflict):
                await keeper.perform(lambda: keeper.remove(force=False, volumes=True))
            await made.remove(keeper)
        assert keeper.gone.is_set()


async def test_signals_while_it_ends(root: Path) -> None:
    """A kill that is written down while the run ends finds no process, and that is no bug."""
    async with engine(root) as made:
        for _ in range(4):
            keeper = await made.run("sleep", "0.02")

            async def hail(keeper: Keeper = keeper) -> None:
                while keeper.alive:
                    with suppress(Conflict):
                        await keeper.perform(lambda: keeper.kill(signal.SIGWINCH))

            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(hail)
            assert await keeper.wait("not-running") == Exit(0)


async def test_a_stop_of_what_is_just_ending(root: Path) -> None:
    async with engine(root) as made:
        for delay in (0, 0.02, 0.04, 0.06):
            keeper = await made.run("sleep", "0.03")
            await trio.sleep(delay)
            await keeper.perform(lambda keeper=keeper: keeper.stop(5, signal.SIGTERM))  # type: ignore[misc]
            assert keeper.state.status is Status.EXITED


async def test_a_stop_of_a_paused_container(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.run("sleep", "60")
        await keeper.perform(keeper.pause)
        assert await keeper.perform(lambda: keeper.stop(0.05, signal.SIGTERM))
        assert keeper.state.status is Status.EXITED
        assert keeper.state.exit_code == 137


async def test_renames_whose_callers_leave(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.create("true", name="one")
        for number in range(8):
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(made.containers.rename, keeper, f"name{number}")
                    for _ in range(number):
                        await trio.lowlevel.checkpoint()
                    scope.cancel()
            await trio.testing.wait_all_tasks_blocked(0.02)
        async with trio.open_nursery() as nursery:
            for name in ("left", "right"):
                nursery.start_soon(made.containers.rename, keeper, name)
        assert made.containers.find(ADA_IDENTITY, keeper.record.name) is keeper
        stale = {"one", "left", "right", *(f"name{number}" for number in range(8))}
        for name in stale - {keeper.record.name}:
            await made.create("true", name=name)  # nobody holds it


# --- clients at its stdio ----------------------------------------------------------------------------------------


async def test_clients_come_and_go_while_it_starts(root: Path) -> None:
    """Whoever is there at the end of the start sees the end of the run; whoever left leaves nothing."""
    async with engine(root) as made:
        keeper = await made.create("sh", "-c", "sleep 0.1; echo out")
        served: list[bytes] = []

        async def stay() -> None:
            near, far = trio.testing.memory_stream_pair()
            attachment = await keeper.clients.attachment(AttachRequest())
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    served.append(b"".join([part async for part in far]))

                nursery.start_soon(read)
                await attachment.serve(near)
                await near.aclose()

        async def come_and_go() -> None:
            while keeper.state.status in {Status.CREATED, Status.STARTING}:
                attachment = await keeper.clients.attachment(AttachRequest())
                await trio.lowlevel.checkpoint()
                keeper.clients.leave(attachment)

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(come_and_go)
            nursery.start_soon(stay)
            nursery.start_soon(keeper.perform, keeper.start)
            await until(lambda: keeper.state.status is Status.STARTING)
            for _ in range(5):
                nursery.start_soon(stay)
                await trio.sleep(0.01)
        assert len(served) == 6
        assert all(said.endswith(b"out\n") for said in served)


# --- execs -------------------------------------------------------------------------------------------------------


async def test_an_exec_killed_with_its_container_has_its_true_code(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.run("sleep", "60")
        made_execs = [await exec_of(made, keeper, "sleep", "60") for _ in range(3)]
        for one in made_execs:
            await one.start(None)
        await made.remove(keeper)
        assert [one.record.exit_code for one in made_execs] == [137] * 3
        assert [one.record.failure for one in made_execs] == [""] * 3


async def test_execs_being_started_while_the_container_ends(root: Path) -> None:
    """They run or are refused; the container's end and removal leave nothing of them."""
    async with engine(root) as made:
        for delay in (0, 0.01, 0.03, 0.06, 0.1):
            keeper = await made.run("sleep", "60")
            refused: list[str] = []

            async def attempt(keeper: Keeper = keeper, refused: list[str] = refused) -> None:
                one = await exec_of(made, keeper, "true")
                try:
                    await one.start(None)
                except BakehouseError as error:
                    refused.append(error.message)

            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(attempt)
                await trio.sleep(delay)
                await made.remove(keeper)
            assert keeper.gone.is_set()


async def test_an_exec_is_started_once(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.run("sleep", "60")
        one = await exec_of(made, keeper, "sh", "-c", "exit 7")
        outcomes: list[str] = []

        async def attempt() -> None:
            try:
                await one.start(None)
                outcomes.append("started")
            except Conflict:
                outcomes.append("refused")

        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(attempt)
        await one.ended.wait()
        assert sorted(outcomes) == ["refused", "refused", "started"]
        assert one.record.exit_code == 7


async def test_a_client_who_leaves_an_exec_that_starts(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.run("sleep", "60")
        one = await exec_of(made, keeper, "sh", "-c", "exit 3")
        attachment = one.attachment(framed=True)
        with trio.move_on_after(0.02):
            await one.start(attachment)
        attachment.close()
        await one.ended.wait()
        assert one.record.exit_code == 3


# --- conmon ------------------------------------------------------------------------------------------------------


async def test_a_lost_monitor_is_told(root: Path) -> None:
    async with engine(root) as made:
        keeper = await made.run("sleep", "60")
        kill_monitor(made, keeper)
        assert keeper.alive  # the container goes on
        await keeper.perform(lambda: keeper.kill(signal.SIGKILL))
        assert await keeper.wait("not-running") == Exit(
            255, "its monitor was lost, and the exit code with it"
        )


@pytest.mark.parametrize("text", ["", "\n", "13x", "\u00b2", "-1"])
def test_what_is_no_exit_code_is_not_taken_for_one(text: str, tmp_path: Path) -> None:
    paths = SessionPaths(tmp_path, "c")
    paths.exit_file.parent.mkdir()
    paths.exit_file.write_text(text)
    assert read_ending(paths) is None
    paths.exit_file.write_bytes(b"\xff\xfe")
    assert read_ending(paths) is None


async def test_a_root_that_is_looked_into_does_not_stop_the_end(root: Path) -> None:
    """Somebody copies from it: the end is told all the same, what is busy goes with the removal."""
    async with engine(root) as made:
        keeper = await made.run("sleep", "60")
        rootfs = made.parts.store.snapshots.get(keeper.record.id).rootfs
        fd = await mounts.open_in_mounts(made.parts.spawner, rootfs)
        try:
            await keeper.perform(lambda: keeper.kill(signal.SIGKILL))
            assert await keeper.wait("not-running") == Exit(137)
        finally:
            os.close(fd)
        await keeper.perform(keeper.start)
        assert keeper.alive


# --- the next daemon ----------------------------------------------------------------------------------------------


async def next_life(root: Path, then: Callable[[Engine], Awaitable[None]]) -> None:
    with trio.fail_after(PATIENCE_SECONDS):
        async with engine_in(root) as made:
            await then(made)
            for keeper in made.containers.every():
                await made.remove(keeper)


async def test_what_ended_while_nobody_looked(root: Path) -> None:
    """True exit codes of a container and of its exec; --rm holds; a paused one is paused again; conmons are gone."""
    async with engine_in(root, farewell=False) as made:
        ended = await made.run("sh", "-c", "sleep 0.2; exit 9")
        removed = await made.run("sh", "-c", "sleep 0.2", auto_remove=True)
        paused = await made.run("sleep", "60")
        await paused.perform(paused.pause)
        lasting = await made.run("sleep", "60")
        one = await exec_of(made, lasting, "sh", "-c", "sleep 0.2; exit 5")
        await one.start(None)
        made.parts.tree.cgroups.freeze(paused.group, frozen=False)  # as if cut off while unpausing
    await trio.sleep(0.4)

    async def then(made: Engine) -> None:
        def again(keeper: Keeper) -> Keeper:
            return made.containers.find(ADA_IDENTITY, keeper.record.id)

        assert again(ended).state.exit_code == 9
        await until(lambda: removed.record.id not in {k.record.id for k in made.containers.every()})
        assert again(paused).state.status is Status.PAUSED
        assert made.parts.tree.cgroups.frozen(paused.group)
        assert again(lasting).alive
        found = made.containers.find_exec(ADA_IDENTITY, one.record.id)
        await found.ended.wait()
        assert found.record.exit_code == 5
        await again(lasting).perform(lambda: again(lasting).stop(0, signal.SIGKILL))
        assert again(lasting).state.exit_code == 137

    await next_life(root, then)


async def test_it_ends_in_the_moment_the_daemon_starts(root: Path) -> None:
    """Its process is gone, its conmon has not written the code yet: that is waited for."""
    async with engine_in(root, farewell=False) as made:
        keeper = await made.run("sh", "-c", "exec sleep 60")
        monitor = monitor_of(made, keeper)
        os.kill(monitor, signal.SIGSTOP)
        assert keeper.state.process is not None
        os.kill(keeper.state.process.pid, signal.SIGTERM)
        os.kill(keeper.state.process.pid, signal.SIGKILL)
        # Stopped before the keeper can look: this daemon dies here.
    async with trio.open_nursery() as nursery:

        async def then(made: Engine) -> None:
            assert made.containers.find(ADA_IDENTITY, keeper.record.id).state.exit_code == 137

        async def go_on() -> None:
            await trio.sleep(0.5)
            os.kill(monitor, signal.SIGCONT)

        nursery.start_soon(go_on)
        await next_life(root, then)

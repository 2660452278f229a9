"""Containers, their execs, clients and logs, cancelled anywhere.

A start or an exec costs tenths of a second, so these are cancelled at about two dozen places, evenly spread over the steps
of all tasks from the call to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from supervisor.access.requests import ExecRequest, MountKind, MountRequest
from supervisor.errors import NotFound
from supervisor.runtime.assembly import dismantle
from supervisor.runtime.attach import AttachRequest
from supervisor.runtime.conmon import end_monitors
from supervisor.runtime.health import Plan
from supervisor.runtime.joining import Joined
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.launch import launch
from supervisor.runtime.logs import LogEntry, LogQuery
from supervisor.runtime.probes import _probe
from supervisor.runtime.status import Status
from tests.support.cancelling import cancel_everywhere
from tests.support.engines import ADA_IDENTITY, Engine, engine_in

pytestmark = [pytest.mark.root, pytest.mark.slow]

POINTS = 25
PATIENCE_SECONDS = 30


async def warm(made: Engine) -> None:
    """Have what an owner keeps, so that it does not count."""
    await made.remove(await made.run("true"))


async def test_creating_a_container(root: Path) -> None:
    """There is a whole container, or no row, no name, no volume."""
    async with engine_in(root) as made:
        volumes = (
            MountRequest(MountKind.VOLUME, "/anonymous"),
            MountRequest(MountKind.VOLUME, "/named", source="named"),
        )
        await made.parts.store.volumes.create(ADA_IDENTITY.uid, "named")
        ground = made.ground

        async def operation() -> None:
            await made.create("true", name="web", mounts=volumes)

        async def check(completed: bool) -> None:
            keepers = made.containers.every()
            assert completed <= bool(keepers)
            for keeper in keepers:
                assert keeper.state.status is Status.CREATED
                assert made.containers.find(ADA_IDENTITY, "web") is keeper
                await made.remove(keeper)
            if not ground.before.things:
                await ground.remember()
            with pytest.raises(NotFound):
                made.containers.find(ADA_IDENTITY, "web")
            held = await made.parts.store.volumes.get(ADA_IDENTITY.uid, "named")
            assert not held.holders
            await ground.check_nothing_remains()

        for every_task in (False, True):
            await cancel_everywhere(operation, check, points=POINTS, every_task=every_task)


async def test_assembling_and_launching(root: Path) -> None:
    """What a keeper does between its two records, cut off anywhere, and taken apart as the keeper does."""
    async with engine_in(root) as made:
        await warm(made)
        keeper = await made.create("true")
        parts, record = made.parts, keeper.record
        ground = made.ground

        async def operation() -> None:
            await launch(parts, record, keeper.log, Joined())

        async def check(_: bool) -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                await parts.tree.clear(keeper.group)
                await end_monitors(parts.tree, record.owner, record.id.__eq__)
                await dismantle(parts, record)
                if not ground.before.things:
                    await ground.remember()
                await ground.check_nothing_remains()

        assert await cancel_everywhere(operation, check, points=40) >= 25


async def test_a_start_goes_on_when_its_caller_leaves(root: Path) -> None:
    async with engine_in(root) as made:
        await warm(made)
        keepers: list[Keeper] = []
        ground = made.ground
        await ground.remember()

        async def operation() -> None:
            keeper = await made.create("sleep", "60")
            keepers.append(keeper)
            await keeper.perform(keeper.start)

        async def check(_: bool) -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                for keeper in keepers:
                    while keeper.state.status is Status.STARTING or keeper._changes._waiting:
                        await trio.sleep(0.005)
                    assert keeper.state.status in {Status.CREATED, Status.RUNNING}
                    assert not keeper.state.error
                    await made.remove(keeper)
                keepers.clear()
            await ground.check_nothing_remains()

        await cancel_everywhere(operation, check, points=POINTS, every_task=True)


async def test_an_exec_goes_on_when_its_caller_leaves(root: Path) -> None:
    async with engine_in(root) as made:
        keeper = await made.run("sleep", "60")
        ground = made.ground
        one = await made.containers.create_exec(ADA_IDENTITY, keeper, request_of("true"))
        await one.start(None)
        await one.ended.wait()
        await ground.remember()

        async def operation() -> None:
            nonlocal one
            one = await made.containers.create_exec(
                ADA_IDENTITY, keeper, request_of("sh", "-c", "echo x; exit 4")
            )
            near, _ = trio.testing.memory_stream_pair()
            attachment = one.attachment(framed=True)
            try:
                await one.start(attachment)
                await attachment.serve(near)
                await one.ended.wait()
            finally:
                attachment.close()

        async def check(_: bool) -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                await trio.testing.wait_all_tasks_blocked(0.01)
                if one.record.started:
                    await one.ended.wait()
                    assert one.record.exit_code in {0, 4}
            await ground.check_nothing_remains("row of execs")

        await cancel_everywhere(operation, check, points=POINTS, every_task=True)


def request_of(*command: str) -> ExecRequest:
    return ExecRequest(command=command, attach_stdout=True)


async def test_a_client_at_a_containers_stdio(root: Path) -> None:
    async with engine_in(root) as made:
        keeper = await made.run("sh", "-c", "while read line; do echo $line; done", open_stdin=True)
        ground = made.ground
        keeper.clients.leave(
            await keeper.clients.attachment(AttachRequest())
        )  # one line rests from now on
        await ground.remember()

        async def operation() -> None:
            near, far = trio.testing.memory_stream_pair()
            attachment = await keeper.clients.attachment(AttachRequest(stdin=True))
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(attachment.serve, near)
                    await far.send_all(b"hello\n")
                    assert (await far.receive_some()).endswith(b"hello\n")
                    nursery.cancel_scope.cancel()
            finally:
                keeper.clients.leave(attachment)

        async def check(_: bool) -> None:
            assert keeper.alive
            await ground.check_nothing_remains()

        assert await cancel_everywhere(operation, check) >= 5
        await made.remove(keeper)


async def test_a_client_waiting_for_a_run_that_does_not_come(root: Path) -> None:
    async with engine_in(root) as made:
        keeper = await made.create("true")
        near, _ = trio.testing.memory_stream_pair()

        async def operation() -> None:
            attachment = await keeper.clients.attachment(AttachRequest())
            try:
                with trio.move_on_after(0.001):
                    await attachment.serve(near)
            finally:
                keeper.clients.leave(attachment)

        async def check(_: bool) -> None:
            assert not keeper.runs.waiting._waiting

        await cancel_everywhere(operation, check)


def joined(entries: Sequence[LogEntry]) -> bytes:
    return b"".join(data for _, _, data in entries)


async def test_following_a_log(root: Path) -> None:
    async with engine_in(root) as made:
        keeper = await made.run("sh", "-c", "while echo line; do sleep 0.02; done")
        ground = made.ground
        await trio.sleep(0.1)
        ground.before = await ground.look()

        async def operation() -> None:
            pages = 0
            query = LogQuery(follow=True, tail=1)
            async with aclosing(made.containers.logs(keeper, query, joined)) as log:  # type: ignore[type-var]
                async for _ in log:
                    pages += 1
                    if pages == 4:
                        break

        async def check(_: bool) -> None:
            await ground.check_nothing_remains("process ")  # the loop has a new one each time

        assert await cancel_everywhere(operation, check) >= 5
        await made.remove(keeper)


async def test_stopping_and_removing(root: Path) -> None:
    """A caller who leaves stops nothing half-way: a stop goes on, a removal too."""
    async with engine_in(root) as made:
        await warm(made)
        ground = made.ground
        await ground.remember()
        keepers: list[Keeper] = []

        async def operation() -> None:
            keeper = keepers[-1]
            await keeper.perform(lambda: keeper.stop(5, 9))
            await keeper.perform(lambda: keeper.remove(force=False, volumes=True))

        async def renew() -> None:
            keepers.append(await made.run("sleep", "60"))

        async def check(_: bool) -> None:
            keeper = keepers[-1]
            with trio.fail_after(PATIENCE_SECONDS):
                while keeper._changes._waiting and not keeper.gone.is_set():
                    await trio.sleep(0.002)
                if not keeper.gone.is_set():
                    await made.remove(keeper)
            await ground.check_nothing_remains()
            await renew()

        await renew()
        await cancel_everywhere(operation, check, points=POINTS, every_task=True)
        await made.remove(keepers[-1])


async def test_the_caller_of_a_wait(root: Path) -> None:
    async with engine_in(root) as made:
        keeper = await made.run("sleep", "60")
        ground = made.ground
        await ground.remember()

        async def operation() -> None:
            async with trio.open_nursery() as nursery:
                for condition in ("not-running", "next-exit", "removed"):
                    nursery.start_soon(partial(keeper.wait, condition))
                await trio.sleep(0.002)
                nursery.cancel_scope.cancel()

        async def check(_: bool) -> None:
            await ground.check_nothing_remains()

        await cancel_everywhere(operation, check)
        await made.remove(keeper)


async def test_a_health_probe(root: Path) -> None:
    """It answers, or ends with the container; nothing remains of it then."""
    async with engine_in(root) as made:
        await warm(made)
        plan = Plan(("sh", "-c", "echo fine"), timeout_ns=5_000_000_000)
        ground = made.ground
        await ground.remember()
        keepers: list[Keeper] = []

        async def operation() -> None:
            keeper = await made.run("sleep", "60")
            keepers.append(keeper)
            result = await _probe(made.containers, keeper, plan)
            assert (result.exit_code, result.output) == (0, "fine\n")
            assert not made.containers.execs_of(keeper)

        async def check(_: bool) -> None:
            with trio.fail_after(PATIENCE_SECONDS):
                for keeper in keepers:
                    await made.remove(keeper)
                for keeper in made.containers.every():
                    await made.remove(keeper)
                keepers.clear()
            await ground.check_nothing_remains()

        assert await cancel_everywhere(operation, check, points=POINTS) >= POINTS // 2

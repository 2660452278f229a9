"""Changes of a container whose caller leaves at any moment: a change that was begun goes on to its end, and leaves nothing."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs
import pytest
import trio

from supervisor.access.requests import (
    EndpointRequest,
    NetworkRequest,
    Resources,
    UpdateRequest,
)
from supervisor.network.endpoints import Network
from supervisor.runtime import connecting
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.status import ALIVE, Status
from tests.support.cancelling import cancel_everywhere
from tests.support.engines import ADA_IDENTITY, Engine, engine_in

pytestmark = [pytest.mark.root, pytest.mark.slow]

PATIENCE_SECONDS = 30
OTHER = "other"
POINTS = 15

Do = Callable[[Engine, Keeper], Awaitable[object]]


@attrs.frozen
class Change:
    """One of them: how it is asked for, and what it may be after it: what it was, or what was asked for."""

    name: str
    act: Do
    may_be: frozenset[Status] = ALIVE
    before: Do | None = None


async def restart(_: Engine, keeper: Keeper) -> None:
    await keeper.perform(lambda: keeper.restart(5, signal.SIGKILL))


async def pause(_: Engine, keeper: Keeper) -> None:
    await keeper.perform(keeper.pause)


async def unpause(_: Engine, keeper: Keeper) -> None:
    await keeper.perform(keeper.unpause)


async def rename(made: Engine, keeper: Keeper) -> None:
    await made.containers.rename(keeper, f"{keeper.record.name}-renamed")


async def kill(_: Engine, keeper: Keeper) -> None:
    await keeper.perform(lambda: keeper.kill(signal.SIGKILL))


async def update(_: Engine, keeper: Keeper) -> None:
    request = UpdateRequest(resources=Resources(memory_bytes=64 << 20, pids_max=77))
    await keeper.perform(lambda: keeper.update(request))


async def connect(made: Engine, keeper: Keeper) -> None:
    network = await other_network(made)
    wished = EndpointRequest(network.id, aliases=("alias",))
    await keeper.perform(lambda: connecting.connect(keeper, network, wished))


async def disconnect(made: Engine, keeper: Keeper) -> None:
    network = await other_network(made)
    await keeper.perform(lambda: connecting.disconnect(keeper, network))


async def other_network(made: Engine) -> Network:
    found = await made.parts.networks.network(ADA_IDENTITY.owner, OTHER)
    assert isinstance(found, Network)
    return found


CHANGES = (
    Change("update", update),
    Change("connect", connect),
    Change("disconnect", disconnect, before=connect),
    Change("restart", restart),
    Change("pause", pause),
    Change("unpause", unpause, before=pause),
    Change("rename", rename),
    Change("kill", kill, may_be=ALIVE | {Status.EXITED}),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)
async def test_a_change_goes_on_when_its_caller_leaves(change: Change, root: Path) -> None:
    async with engine_in(root) as made:
        await made.parts.networks.create(ADA_IDENTITY.owner, NetworkRequest(OTHER))
        for network in ("bridge", OTHER):
            await made.remove(await made.run("true", network_mode=network))  # what an owner keeps
        ground = made.ground
        await ground.remember()

        async def subject() -> Keeper:
            made_ready = await made.run("sleep", "60", network_mode="bridge")
            if change.before is not None:
                await change.before(made, made_ready)
            return made_ready

        keeper = await subject()

        async def operation() -> None:
            await change.act(made, keeper)

        async def check(_: bool) -> None:
            nonlocal keeper
            with trio.fail_after(PATIENCE_SECONDS):
                while keeper._changes._waiting or keeper.state.status not in change.may_be:
                    await trio.sleep(0.002)
                await made.remove(keeper)
            await ground.check_nothing_remains()
            keeper = await subject()

        await cancel_everywhere(operation, check, points=POINTS, every_task=True)
        await made.remove(keeper)


async def test_a_volume_is_made_held_and_removed(root: Path) -> None:
    async with engine_in(root) as made:
        volumes, ground = made.parts.store.volumes, made.ground
        owner = await made.parts.owners.owner_of(ADA_IDENTITY)
        await volumes.create(owner.uid, "first")  # an owner's first makes their directory
        await ground.remember()

        async def operation() -> None:
            await volumes.create(owner.uid, "named")
            await volumes.hold(owner, "named", "a" * 64)
            await volumes.hold(owner, "", "a" * 64)
            await volumes.release("a" * 64, remove_anonymous=True)
            await volumes.remove(owner.uid, "named")

        async def check(_: bool) -> None:
            await volumes.release("a" * 64, remove_anonymous=True)
            await volumes.remove(owner.uid, "named", force=True)
            await ground.check_nothing_remains()

        for every_task in (False, True):
            await cancel_everywhere(operation, check, every_task=every_task)

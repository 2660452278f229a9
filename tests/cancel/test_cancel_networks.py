"""Networks made and removed, containers connected and disconnected, cancelled at each checkpoint.

Below the keeper, which lets no client's going away cancel a connection: here it is cut off all the same, as at the end of
the daemon. What is there afterwards is what the records say: in memory, in the database, in the kernel.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import attrs
import pytest

from supervisor.access.requests import NetworkRequest, PortRequest
from supervisor.errors import NotFound
from supervisor.network import rows
from supervisor.network.endpoints import Connection, Network
from tests.support.cancelling import cancel_everywhere
from tests.support.networking import ANN, NetworkWorld, networks_in
from tests.support.people import ADA, identity

pytestmark = [pytest.mark.root, pytest.mark.slow]

ID, OTHER = "a" * 64, "b" * 64


async def network(world: NetworkWorld, name: str, **more: object) -> Network:
    view = await world.networks.create(ANN.uid, NetworkRequest(name, **more))  # type: ignore[arg-type]
    assert view.record is not None
    return view.record


def nothing_else(_: sqlite3.Connection) -> None:
    """What a container's own row would be written with."""


async def test_making_and_removing_a_network(root: Path) -> None:
    """There is a network in memory and in the database, or in neither; of one that is gone no link is left."""
    async with networks_in(root) as world:

        async def there() -> bool:
            known = "back" in {view.name for view in world.networks.list(identity(ADA))}
            recorded = {one.name for one in await world.database.read(rows.load_networks)}
            assert known == ("back" in recorded)
            return known

        async def made(completed: bool) -> None:
            assert await there() >= completed
            if await there():
                await world.networks.remove(identity(ADA), "back")

        await cancel_everywhere(lambda: network(world, "back"), made)
        back = await network(world, "back")

        async def removed(completed: bool) -> None:
            nonlocal back
            assert not (completed and await there())
            if not await there():
                assert await world.links() == set()
                back = await network(world, "back")
            await world.networks.attach(
                ID, "web", ANN, "back", (), None, [Connection(back.id, "back")]
            )
            await world.networks.detach(ID)

        async def remove() -> None:
            await world.networks.remove(identity(ADA), "back")

        await cancel_everywhere(remove, removed)


@attrs.define
class Pair:
    """A container on ``front`` that publishes a port, and may be on ``a-back`` too, where another is."""

    world: NetworkWorld
    wish: Connection
    ports: tuple[PortRequest, ...] = (PortRequest(80),)

    async def connect(self) -> None:
        await self.world.networks.connect(ID, self.wish, self.ports, nothing_else)

    async def disconnect(self) -> None:
        await self.world.networks.disconnect(ID, self.wish, nothing_else)

    async def joined(self) -> bool:
        """Whether it is on both; its records, its links and where its ports lead agree about that."""
        sandbox = self.world.networks.sandbox(ID)
        assert sandbox is not None
        seats = await self.world.database.read(rows.load_seats)
        (seat,) = [one for one in seats if one.container_id == ID]
        assert len(seat.wires) == len(sandbox.endpoints)
        assert sandbox.out is not None
        (port,) = sandbox.ports
        lead = f"tcp . {port.host_port} : {sandbox.out.address} . 80"
        assert lead in await self.world.table()
        links = {name for name in await self.world.links() if name.startswith("bv")}
        assert len(links) == len(sandbox.endpoints) + 1
        return "a-back" in {one.network_name for one in sandbox.endpoints}

    async def connected(self, completed: bool) -> None:
        assert await self.joined() >= completed
        if await self.joined():
            await self.disconnect()

    async def disconnected(self, completed: bool) -> None:
        assert not (completed and await self.joined())
        if not await self.joined():
            await self.connect()


async def test_connecting_and_disconnecting_a_container(root: Path) -> None:
    """A container has a whole wire or none of it: link, address, name, and its ports lead to its way out."""
    async with networks_in(root) as world:
        front, back = await network(world, "front"), await network(world, "a-back")
        pair = Pair(world, Connection(back.id, "a-back", ("site",)))
        first = [Connection(front.id, "front")]
        await world.networks.attach(ID, "web", ANN, "front", pair.ports, None, first)
        second = [Connection(back.id, "a-back")]
        await world.networks.attach(OTHER, "two", ANN, "a-back", (), None, second)
        await cancel_everywhere(pair.connect, pair.connected)
        await pair.connect()
        await cancel_everywhere(pair.disconnect, pair.disconnected)
        for container in (ID, OTHER):
            await world.networks.detach(container)
        with pytest.raises(NotFound):
            await pair.connect()

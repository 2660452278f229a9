"""Owners: ranges are allotted once, told, kept, and never shared."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from supervisor.access.identity import Role
from supervisor.access.owners import Owners, open_owners
from supervisor.config import AccessConfig, Config
from supervisor.database.database import Database, open_database
from supervisor.errors import NotFound, PermissionDenied, ResourceExhausted
from supervisor.events.journal import open_events
from supervisor.linux.idmap import IdMap
from supervisor.linux.peer import Peer
from tests.support.people import ADA, BOB, FAR, ROOT, ListedDirectory, identity

FIRST = AccessConfig().range_pool_first_id


@attrs.frozen
class House:
    """The floors below, and the owners on them."""

    owners: Owners
    database: Database

    async def allotments(self) -> list[int]:
        """Owners of the allotment events, in order."""

        def find(connection: sqlite3.Connection) -> list[int]:
            found = connection.execute(
                "SELECT owner FROM event WHERE type = 'owner.allot' ORDER BY seq"
            )
            return [int(row[0]) for row in found]

        return await self.database.read(find)


@asynccontextmanager
async def house(
    path: Path, directory: ListedDirectory | None = None, config: Config | None = None
) -> AsyncIterator[House]:
    config = config or Config()
    async with (
        open_database(path / "database.sqlite") as database,
        open_events(database, config.journal) as events,
        open_owners(database, events, config, directory or ListedDirectory()) as owners,
    ):
        yield House(owners, database)


async def test_a_range_is_allotted_once_and_told_once(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        ada = await at.owners.owner_of(identity(ADA))
        assert await at.owners.owner_of(identity(ADA)) == ada == await at.owners.owner(ADA.uid)
        assert ada.remapped
        assert ada.id_map.uid_outside(0) == ADA.uid
        assert await at.allotments() == [ADA.uid]


async def test_many_at_once_get_one_range_each(tmp_path: Path) -> None:
    firsts: list[tuple[int, int | None]] = []

    async def ask(at: House, uid: int) -> None:
        firsts.append((uid, (await at.owners.owner(uid, remapped=True)).range_first))

    async with house(tmp_path) as at:
        async with trio.open_nursery() as nursery:
            for uid in (ADA.uid, BOB.uid, FAR.uid) * 5:
                nursery.start_soon(ask, at, uid)
        assert len(set(firsts)) == 3
        assert sorted(await at.allotments()) == sorted([ADA.uid, BOB.uid, FAR.uid])
    assert {first for _, first in firsts} == {FIRST, FIRST + 65_536, FIRST + 131_072}


async def test_a_range_outlives_the_daemon_and_the_account(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        before = await at.owners.owner_of(identity(ADA))
    async with house(tmp_path, ListedDirectory(accounts=(BOB, ROOT))) as at:
        left = await at.owners.owner(ADA.uid)
        assert left.range_first == before.range_first
        assert left.groups == (ADA.gid,)
        assert left.supplementary == ()
        assert (await at.owners.owner_of(identity(BOB))).range_first != before.range_first


async def test_a_lost_group_is_no_longer_mapped_and_its_slot_kept(tmp_path: Path) -> None:
    both = attrs.evolve(ADA, groups=(1_000, 1_500, 1_600))
    less = attrs.evolve(ADA, groups=(1_000, 1_600))
    async with house(tmp_path) as at:
        before = await at.owners.owner_of(identity(both))
        after = await at.owners.owner_of(identity(less))
        again = await at.owners.owner_of(identity(both))
    assert before.supplementary == (70_000, 70_001)
    assert after.supplementary == (70_001,)
    assert after.id_map.gid_outside(70_001) == 1_600
    assert before.map_digest != after.map_digest
    assert again == before


async def test_admins_are_not_remapped_unless_asked(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        root = await at.owners.owner_of(identity(ROOT, Role.ADMIN))
        assert (root.remapped, root.id_map, root.uid) == (False, IdMap.IDENTITY, 0)
        assert await at.owners.owner(0) == root
        assert await at.allotments() == []
        remapped = await at.owners.owner(0, remapped=True)
        assert remapped.id_map.uid_outside(0) == remapped.range_first == FIRST


async def test_nobody_is_no_owner(tmp_path: Path) -> None:
    async with house(tmp_path) as at:
        with pytest.raises(NotFound):
            await at.owners.owner(31_337)


async def test_a_container_is_no_person(tmp_path: Path) -> None:
    intruder = attrs.evolve(BOB, uid=FIRST + 33, name="clash")
    async with house(tmp_path, ListedDirectory(accounts=(ADA, BOB, ROOT))) as at:
        await at.owners.owner_of(identity(ADA))
    async with house(tmp_path, ListedDirectory(accounts=(ADA, BOB, ROOT, intruder))) as at:
        for uid in (FIRST, FIRST + 33, FIRST + 65_535):
            with pytest.raises(PermissionDenied, match="belongs to a container"):
                await at.owners.identify(
                    Peer(pid=1, uid=uid, gid=uid, groups=(), pidfd=None, cgroup="")
                )
        assert (await at.owners.identify(Peer(1, BOB.uid, BOB.gid, (), None, ""))).user == "bob"


async def test_an_account_in_the_pool_is_stepped_over(tmp_path: Path) -> None:
    inside = attrs.evolve(BOB, uid=FIRST + 500, name="inside")
    async with house(tmp_path, ListedDirectory(accounts=(ADA, inside))) as at:
        assert (await at.owners.owner_of(identity(ADA))).range_first == FIRST + 65_536


async def test_an_empty_pool_says_so_and_changes_nothing(tmp_path: Path) -> None:
    config = Config(access=AccessConfig(range_pool_owners_max=1))
    async with house(tmp_path, config=config) as at:
        await at.owners.owner_of(identity(ADA))
        with pytest.raises(ResourceExhausted, match="cannot allot ids to bob") as caught:
            await at.owners.owner_of(identity(BOB))
        assert "range_pool_owners_max" in caught.value.hint
        assert await at.allotments() == [ADA.uid]


async def test_daemons_beside_each_other_begin_apart(tmp_path: Path) -> None:
    firsts = set()
    for name in ("one", "two"):
        root = tmp_path / name
        root.mkdir()
        config = Config(data_root=root, run_root=root)
        async with house(root, config=config) as at:
            firsts.add((await at.owners.owner_of(identity(ADA))).range_first)
    assert len(firsts) == 2 or Config(data_root=tmp_path / "one").instance_tag == ""

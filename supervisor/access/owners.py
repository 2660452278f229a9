"""Owners: the people who have things here, and the ids their containers get.

Words: an *owner* is a host uid; a *range* and a *slot* are as in :mod:`supervisor.access.ranges`.

Rules: a range is allotted once, in the same unit as its event, and is that person's for ever; what stands in the
account database when something is made decides which groups are mapped, never what stood there last time; a uid that
lies in any range is a container's and gets no identity.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import attrs

from protocol.events import OwnerAllot, OwnerLimit
from supervisor import clock
from supervisor.access import identity as identities
from supervisor.access import owner_limits, ranges
from supervisor.access.directory import Account, Directory, HostDirectory
from supervisor.access.identity import Identity
from supervisor.access.owner_limits import Changes, Value
from supervisor.config import Config, OwnerConfig
from supervisor.database.database import Database
from supervisor.errors import NotFound, PermissionDenied, ResourceExhausted
from supervisor.events.journal import Events
from supervisor.linux.idmap import IdMap
from supervisor.linux.peer import Peer
from supervisor.linux.spawner import Credentials
from supervisor.tasks import in_thread

SUBORDINATE_FILES = (Path("/etc/subuid"), Path("/etc/subgid"))


@attrs.frozen
class Owner:
    """Whose a thing is, and how the ids of their containers map.

    Attributes:
        uid: The owner.
        gid: Their primary group.
        name: Their login name.
        groups: All their groups, the primary one included; what the kernel checks host paths against.
        range_first: First of their 65,536 host ids; ``None`` when their containers are not remapped.
        id_map: Inside to outside; ``IdMap.IDENTITY`` when not remapped.
        view_map: The same for mounts of the store.
        supplementary: Inside ids of their mapped supplementary groups, for the first process of a container.
    """

    uid: int
    gid: int
    name: str
    groups: tuple[int, ...]
    range_first: int | None
    id_map: IdMap
    view_map: IdMap
    supplementary: tuple[int, ...] = ()

    @property
    def remapped(self) -> bool:
        """Whether their containers have a user namespace."""
        return self.range_first is not None

    @property
    def map_digest(self) -> str:
        """Twelve hex digits that change with the map: pins of namespaces and views are named by it."""
        told = ";".join(
            f"{kind}{line.inside}:{line.outside}:{line.count}"
            for kind, lines in (("u", self.id_map.uids), ("g", self.id_map.gids))
            for line in lines
        )
        return hashlib.sha256(told.encode()).hexdigest()[:12]

    @property
    def credentials(self) -> Credentials:
        """What the kernel shall check when a host path is opened for this owner."""
        return Credentials(uid=self.uid, gid=self.gid, groups=self.groups)


@attrs.define(eq=False)
class Owners:
    """The owners of this daemon. Made by :func:`open_owners`."""

    _database: Database
    _events: Events
    _config: Config
    _directory: Directory
    _own_limits: dict[int, Mapping[str, Value]] = attrs.field(factory=dict)
    _allotted: Sequence[range] | None = None

    async def identify(self, peer: Peer) -> Identity:
        """Tell who ``peer`` acts for; asked once per connection.

        Raises:
            PermissionDenied: A stranger, a uid without an account, or one that belongs to a container.
        """
        if any(peer.uid in allotted for allotted in await self.allotted()):
            raise PermissionDenied(
                f"cannot let uid {peer.uid} in: it belongs to a container",
                hint="inside a container, talk to the daemon as its root: that is the container's owner",
            )
        return await identities.identify(peer, self._directory, self._config.access)

    async def allotted(self) -> Sequence[range]:
        """Every range that is allotted, read again only after an allotment."""
        if self._allotted is None:
            self._allotted = await self._database.read(_allotted)
        return self._allotted

    def limits(self, uid: int) -> OwnerConfig:
        """What this owner may use."""
        return owner_limits.effective(self._config.owner, self.own_limits(uid))

    def weight(self, uid: int) -> int:
        """Their share of the processors, and of turns to start work, beside others'."""
        return self.limits(uid).cpu_weight

    def own_limits(self, uid: int) -> Mapping[str, Value]:
        """The part of it that was set for them alone."""
        return self._own_limits.get(uid, {})

    def limits_after(self, uid: int, changes: Changes) -> OwnerConfig:
        """What this owner may use after ``changes``.

        Raises:
            InvalidArgument: They make no sense; every fault is told.
        """
        owner_limits.check(changes)
        own = owner_limits.changed(self.own_limits(uid), changes)
        return owner_limits.effective(self._config.owner, own)

    async def set_limits(self, uid: int, changes: Changes, by: Identity) -> None:
        """The limits are written down, each that is another now with its event. Who calls sees to the kernel.

        Raises:
            InvalidArgument: See :meth:`limits_after`.
        """
        before, after = self.limits(uid), self.limits_after(uid, changes)
        own = owner_limits.changed(self.own_limits(uid), changes)
        attributes = {"name": await self.name_of(uid), "by": by.user}

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM owner_limits WHERE uid = ?", (uid,))
            connection.executemany(
                "INSERT INTO owner_limits (uid, name, value) VALUES (?, ?, ?)",
                [(uid, name, value) for name, value in own.items()],
            )
            for name in changes:
                told = OwnerLimit(name, getattr(after, name), getattr(before, name), name in own)
                if told.value != told.before:
                    self._events.record(
                        connection, told, owner=uid, subject=str(uid), attributes=attributes
                    )

        await self._database.write(write)
        self._own_limits[uid] = own

    async def known(self) -> list[int]:
        """Everybody with a range or limits of their own, by uid."""
        allotted = await self._database.read(
            lambda c: [int(row[0]) for row in c.execute("SELECT uid FROM owners")]
        )
        return sorted({*allotted, *self._own_limits})

    async def has_account(self, uid: int) -> bool:
        """Whether this host knows somebody of that uid."""
        return await self._directory.account(uid) is not None

    async def name_of(self, uid: int) -> str:
        """Their login name now, or when they were last seen; their uid where nobody knows."""
        account = await self._directory.account(uid) or await self._database.read(
            lambda c: _remembered(c, uid)
        )
        return account.name if account else str(uid)

    async def owner_of(self, identity: Identity, *, remapped: bool | None = None) -> Owner:
        """The owner that ``identity`` is, with a range allotted if they need one and have none.

        Args:
            identity: Who asks.
            remapped: ``None`` is by role: users are, admins are not.

        Raises:
            ResourceExhausted: The pool of ranges is used up.
        """
        account = Account(identity.uid, identity.gid, identity.groups, identity.user, identity.home)
        return await self._owner(
            account, remapped=not identity.admin if remapped is None else remapped
        )

    async def owner(self, uid: int, *, remapped: bool | None = None) -> Owner:
        """The owner with this uid, as the account database knows them now.

        One whose account is gone keeps their range and loses their groups, so that what they left can be looked after.

        Args:
            uid: Whose.
            remapped: ``None`` is by their role now; pass what a container was made with.

        Raises:
            NotFound: There is no such account and never was such an owner.
            ResourceExhausted: The pool of ranges is used up.
        """
        account = await self._directory.account(uid) or await self._database.read(
            lambda c: _remembered(c, uid)
        )
        if account is None:
            raise NotFound(f"cannot find owner {uid}: no such account")
        return await self._owner(
            account, remapped=await self._is_user(account) if remapped is None else remapped
        )

    async def _is_user(self, account: Account) -> bool:
        try:
            return (
                await identities.role_of(account, self._directory, self._config.access)
                is identities.Role.USER
            )
        except PermissionDenied:
            return True

    async def _owner(self, account: Account, *, remapped: bool) -> Owner:
        if not remapped:
            return _owner(account, None, IdMap.IDENTITY, IdMap.IDENTITY)
        first, slots = await self._range(account)
        current = {group: inside for group, inside in slots.items() if group in account.groups}
        mapped = ranges.id_map(account.uid, account.gid, first, current)
        return _owner(account, first, mapped, ranges.view_map(mapped))

    async def _range(self, account: Account) -> tuple[int, dict[int, int]]:
        """Their range and the slots of all groups they ever had, written down where they are new."""
        known = await self._database.read(lambda connection: _known(connection, account))
        if known is not None:
            return known
        avoid_ids = await self._directory.taken()
        avoid = await in_thread(_subordinate)
        try:
            return await self._database.write(
                lambda connection: self._allot(connection, account, avoid_ids, avoid)
            )
        finally:
            self._allotted = None

    def _allot(
        self,
        connection: sqlite3.Connection,
        account: Account,
        avoid_ids: Iterable[int],
        avoid: Iterable[range],
    ) -> tuple[int, dict[int, int]]:
        """One unit: the range if they have none, and a slot for each group that is new."""
        first = _range_first(connection, account.uid)
        if first is None:
            first = self._chosen(connection, account, avoid_ids, avoid)
            _remember(connection, account, first)
            data = OwnerAllot(range_first=first, range_count=ranges.RANGE_IDS)
            attributes = {"name": account.name}
            self._events.record(
                connection, data, owner=account.uid, subject=str(account.uid), attributes=attributes
            )
        slots = ranges.group_slots(_slots(connection, account.uid), account.groups, account.gid)
        connection.executemany(
            "INSERT OR IGNORE INTO owner_groups (uid, gid, inside) VALUES (?, ?, ?)",
            [(account.uid, group, inside) for group, inside in slots.items()],
        )
        return first, slots

    def _chosen(
        self,
        connection: sqlite3.Connection,
        account: Account,
        avoid_ids: Iterable[int],
        avoid: Iterable[range],
    ) -> int:
        access = self._config.access
        allotted = [int(row[0]) for row in connection.execute("SELECT range_first FROM owners")]
        turn = int(self._config.instance_tag or "0", 16) % max(access.range_pool_owners_max, 1)
        pool = ranges.pool(access.range_pool_first_id, access.range_pool_owners_max, turn)
        first = ranges.choose(pool, allotted, {*avoid_ids, account.uid, *account.groups}, avoid)
        if first is None:
            raise ResourceExhausted(
                f"cannot allot ids to {account.name}: all {access.range_pool_owners_max} ranges of the pool are used"
                " by owners, accounts or subuid ranges",
                hint="an administrator can enlarge access.range_pool_owners_max in the settings",
            )
        return first


def _owner(account: Account, first: int | None, id_map: IdMap, view_map: IdMap) -> Owner:
    supplementary = tuple(
        line.inside for line in id_map.gids if line.inside >= ranges.GROUP_FIRST_INSIDE
    )
    return Owner(
        uid=account.uid,
        gid=account.gid,
        name=account.name,
        groups=account.groups,
        range_first=first,
        id_map=id_map,
        view_map=view_map,
        supplementary=supplementary,
    )


def _known(connection: sqlite3.Connection, account: Account) -> tuple[int, dict[int, int]] | None:
    """What is written down, if it is all that is needed."""
    first = _range_first(connection, account.uid)
    slots = _slots(connection, account.uid)
    if first is None or ranges.group_slots(slots, account.groups, account.gid) != slots:
        return None
    return first, slots


def _range_first(connection: sqlite3.Connection, uid: int) -> int | None:
    row = connection.execute("SELECT range_first FROM owners WHERE uid = ?", (uid,)).fetchone()
    return None if row is None else int(row[0])


def _slots(connection: sqlite3.Connection, uid: int) -> dict[int, int]:
    rows: Iterable[tuple[int, int]] = connection.execute(
        "SELECT gid, inside FROM owner_groups WHERE uid = ?", (uid,)
    )
    return {group: inside for group, inside in rows}  # noqa: C416  # rows are sqlite3.Row, not pairs


def _remember(connection: sqlite3.Connection, account: Account, first: int) -> None:
    connection.execute(
        "INSERT INTO owners (uid, name, gid, range_first, since_ns) VALUES (?, ?, ?, ?, ?)",
        (account.uid, account.name, account.gid, first, clock.now_ns()),
    )


def _remembered(connection: sqlite3.Connection, uid: int) -> Account | None:
    row = connection.execute("SELECT gid, name FROM owners WHERE uid = ?", (uid,)).fetchone()
    return (
        None
        if row is None
        else Account(uid=uid, gid=int(row[0]), groups=(int(row[0]),), name=str(row[1]), home="")
    )


def _allotted(connection: sqlite3.Connection) -> Sequence[range]:
    firsts = [int(row[0]) for row in connection.execute("SELECT range_first FROM owners")]
    return tuple(range(first, first + ranges.RANGE_IDS) for first in firsts)


def _own_limits(connection: sqlite3.Connection) -> dict[int, Mapping[str, Value]]:
    found: dict[int, dict[str, Value]] = {}
    for uid, name, value in connection.execute("SELECT uid, name, value FROM owner_limits"):
        found.setdefault(uid, {})[name] = value
    return {**found}


def _subordinate() -> tuple[range, ...]:
    """What /etc/subuid and /etc/subgid hand out; a missing file hands out nothing."""
    texts = [path.read_text(errors="replace") for path in SUBORDINATE_FILES if path.exists()]
    return tuple(found for text in texts for found in ranges.subordinate(text))


@asynccontextmanager
async def open_owners(
    database: Database, events: Events, config: Config, directory: Directory | None = None
) -> AsyncIterator[Owners]:
    """The owners as ``database`` knows them.

    Args:
        database: Where ranges are written down.
        events: Where an allotment is told.
        config: Groups, the pool, and the limits of those who have none of their own.
        directory: Where accounts are looked up; the host's own when ``None``.

    Raises:
        InvalidArgument: The limits in the settings make no sense.
    """
    owner_limits.check_defaults(config.owner)
    own = await database.read(_own_limits)
    yield Owners(database, events, config, directory or HostDirectory(), own)

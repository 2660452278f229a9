"""The host's account database, asked in threads: it may be a directory service that is slow or away.

Words: an *account* is what ``getpwnam(3)`` knows of a person; its *groups* are those of ``getgrouplist(3)``, the same
that a login would give.

Rules: nothing is cached (the name service switch does that, and knows when to forget); a question that is not answered
is the caller's to give up (``trio.fail_after``); no answer is never taken for membership.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable
from typing import Protocol, TypeVar

import attrs
import trio

T = TypeVar("T")

FRESH_SECONDS = 2.0
REMEMBERED_MAX = 4_096
LOOKUPS = trio.CapacityLimiter(16)
"""Questions to the account database at once; one that was given up counts until the database answers it."""

ROOT_LOOKUPS = trio.CapacityLimiter(4)
"""Root's own, which the local files answer: it gets in also while all others wait for a directory that hangs."""

ROOT_UID = 0


@attrs.frozen
class Account:
    """One person as the host knows them.

    Attributes:
        uid: Their user id, up to 2^32 - 2.
        gid: Their primary group.
        groups: All their groups, the primary one included, sorted.
        name: The login name.
        home: The home directory; may be empty.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    name: str
    home: str


class Directory(Protocol):
    """Where accounts and groups are looked up."""

    async def account(self, uid: int) -> Account | None:
        """The account with this id, or ``None``."""
        ...

    async def group_id(self, name: str) -> int | None:
        """The id of the group with this name, or ``None``."""
        ...

    async def taken(self) -> frozenset[int]:
        """Every user and group id that the host can list (a directory service may refuse to list its own)."""
        ...


class HostDirectory:
    """The host's own account database, through the name service switch.

    An answer about an account is good for ``FRESH_SECONDS``: clients open many connections at once, and whoever was put
    out of a group is out that much later.
    """

    def __init__(self) -> None:
        self._accounts: dict[int, tuple[float, Account | None]] = {}

    async def account(self, uid: int) -> Account | None:
        """The account with this id, or ``None``. Root's is answered by the local files alone."""
        until, account = self._accounts.get(uid, (0.0, None))
        if trio.current_time() < until:
            return account
        account = await _ask(lambda: _account(uid), ROOT_LOOKUPS if uid == ROOT_UID else LOOKUPS)
        if len(self._accounts) >= REMEMBERED_MAX:
            self._accounts.clear()
        self._accounts[uid] = (trio.current_time() + FRESH_SECONDS, account)
        return account

    async def group_id(self, name: str) -> int | None:
        """The id of the group with this name, or ``None``."""
        return await _ask(lambda: _group_id(name))

    async def taken(self) -> frozenset[int]:
        """Every user and group id that the host lists."""
        return await _ask(_taken)


async def _ask(question: Callable[[], T], limiter: trio.CapacityLimiter = LOOKUPS) -> T:
    """Ask in a thread that may be left behind: a question holds no resource but its thread."""
    return await trio.to_thread.run_sync(question, abandon_on_cancel=True, limiter=limiter)


def _account(uid: int) -> Account | None:
    try:
        entry = pwd.getpwuid(uid)
    except (KeyError, OverflowError):
        return None
    # Root must get in to mend a directory service that hangs, so its groups are not asked for.
    groups = [] if uid == ROOT_UID else os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Account(
        uid=uid,
        gid=entry.pw_gid,
        groups=tuple(sorted({entry.pw_gid, *groups})),
        name=entry.pw_name,
        home=entry.pw_dir,
    )


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        return None


def _taken() -> frozenset[int]:
    accounts = {number for entry in pwd.getpwall() for number in (entry.pw_uid, entry.pw_gid)}
    return frozenset(accounts | {entry.gr_gid for entry in grp.getgrall()})

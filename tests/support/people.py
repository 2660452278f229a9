"""People for tests that need no account on the host: identities by hand, and a directory that knows them."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from supervisor.access.directory import Account
from supervisor.access.identity import Identity, Role

ADA = Account(uid=1_000, gid=1_000, groups=(1_000, 1_500), name="ada", home="/home/ada")
BOB = Account(uid=1_001, gid=1_001, groups=(1_001, 1_500), name="bob", home="/home/bob")
EVE = Account(uid=1_002, gid=1_002, groups=(1_002,), name="eve", home="/home/eve")
FAR = Account(
    uid=3_100_000_000,
    gid=3_100_000_513,
    groups=(1_500, 3_100_000_513),
    name="far",
    home="/home/far",
)
ROOT = Account(uid=0, gid=0, groups=(0,), name="root", home="/root")
USERS_GROUP = 1_500
ADMINS_GROUP = 1_501


@attrs.define
class ListedDirectory:
    """A directory that knows what it is told; passes the same contract suite as the host's."""

    accounts: tuple[Account, ...] = (ADA, BOB, EVE, FAR, ROOT)
    groups: Mapping[str, int] = attrs.field(
        factory=lambda: {"root": 0, "bakehouse": USERS_GROUP, "bakehouse-admin": ADMINS_GROUP}
    )

    async def account(self, uid: int) -> Account | None:
        return next((account for account in self.accounts if account.uid == uid), None)

    async def group_id(self, name: str) -> int | None:
        return self.groups.get(name)

    async def taken(self) -> frozenset[int]:
        known = {number for account in self.accounts for number in (account.uid, *account.groups)}
        return frozenset(known | set(self.groups.values()))


def identity(account: Account, role: Role = Role.USER) -> Identity:
    """``account`` as it would be let in."""
    return Identity(
        uid=account.uid,
        gid=account.gid,
        groups=account.groups,
        user=account.name,
        home=account.home,
        role=role,
    )

"""Who is let in, and as what."""

from __future__ import annotations

import attrs
import pytest

from supervisor.access.identity import Identity, Role, identify
from supervisor.config import AccessConfig
from supervisor.errors import PermissionDenied
from supervisor.linux.peer import Peer
from tests.support.people import ADA, ADMINS_GROUP, EVE, FAR, ROOT, ListedDirectory

CONFIG = AccessConfig()


def peer(uid: int, groups: tuple[int, ...] = ()) -> Peer:
    return Peer(pid=4_711, uid=uid, gid=uid, groups=groups, pidfd=None, cgroup="/job")


async def known(
    uid: int, directory: ListedDirectory | None = None, groups: tuple[int, ...] = ()
) -> Identity:
    return await identify(peer(uid, groups), directory or ListedDirectory(), CONFIG)


async def test_a_member_is_a_user() -> None:
    ada = await known(ADA.uid)
    assert (ada.role, ada.user, ada.owner, ada.admin) == (Role.USER, "ada", 1_000, False)
    assert (ada.pid, ada.cgroup, ada.home) == (4_711, "/job", "/home/ada")


async def test_a_uid_above_two_thousand_million_is_a_person() -> None:
    far = await known(FAR.uid)
    assert far.owner == 3_100_000_000
    assert far.credentials.gid == 3_100_000_513


async def test_root_is_an_admin_without_any_group() -> None:
    assert (await known(0, ListedDirectory(accounts=(ROOT,), groups={}))).role is Role.ADMIN


async def test_a_member_of_the_admin_group_is_an_admin() -> None:
    boss = attrs.evolve(ADA, groups=(*ADA.groups, ADMINS_GROUP))
    assert (await known(ADA.uid, ListedDirectory(accounts=(boss,)))).admin


async def test_a_stranger_is_told_how_to_be_let_in() -> None:
    with pytest.raises(
        PermissionDenied, match="cannot let eve in: not a member of the group bakehouse"
    ) as caught:
        await known(EVE.uid)
    assert "usermod -aG bakehouse eve" in caught.value.hint


async def test_the_peers_own_groups_are_not_believed() -> None:
    with pytest.raises(PermissionDenied):
        await known(EVE.uid, groups=(1_500, ADMINS_GROUP, 0))


async def test_without_an_account_there_is_no_person() -> None:
    with pytest.raises(PermissionDenied, match="it has no account"):
        await known(31_337)


async def test_where_the_group_is_missing_nobody_is_a_member() -> None:
    with pytest.raises(PermissionDenied):
        await known(ADA.uid, ListedDirectory(groups={}))

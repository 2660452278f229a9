"""What every directory of accounts promises, the host's and the listed one of the tests."""

from __future__ import annotations

import grp
import pwd

import pytest
import trio

from supervisor.access.directory import LOOKUPS, Directory, HostDirectory
from tests.support.people import ListedDirectory

NOBODY_HAS = 4_294_967_294


@pytest.fixture(params=[HostDirectory, ListedDirectory])
def directory(request: pytest.FixtureRequest) -> Directory:
    made: Directory = request.param()
    return made


async def test_root_is_known_and_needs_no_groups(directory: Directory) -> None:
    root = await directory.account(0)
    assert root is not None
    assert (root.name, root.gid, root.groups) == ("root", 0, (0,))


async def test_an_id_without_account_is_none(directory: Directory) -> None:
    assert await directory.account(NOBODY_HAS) is None


async def test_an_account_has_its_primary_group_among_its_groups(directory: Directory) -> None:
    for uid in await directory.taken():
        account = await directory.account(uid)
        if account is not None:
            assert account.uid == uid
            assert account.gid in account.groups
            assert list(account.groups) == sorted(set(account.groups))


async def test_groups_are_found_by_name(directory: Directory) -> None:
    assert await directory.group_id("root") == 0
    assert await directory.group_id("no such group") is None
    assert await directory.group_id("") is None


async def test_what_is_taken_holds_accounts_and_groups(directory: Directory) -> None:
    assert 0 in await directory.taken()


async def test_the_hosts_directory_knows_all_the_host_knows() -> None:
    taken = await HostDirectory().taken()
    assert {entry.pw_uid for entry in pwd.getpwall()} | {
        entry.gr_gid for entry in grp.getgrall()
    } <= taken
    for entry in grp.getgrall():
        for name in entry.gr_mem:
            try:
                uid = pwd.getpwnam(name).pw_uid
            except KeyError:
                continue
            account = await HostDirectory().account(uid)
            assert account is not None
            assert uid == 0 or entry.gr_gid in account.groups


async def test_root_is_known_while_all_others_wait() -> None:
    """As when a directory service hangs: every place to ask it is taken."""
    places = [object() for _ in range(int(LOOKUPS.total_tokens))]
    for place in places:
        LOOKUPS.acquire_on_behalf_of_nowait(place)
    try:
        with trio.fail_after(20):
            assert await HostDirectory().account(0) is not None
        with trio.move_on_after(0.05) as waited:
            await HostDirectory().account(1)
        assert waited.cancelled_caught
    finally:
        for place in places:
            LOOKUPS.release_on_behalf_of(place)

"""Who ``-u`` and ``USER`` mean, by the image's own ``/etc/passwd`` and ``/etc/group``; pure.

The texts come from an image and are trusted for nothing but names: malformed lines are passed over, as libc does.
"""

from __future__ import annotations

import attrs

from supervisor.errors import InvalidArgument

ID_MAX = 0xFFFF_FFFE


@attrs.frozen
class ContainerUser:
    """Ids inside the container, and the user's home there."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


@attrs.frozen
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@attrs.frozen
class _Group:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve_user(user: str, passwd: str, group: str) -> ContainerUser:
    """What ``user`` (``""``, ``name``, ``uid``, each with an optional ``:group``) means in an image.

    Args:
        user: As in ``USER`` or ``docker run -u``.
        passwd: The image's ``/etc/passwd``; empty if it has none.
        group: The image's ``/etc/group``.

    Raises:
        InvalidArgument: A name that the image does not know; Docker's wording.
    """
    name, _, group_name = user.partition(":")
    accounts = _accounts(passwd)
    groups = _groups(group)
    account = _account(name or "0", accounts)
    if group_name:
        return ContainerUser(account.uid, _gid(group_name, groups), (), account.home)
    additional = tuple(
        entry.gid for entry in groups if account.name and account.name in entry.members
    )
    return ContainerUser(account.uid, account.gid, tuple(dict.fromkeys(additional)), account.home)


def resolve_group(name: str, group: str) -> int:
    """The id of a group by name or number.

    Raises:
        InvalidArgument: See :func:`resolve_user`.
    """
    return _gid(name, _groups(group))


def _account(name: str, accounts: list[_Account]) -> _Account:
    for account in accounts:
        if account.name == name:
            return account
    uid = _number(name)
    if uid is None:
        raise InvalidArgument(f"unable to find user {name}: no matching entries in passwd file")
    return next((account for account in accounts if account.uid == uid), _Account("", uid, 0, "/"))


def _gid(name: str, groups: list[_Group]) -> int:
    for entry in groups:
        if entry.name == name:
            return entry.gid
    gid = _number(name)
    if gid is None:
        raise InvalidArgument(f"unable to find group {name}: no matching entries in group file")
    return gid


def _number(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > len(str(ID_MAX)):
        return None
    number = int(text)
    return number if number <= ID_MAX else None


def _accounts(text: str) -> list[_Account]:
    found = []
    for line in text.splitlines():
        name, _, uid, gid, _, home, *_ = [*line.split(":"), *[""] * 7]
        user_id, group_id = _number(uid), _number(gid)
        if name and user_id is not None and group_id is not None:
            found.append(_Account(name, user_id, group_id, home or "/"))
    return found


def _groups(text: str) -> list[_Group]:
    found = []
    for line in text.splitlines():
        name, _, gid, members, *_ = [*line.split(":"), *[""] * 4]
        group_id = _number(gid)
        if name and group_id is not None:
            found.append(_Group(name, group_id, tuple(filter(None, members.split(",")))))
    return found

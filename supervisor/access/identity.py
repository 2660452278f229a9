"""Who is asking: the kernel's word for the uid, the account database's for the groups.

Words: a *peer* is the process at the other end of a connection; an *identity* is the person it acts for; an *admin* is
root or a member of the admin group, a *user* a member of the user group, everybody else a *stranger*.

Rules: an identity is made once per connection and never changes; a stranger never gets one. The peer's own group list
is not believed: a process may hold groups its person has long lost. A uid that belongs to a container (attacks.md 19)
or has no account is no person.
"""

from __future__ import annotations

import enum

import attrs

from supervisor.access.directory import ROOT_UID, Account, Directory
from supervisor.config import AccessConfig
from supervisor.errors import PermissionDenied
from supervisor.linux.peer import Peer
from supervisor.linux.spawner import Credentials


class Role(enum.Enum):
    """What a person may do at most; strangers have no role, they are refused."""

    ADMIN = "admin"
    USER = "user"


@attrs.frozen
class Identity:
    """The person behind one connection.

    Attributes:
        uid: The kernel's word (``SO_PEERCRED``).
        gid: The account's primary group.
        groups: All groups of the account, the primary one included.
        user: The login name.
        home: The account's home directory.
        role: Admin or user.
        pid: The process that connected; only a number, it may have ended.
        cgroup: The cgroup that process was in when it connected; empty when it could not be told.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    user: str
    home: str
    role: Role
    pid: int = 0
    cgroup: str = ""

    @property
    def admin(self) -> bool:
        """Whether this person sees and may do everything."""
        return self.role is Role.ADMIN

    @property
    def owner(self) -> int:
        """Whose things this person makes: their own uid."""
        return self.uid

    @property
    def credentials(self) -> Credentials:
        """What the kernel shall check when a host path is opened for this person."""
        return Credentials(uid=self.uid, gid=self.gid, groups=self.groups)


async def identify(peer: Peer, directory: Directory, config: AccessConfig) -> Identity:
    """Tell who ``peer`` acts for. Whether its uid is a container's is for the caller to ask first.

    Raises:
        PermissionDenied: It has no account, or its person is neither admin nor user.
    """
    account = await directory.account(peer.uid)
    if account is None:
        raise PermissionDenied(
            f"cannot let uid {peer.uid} in: it has no account on this host",
            hint="processes inside containers can use the daemon only as the owner of their container",
        )
    return Identity(
        uid=account.uid,
        gid=account.gid,
        groups=account.groups,
        user=account.name,
        home=account.home,
        role=await role_of(account, directory, config),
        pid=peer.pid,
        cgroup=peer.cgroup,
    )


async def role_of(account: Account, directory: Directory, config: AccessConfig) -> Role:
    """The role of an account.

    Raises:
        PermissionDenied: A stranger; the hint says how they would be let in.
    """
    if account.uid == ROOT_UID or await directory.group_id(config.admin_group) in account.groups:
        return Role.ADMIN
    if await directory.group_id(config.user_group) in account.groups:
        return Role.USER
    raise PermissionDenied(
        f"cannot let {account.name} in: not a member of the group {config.user_group}",
        hint=f"ask an administrator for `usermod -aG {config.user_group} {account.name}`, then log in again",
    )

"""Who a container's processes are and what they may do: user, groups, working directory, capabilities, environment.

What comes from the image (its account files, the way to the working directory) is read below its root and trusted for
nothing but names.
"""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.access.owners import Owner
from supervisor.errors import InvalidArgument
from supervisor.linux import beneath, mounts
from supervisor.linux.idmap import IdMap
from supervisor.runtime import spec
from supervisor.runtime.init import has_init, with_init
from supervisor.runtime.passwd import ContainerUser, resolve_group, resolve_user
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.spec import ProcessInputs

ACCOUNT_FILE_BYTES_MAX = 1_048_576
RLIM_INFINITY = 2**64 - 1


def settle_in(root_fd: int, record: ContainerRecord, owner: Owner) -> ContainerUser:
    """Who the container's first process runs as; its working directory exists afterwards.

    Raises:
        InvalidArgument: The image does not know the user, or the owner has no such ids.
    """
    user = mapped_user(root_fd, record.user, owner, record.request.group_add)
    make_working_directory(root_fd, record.working_dir, owner.id_map)
    return user


def mapped_user(
    root_fd: int, user: str, owner: Owner, group_add: Sequence[str] = ()
) -> ContainerUser:
    """See :func:`container_user` and :func:`check_mapped`."""
    found = container_user(root_fd, user, owner, group_add)
    check_mapped(found, owner)
    return found


def container_user(
    root_fd: int, user: str, owner: Owner, group_add: Sequence[str] = ()
) -> ContainerUser:
    """Who ``user`` is by the image's accounts, with the owner's mapped groups for who runs as the owner.

    ``group_add`` are further groups, by name or number.

    Raises:
        InvalidArgument: The image does not know the name.
    """
    groups = account_file(root_fd, "etc/group")
    resolved = resolve_user(user, account_file(root_fd, "etc/passwd"), groups)
    added = [resolve_group(name, groups) for name in group_add]
    if resolved.uid == 0:
        added += owner.supplementary
    gids = tuple(dict.fromkeys((*resolved.additional_gids, *added)))
    return ContainerUser(resolved.uid, resolved.gid, gids, resolved.home)


def check_mapped(user: ContainerUser, owner: Owner) -> None:
    """The user exists in the owner's user namespace.

    Raises:
        InvalidArgument: It does not.
    """
    if not owner.remapped:
        return
    try:
        owner.id_map.uid_outside(user.uid)
        for gid in (user.gid, *user.additional_gids):
            owner.id_map.gid_outside(gid)
    except LookupError as error:
        raise InvalidArgument(
            f"cannot run as user {user.uid}:{user.gid} with the groups {list(user.additional_gids)}:"
            " your containers have the ids 0 to 65535"
        ) from error


def account_file(root_fd: int, path: str) -> str:
    """The text of an image's account file; empty where there is none that can be read."""
    try:
        return beneath.read_file_beneath(root_fd, path, ACCOUNT_FILE_BYTES_MAX).decode(
            errors="replace"
        )
    except OSError:
        return ""


def make_working_directory(root_fd: int, path: str, id_map: IdMap) -> None:
    """The working directory exists in the image, made as its root's where it does not.

    Raises:
        InvalidArgument: Something else is in the way.
    """
    uid, gid = id_map.uid_outside(0), id_map.gid_outside(0)
    with mounts.told_as(f"use the working directory {path!r}"):
        beneath.make_directories_beneath(root_fd, path, 0o755, uid, gid)


def capabilities_of(record: ContainerRecord, *, devices_confined: bool) -> tuple[str, ...]:
    """The bounding set of a container: Docker's, changed as asked for; pure.

    Args:
        record: The container.
        devices_confined: Whether something keeps a made device node from being used.
    """
    request = record.request
    if request.privileged or "ALL" in request.cap_add:
        chosen = set(spec.ALL_CAPABILITIES)
    else:
        chosen = set() if "ALL" in request.cap_drop else set(spec.DEFAULT_CAPABILITIES)
        chosen |= set(request.cap_add)
        if not devices_confined:
            chosen.discard("CAP_MKNOD")
    return tuple(sorted(chosen - set(request.cap_drop)))


def process_inputs(
    record: ContainerRecord, user: ContainerUser, *, devices_confined: bool
) -> ProcessInputs:
    """The container's first process; pure."""
    request = record.request
    return ProcessInputs(
        args=with_init(record.args) if has_init(record) else record.args,
        env=spec.default_environment(record.env, record.hostname, user.home, terminal=request.tty),
        cwd=record.working_dir,
        user=user,
        terminal=request.tty,
        capabilities=capabilities_of(record, devices_confined=devices_confined),
        no_new_privileges="no-new-privileges" in request.security_opt,
        rlimits=tuple(
            (f"RLIMIT_{name.upper()}", _limit(soft), _limit(hard))
            for name, soft, hard in request.ulimits
        ),
        oom_score_adj=request.oom_score_adj or None,
    )


def _limit(value: int) -> int:
    return RLIM_INFINITY if value < 0 else value

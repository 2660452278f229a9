"""What an errand that copies files stands in: a container's file tree and nothing else. Standard library only.

Words: the *view* is a container's root file system with its volumes and host paths mounted in it, as the container has
them; the *room* is a mount namespace in which there is nothing but the view.

Rules (attacks.md 13): the room is made in a fork of the spawner and ends with it, so no mount is ever left. The view is
entered by its root's descriptor and :mod:`supervisor.linux.beneath` alone; nothing in it is ever run, and a slip would
still lead nowhere but into the container's own files. Who works there *is* the container's root, in the owner's user
namespace: what the owner may not read on the host, no copy reads either.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from supervisor.linux import beneath, spawner_command, syscall
from supervisor.linux.errands import Arguments, Surroundings, flag, number, numbers, text, texts
from supervisor.linux.errands.caller import granted_mount
from supervisor.linux.errands.namespaces import pinned

_HARMLESS = syscall.MOUNT_ATTR_NOSUID | syscall.MOUNT_ATTR_NODEV | syscall.MOUNT_ATTR_NOEXEC
VIEW = "view"
MOUNT_POINT_MODE = 0o755


def enter(arguments: Arguments, surroundings: Surroundings) -> int:
    """From now on this process sees the view alone, as the container's root; a descriptor of the view's root.

    Raises:
        OSError: ESTALE when something that belongs into the view is not there (any more).
    """
    parent = os.getppid()
    user_pin = text(arguments, "user_pin")
    user = pinned(user_pin, syscall.CLONE_NEWUSER) if user_pin else None
    if user_pin and user is None:
        raise OSError(errno.ESTALE, "the owner's user namespace is gone")
    try:
        root = _make_room(arguments, surroundings)
    except FileNotFoundError as failure:
        why = f"{failure.filename or 'a mount'} is not there"
        raise OSError(errno.ESTALE, why) from failure
    if user is not None:
        syscall.setns(user, syscall.CLONE_NEWUSER)
        os.close(user)
        os.setgroups(numbers(arguments, "groups"))
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        syscall.prctl(syscall.PR_SET_DUMPABLE, 0)
        spawner_command.die_with(parent)
    os.umask(0)
    return root


def _make_room(arguments: Arguments, surroundings: Surroundings) -> int:
    room = str(surroundings.run_root)
    shown = _mounts(arguments, surroundings)
    tree = _clone(text(arguments, "rootfs"), writable=True)
    for group in texts(arguments, "cgroups"):
        _enter_group(group)
    syscall.unshare(syscall.CLONE_NEWNS)
    syscall.mount("", "/", flags=syscall.MS_REC | syscall.MS_PRIVATE)
    syscall.mount("room", room, "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "size=16k,mode=0755")
    Path(room, VIEW).mkdir()
    syscall.move_mount(tree, f"{room}/{VIEW}")
    root = os.open(f"{room}/{VIEW}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    ids = number(arguments, "root_uid"), number(arguments, "root_gid")
    for target, mount_fd in shown:
        if not any(target.startswith(f"{other}/") for other, _ in shown):
            _have_mount_point(root, target, mount_fd, ids)
    for target, mount_fd in shown:
        place = beneath.open_beneath(root, target, os.O_PATH)
        syscall.move_mount_onto(mount_fd, place)
        os.close(place)
        os.close(mount_fd)
    if flag(arguments, "read_only"):
        syscall.mount_setattr(root, syscall.MOUNT_ATTR_RDONLY)
    os.chdir(room)
    syscall.pivot_root(".", ".")
    syscall.umount(".", syscall.MNT_DETACH)
    os.chdir("/")
    return root


def _enter_group(path: str) -> None:
    """From now on what this process costs is on that group's account."""
    group = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(group, b"0")
    finally:
        os.close(group)


def _mounts(arguments: Arguments, surroundings: Surroundings) -> list[tuple[str, int]]:
    """Where each mount goes, and the mount, those nearer to the root first."""
    listed = arguments["mounts"]
    assert isinstance(listed, list)
    found = []
    for mount in listed:
        assert isinstance(mount, dict)
        if "credentials" in mount:
            mount_fd, _ = granted_mount(mount, surroundings)
        else:
            source, below = text(mount, "source"), text(mount, "below")
            mount_fd = _clone(source, below, writable=flag(mount, "writable"))
        found.append((text(mount, "target"), mount_fd))
    return sorted(found, key=lambda one: one[0].count("/"))


def _clone(source: str, below: str = "", *, writable: bool) -> int:
    """A mount of what is there, or of a part of it, which is found without leaving it."""
    clone = syscall.OPEN_TREE_CLONE | syscall.AT_RECURSIVE
    if below:
        top = os.open(source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        part = beneath.open_beneath(top, below, os.O_PATH)
        mount_fd = syscall.open_tree("", clone | syscall.AT_EMPTY_PATH, part)
        os.close(part)
        os.close(top)
    else:
        mount_fd = syscall.open_tree(source, clone)
    attributes = _HARMLESS | (0 if writable else syscall.MOUNT_ATTR_RDONLY)
    syscall.mount_setattr(mount_fd, attributes, syscall.MS_PRIVATE, recursive=True)
    return mount_fd


def _have_mount_point(root: int, target: str, mount_fd: int, ids: tuple[int, int]) -> None:
    """A mount point that is missing is made, as at a start; only in the container's own root, before anything is mounted.

    What is mounted may be the host's, where root must not make what the owner may not.
    """
    try:
        os.close(beneath.open_beneath(root, target, os.O_PATH))
    except FileNotFoundError:
        directory = stat.S_ISDIR(os.fstat(mount_fd).st_mode)
        above = target if directory else target.rpartition("/")[0] or "/"
        beneath.make_directories_beneath(root, above, MOUNT_POINT_MODE, *ids)
        if directory:
            return
        with beneath.parent_beneath(root, target) as (parent, name):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            made = os.open(name, flags, MOUNT_POINT_MODE, dir_fd=parent)
            os.fchown(made, *ids)
            os.close(made)

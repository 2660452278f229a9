"""Errands that mount and unmount in M: views of the store, overlays, and looking at them. Standard library only."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path

from supervisor.linux import mount_namespace, syscall
from supervisor.linux.errands import (
    Arguments,
    Done,
    Surroundings,
    errand,
    flag,
    number,
    text,
    texts,
)
from supervisor.linux.errands.namespaces import kept_user_namespace

OVERLAY_OPTIONS = ("index=off", "metacopy=off", "redirect_dir=nofollow")
"""So that an upper is a plain tree that can become a lower or be packed, and so that no attribute of an image's file can
lead elsewhere."""

OPTIONS_BYTES_MAX = 4095
SPECIAL_IN_OPTIONS = frozenset("\\,:")


@errand("idmapped_view")
def _idmapped_view(arguments: Arguments, _: Sequence[int], surroundings: Surroundings) -> Done:
    source, target = text(arguments, "source"), text(arguments, "target")
    uid_map, gid_map = text(arguments, "uid_map"), text(arguments, "gid_map")
    if prepare_target(target, directory=Path(source).is_dir()):
        return Done()
    mount_fd = syscall.open_tree(source)
    try:
        attributes = syscall.MOUNT_ATTR_NODEV
        if flag(arguments, "read_only"):
            attributes |= syscall.MOUNT_ATTR_RDONLY
        user_namespace = 0
        if uid_map:
            user_namespace = kept_user_namespace(uid_map, gid_map, surroundings)
            attributes |= syscall.MOUNT_ATTR_IDMAP
        syscall.mount_setattr(mount_fd, attributes, syscall.MS_PRIVATE, user_namespace)
        syscall.move_mount(mount_fd, target)
    finally:
        os.close(mount_fd)
    return Done()


@errand("overlay")
def _overlay(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    target, lowers = text(arguments, "target"), texts(arguments, "lowers")
    upper, work = text(arguments, "upper"), text(arguments, "work")
    for name in (*lowers, upper, work):
        if SPECIAL_IN_OPTIONS & set(name):
            raise OSError(errno.EINVAL, f"a comma, colon or backslash in {name}")
    options = [*OVERLAY_OPTIONS, "lowerdir=" + ":".join(lowers)]
    if upper:
        options += [f"upperdir={upper}", f"workdir={work}"]
    if upper and flag(arguments, "volatile"):
        options.append("volatile")
    data = ",".join(options)
    if len(os.fsencode(data)) > OPTIONS_BYTES_MAX:
        raise OSError(errno.E2BIG, f"{len(lowers)} layers are more than one mount takes")
    flags = 0 if flag(arguments, "devices") else syscall.MS_NODEV
    if flag(arguments, "read_only"):
        flags |= syscall.MS_RDONLY
    if prepare_target(target, directory=True):
        return Done()
    os.chdir(text(arguments, "layers_view"))
    try:
        syscall.mount("overlay", target, "overlay", flags, data)
    finally:
        os.chdir("/")
    return Done()


@errand("tmpfs")
def _tmpfs(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    target = text(arguments, "target")
    flags = syscall.MS_NOSUID | syscall.MS_NODEV
    if flag(arguments, "no_programs"):
        flags |= syscall.MS_NOEXEC
    if not prepare_target(target, directory=True):
        syscall.mount("tmpfs", target, "tmpfs", flags, ",".join(texts(arguments, "options")))
    return Done()


@errand("bind_below", forked=True)
def _bind_below(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    """A part of a tree that nobody trusts: what is opened is what is mounted, whatever has its name by then."""
    root = os.open(text(arguments, "root"), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    resolve = syscall.RESOLVE_BENEATH | syscall.RESOLVE_NO_MAGICLINKS
    found = syscall.openat2(root, text(arguments, "path"), os.O_PATH, 0, resolve)
    mode = os.fstat(found).st_mode
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise OSError(errno.EINVAL, "neither a file nor a directory")
    mount_fd = syscall.open_tree("", syscall.OPEN_TREE_CLONE | syscall.AT_EMPTY_PATH, found)
    attributes = syscall.MOUNT_ATTR_RDONLY if flag(arguments, "read_only") else 0
    syscall.mount_setattr(mount_fd, attributes, syscall.MS_PRIVATE)
    attach_anew(mount_fd, text(arguments, "target"), directory=stat.S_ISDIR(mode))
    return Done()


@errand("shared_memory")
def _shared_memory(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    target = text(arguments, "target")
    size, uid, gid = (number(arguments, name) for name in ("size_bytes", "uid", "gid"))
    if not prepare_target(target, directory=True):
        flags = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
        options = f"mode=1777,size={size},uid={uid},gid={gid}"
        syscall.mount("shm", target, "tmpfs", flags, options)
    return Done()


@errand("unmount", forked=True)
def _unmount(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    """Forked: taking an overlay down writes back what is dirty above it."""
    detached = syscall.MNT_DETACH if flag(arguments, "detach") else 0
    mount_namespace.unmount(text(arguments, "target"), syscall.UMOUNT_NOFOLLOW | detached)
    return Done()


@errand("cgroup2_option")
def _cgroup2_option(arguments: Arguments, _: Sequence[int], surroundings: Surroundings) -> Done:
    """Set an option of the host's v2 tree, or leave it out, all others kept; whether that changed anything.

    By a mount of its own that goes at once: at the daemon's end nothing else of M is left.
    """
    option, wanted = text(arguments, "option"), flag(arguments, "wanted")
    have = mount_namespace.cgroup2_options()
    places = [place for place, kind in mount_namespace.mounts() if kind == "cgroup2"]
    if not places or (option in have) == wanted:
        return Done(False)
    kept = [one for one in have if one != option]
    flags = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
    place = surroundings.run_root / "cgroup2-options"
    place.mkdir(mode=0o700, exist_ok=True)
    try:
        options = ",".join((*kept, option) if wanted else kept)
        syscall.mount("cgroup2", str(place), "cgroup2", flags, options)
        mount_namespace.unmount(str(place))
    finally:
        place.rmdir()
    return Done(True)


@errand("mounted")
def _mounted(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    return Done([*mounts_below(text(arguments, "below"))])


@errand("open_directory")
def _open_directory(arguments: Arguments, _: Sequence[int], __: Surroundings) -> Done:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return Done(fds=(os.open(text(arguments, "path"), flags),))


@errand("release", forked=True)
def _release(arguments: Arguments, _: Sequence[int], surroundings: Surroundings) -> Done:
    """Take down everything below the roots, newest first, then the pin; what is busy goes when its user does."""
    for root in (str(surroundings.run_root), *texts(arguments, "roots")):
        for target in reversed(mounts_below(root)):
            mount_namespace.unmount(target, syscall.UMOUNT_NOFOLLOW | syscall.MNT_DETACH)
    mount_namespace.leave_nothing(surroundings.run_root, surroundings.host_mounts_fd)
    return Done()


def mounts_below(root: str) -> list[str]:
    """Mount points at or below ``root``, oldest first."""
    prefix = root.rstrip("/") + "/"
    return [
        place for place, _ in mount_namespace.mounts() if place == root or place.startswith(prefix)
    ]


def attach_anew(mount_fd: int, target: str, *, directory: bool) -> None:
    """The mount is at ``target``, whatever was before."""
    if prepare_target(target, directory=directory):
        mount_namespace.unmount(target, syscall.UMOUNT_NOFOLLOW | syscall.MNT_DETACH)
    syscall.move_mount(mount_fd, target)


def prepare_target(target: str, *, directory: bool) -> bool:
    """Make the mount point if it is not there; True when something is mounted there already."""
    path = Path(target)
    if directory:
        path.mkdir(mode=0o755, exist_ok=True)
    else:
        path.touch(mode=0o600)
    return syscall.is_mount_root(target)

"""Directory trees that somebody else filled: removing, measuring and walking them by directory descriptors.

Rules: no symbolic link is followed, no path is put together; a tree may be deeper than the stack, than PATH_MAX and
than the descriptors we may open. All of it blocks: call it in a thread. A tree that is still being changed is none of
ours: unmount it first. Only :func:`measure` looks at such a tree, and takes what vanishes under its eyes as gone.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs

T = TypeVar("T")

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
DEPTH_MAX = 128
"""How deep we go before a directory is moved up; also how many descriptors a walk holds at most."""

WALK_DEPTH_MAX = 1_024


_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""What the kernel says of a name that is not what it was a moment ago."""


class TooDeep(Exception):  # noqa: N818  # a fact about a tree, told on by the caller in their words
    """A tree is deeper than :data:`WALK_DEPTH_MAX`."""


@attrs.frozen
class Entry:
    """One entry met by :func:`walk`.

    Attributes:
        parent: Descriptor of the directory it is in; open only until the walk goes on.
        name: Within ``parent``.
        path: From the root of the walk, without a leading slash.
    """

    parent: int
    name: bytes
    path: bytes
    status: os.stat_result


def open_directory(path: Path) -> int:
    """Open a directory of ours; the last part must be no symbolic link.

    Raises:
        OSError: It cannot be opened.
    """
    return os.open(path, DIRECTORY)


def walk(root: int, *, changing: bool = False) -> Iterator[Entry]:
    """Every entry below ``root``, a directory's entries sorted by name, a directory before what is in it.

    Args:
        root: Descriptor of a directory.
        changing: Others change the tree meanwhile; what has vanished is left out.

    Raises:
        TooDeep: See :data:`WALK_DEPTH_MAX`.
        OSError: It cannot be read.
    """
    stack: list[tuple[int, bytes, Iterator[bytes]]] = [(os.dup(root), b"", _names(root))]
    gone = _VANISHED if changing else frozenset()
    try:
        while stack:
            parent, prefix, names = stack[-1]
            name = next(names, None)
            if name is None:
                os.close(stack.pop()[0])
                continue
            status = _unless_gone(partial(os.lstat, name, dir_fd=parent), gone)
            if status is None:
                continue
            yield Entry(parent, name, prefix + name, status)
            if stat.S_ISDIR(status.st_mode):
                if len(stack) >= WALK_DEPTH_MAX:
                    raise TooDeep
                below = _unless_gone(partial(os.open, name, DIRECTORY, dir_fd=parent), gone)
                if below is not None:
                    stack.append((below, prefix + name + b"/", _names(below)))
    finally:
        for descriptor, _, _ in stack:
            os.close(descriptor)


def _unless_gone(look: Callable[[], T], gone: frozenset[int]) -> T | None:
    try:
        return look()
    except OSError as error:
        if error.errno in gone:
            return None
        raise


def measure(root: Path, entry_bytes: int = 0) -> int:
    """Bytes of the regular files below ``root``, each counted once however many names it has; 0 when it is gone.

    ``entry_bytes`` are added for each name, so that empty files are not for nothing.

    Others may change the tree meanwhile.

    Raises:
        OSError: It cannot be read.
    """
    try:
        descriptor = open_directory(root)
    except FileNotFoundError:
        return 0
    total = 0
    seen: set[tuple[int, int]] = set()
    try:
        for entry in walk(descriptor, changing=True):
            status = entry.status
            total += entry_bytes
            if not stat.S_ISREG(status.st_mode):
                continue
            if status.st_nlink > 1:
                if (status.st_dev, status.st_ino) in seen:
                    continue
                seen.add((status.st_dev, status.st_ino))
            total += status.st_size
    except TooDeep:
        return total  # a number for people; what lies deeper is not counted
    finally:
        os.close(descriptor)
    return total


def remove(path: Path) -> None:
    """Remove the tree at ``path``, whatever it is. Success means it is gone; it not being there is success.

    Raises:
        OSError: Something in it cannot be removed.
    """
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _remove_entry(parent, os.fsencode(path.name))
    finally:
        os.close(parent)


def empty(root: Path) -> None:
    """Remove everything in the directory ``root``, not itself.

    Raises:
        OSError: Something in it cannot be removed.
    """
    for name in os.listdir(root):  # noqa: PTH208  # names, not paths
        remove(root / name)


def _remove_entry(parent: int, name: bytes) -> None:
    pending = [name]
    move_up = partial(_move_up, parent=parent, pending=pending)
    while pending:
        current = pending.pop()
        if not _unlink(parent, current):
            _remove_directory(parent, current, move_up)


def _move_up(directory: int, name: bytes, parent: int, pending: list[bytes]) -> None:
    """Take what lies too deep out of the tree, beside its root; it is removed from there."""
    fresh = b".removed-" + secrets.token_hex(12).encode()
    os.rename(name, fresh, src_dir_fd=directory, dst_dir_fd=parent)
    pending.append(fresh)


def _remove_directory(parent: int, name: bytes, move_up: Callable[[int, bytes], None]) -> None:
    """Remove a directory depth first; what is deeper than :data:`DEPTH_MAX` is handed to ``move_up``."""
    stack = [(os.open(name, DIRECTORY, dir_fd=parent), name, parent)]
    pending = [_names(stack[0][0])]
    try:
        while stack:
            directory, own_name, above = stack[-1]
            below = next(pending[-1], None)
            if below is None:
                pending.pop()
                stack.pop()
                os.close(directory)
                os.rmdir(own_name, dir_fd=above)
            elif _unlink(directory, below):
                continue
            elif len(stack) >= DEPTH_MAX:
                move_up(directory, below)
            else:
                stack.append((os.open(below, DIRECTORY, dir_fd=directory), below, directory))
                pending.append(_names(stack[-1][0]))
    finally:
        for directory, _, _ in stack:
            os.close(directory)


def _unlink(parent: int, name: bytes) -> bool:
    """Remove what is no directory; whether it was none (or was not there)."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except (IsADirectoryError, PermissionError):
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return False
        raise
    return True


def _names(directory: int) -> Iterator[bytes]:
    return iter(sorted(os.fsencode(name) for name in os.listdir(directory)))

"""Copying files into an image's file system, as COPY does it.

What is there already: a directory stays and takes what is copied into it; anything else is replaced; a directory never
replaces a file, nor a file a directory. The target path itself is followed through the image's links within its root;
below it no link is followed. Neither tree is trusted: directory fds only. Blocks: call it in a thread.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

import attrs

from supervisor.build.content_keys import READ_FILE, xattrs_of
from supervisor.build.sources import Found
from supervisor.errors import InvalidArgument
from supervisor.linux import beneath
from supervisor.store import trees

COPY_BYTES = 1 << 30
DEPTH_MAX = 512
MADE_MODE = 0o755
NANOSECONDS_PER_SECOND = 1_000_000_000


@attrs.frozen
class Rules:
    """How what is copied looks afterwards.

    Attributes:
        uid: Owner of all; None keeps each file's own. So with ``gid``.
        mode: Permission bits of all; None keeps them.
        epoch: Times are at most this, in seconds; None keeps them.
        stop: Called before each entry; raises to end the copying.
    """

    uid: int | None = 0
    gid: int | None = 0
    mode: int | None = None
    epoch: int | None = None
    stop: Callable[[], None] = attrs.field(default=lambda: None, eq=False)

    def times(self, status: os.stat_result) -> tuple[int, int]:
        """Access and modification time, in nanoseconds."""
        modified = status.st_mtime_ns
        if self.epoch is not None:
            modified = min(modified, self.epoch * NANOSECONDS_PER_SECOND)
        return modified, modified


def copy(source: int, found: Sequence[Found], root: int, target: str, rules: Rules) -> None:
    """Copy ``found``, below the directory ``source``, to ``target`` in the file system at ``root``.

    Args:
        source: A directory fd.
        found: What to copy; of directories the content.
        root: Directory fd of the image's root.
        target: Absolute; a directory when it ends with ``/``, is one, or one is copied.
        rules: For what is made.

    Raises:
        InvalidArgument: Something of another kind is in the way.
        OSError: The disk is full, or broken.
    """
    into = target.endswith("/") or _is_directory(root, target)
    if len(found) > 1 and not into:
        msg = f"cannot copy: several sources need a directory as target, and {target:.200} is none"
        raise InvalidArgument(
            msg,
            hint=f"end it with a slash: {target:.200}/",
        )
    for each in found:
        if each.directory:
            _copy_directory(source, each, root, target.rstrip("/") or "/", rules)
        else:
            path = posixpath.join(target, each.name) if into else target
            _copy_one(source, each, root, path, rules)


def write(root: int, target: str, name: str, content: bytes, rules: Rules) -> None:
    """Make a file of ``content`` (a here-document) at ``target``; arguments and errors as in :func:`copy`."""
    into = target.endswith("/") or _is_directory(root, target)
    path = posixpath.join(target, name) if into else target
    with _parent(root, path, rules) as (parent, last):
        _clear(parent, last, path)
        descriptor = _create(parent, last)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fchown(descriptor, rules.uid or 0, rules.gid or 0)
            os.fchmod(descriptor, 0o644 if rules.mode is None else rules.mode)
            if rules.epoch is not None:
                moment = rules.epoch * NANOSECONDS_PER_SECOND
                os.utime(descriptor, ns=(moment, moment))
        finally:
            os.close(descriptor)


def make_directory(root: int, path: str, rules: Rules) -> bool:
    """``path`` is a directory afterwards; whether anything had to be made.

    Raises:
        InvalidArgument: Something else is in the way.
    """
    if _is_directory(root, path):
        return False
    _make_directories(root, path, rules)
    return True


def _is_directory(root: int, path: str) -> bool:
    try:
        return stat.S_ISDIR(beneath.stat_beneath(root, path).st_mode)
    except OSError:
        return False


def _make_directories(root: int, path: str, rules: Rules) -> None:
    try:
        beneath.make_directories_beneath(root, path, MADE_MODE, rules.uid or 0, rules.gid or 0)
    except (NotADirectoryError, FileNotFoundError) as error:
        msg = f"cannot make the directory {path:.200}: a file is in the way"
        raise InvalidArgument(msg) from error


@contextmanager
def _parent(root: int, path: str, rules: Rules) -> Iterator[tuple[int, str]]:
    """The directory that holds ``path``'s last name, made if need be, and that name."""
    directory, name = posixpath.split(path)
    if not name:
        msg = f"cannot copy to {path:.200}: a file's name is needed"
        raise InvalidArgument(msg)
    if not _is_directory(root, directory):
        _make_directories(root, directory, rules)
    descriptor = beneath.open_beneath(root, directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield descriptor, name
    finally:
        os.close(descriptor)


def _copy_one(source: int, each: Found, root: int, path: str, rules: Rules) -> None:
    if _is_directory(root, path):
        msg = f"cannot copy the file {each.path:.200} to {path:.200}: a directory is there"
        raise InvalidArgument(msg)
    descriptor = beneath.open_beneath(source, each.path, os.O_RDONLY)
    try:
        with _parent(root, path, rules) as (parent, name):
            _copy_file(descriptor, os.fstat(descriptor), parent, name, rules)
    finally:
        os.close(descriptor)


@attrs.define
class _Level:
    """A directory being copied: from, to, what is left of it, and what it looks like."""

    source: int
    target: int
    names: list[str]
    status: os.stat_result
    shaped: bool


def _copy_directory(source: int, each: Found, root: int, path: str, rules: Rules) -> None:
    """Copy what is in a directory; one that has to be made looks like it."""
    made = make_directory(root, path, rules)
    target = beneath.open_beneath(root, path, os.O_RDONLY | os.O_DIRECTORY)
    top = beneath.open_beneath(source, each.path, os.O_RDONLY | os.O_DIRECTORY)
    stack = [_level(top, target, shaped=made)]
    try:
        while stack:
            level = stack[-1]
            if not level.names:
                if level.shaped:
                    _shape(level.target, level.status, rules, xattrs_of(level.source))
                _close(stack.pop())
                continue
            name = level.names.pop()
            below = _copy_entry(level, name, rules)
            if below is not None:
                stack.append(below)
                if len(stack) > DEPTH_MAX:
                    msg = f"cannot copy {each.path:.200}: more than {DEPTH_MAX} levels deep"
                    raise InvalidArgument(msg)
    finally:
        for level in stack:
            _close(level)


def _level(source: int, target: int, *, shaped: bool) -> _Level:
    names = sorted(os.listdir(source), reverse=True)  # by fd
    return _Level(source, target, names, os.fstat(source), shaped)


def _close(level: _Level) -> None:
    os.close(level.source)
    os.close(level.target)


def _copy_entry(level: _Level, name: str, rules: Rules) -> _Level | None:
    """Copy one entry; a directory is returned, to be gone into."""
    rules.stop()
    status = os.stat(name, dir_fd=level.source, follow_symlinks=False)
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFDIR:
        return _enter(level, name)
    if kind == stat.S_IFREG:
        descriptor = os.open(name, READ_FILE, dir_fd=level.source)
        try:
            _copy_file(descriptor, os.fstat(descriptor), level.target, name, rules)
        finally:
            os.close(descriptor)
    elif kind == stat.S_IFLNK:
        _clear(level.target, name, name)
        os.symlink(os.readlink(name, dir_fd=level.source), name, dir_fd=level.target)
        _own(level.target, name, status, rules)
    elif kind == stat.S_IFIFO:
        _clear(level.target, name, name)
        os.mkfifo(name, 0o600, dir_fd=level.target)
        _own(level.target, name, status, rules)
        os.chmod(name, _mode(status, rules), dir_fd=level.target)
    return None


def _enter(level: _Level, name: str) -> _Level:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=level.target)
    source = os.open(name, trees.DIRECTORY, dir_fd=level.source)
    try:
        target = os.open(name, trees.DIRECTORY, dir_fd=level.target)
    except OSError as error:
        os.close(source)
        message = f"cannot copy the directory {name:.200}: something else has its name there"
        raise InvalidArgument(message) from error
    return _level(source, target, shaped=True)


def _copy_file(source: int, status: os.stat_result, parent: int, name: str, rules: Rules) -> None:
    _clear(parent, name, name)
    descriptor = _create(parent, name)
    try:
        left = status.st_size
        while left:
            moved = os.sendfile(descriptor, source, None, min(left, COPY_BYTES))
            if not moved:
                break
            left -= moved
        _shape(descriptor, status, rules, xattrs_of(source))
    finally:
        os.close(descriptor)


def _create(parent: int, name: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o600, dir_fd=parent)


def _clear(parent: int, name: str, path: str) -> None:
    """Take away a file or link of that name."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except IsADirectoryError as error:
        message = f"cannot copy the file {path:.200}: a directory has its name there"
        raise InvalidArgument(message) from error


def _shape(
    descriptor: int, status: os.stat_result, rules: Rules, xattrs: list[tuple[str, bytes]]
) -> None:
    """Owner, mode, extended attributes and times, in the order that keeps them."""
    uid = status.st_uid if rules.uid is None else rules.uid
    gid = status.st_gid if rules.gid is None else rules.gid
    os.fchown(descriptor, uid, gid)
    os.fchmod(descriptor, _mode(status, rules))
    for name, value in xattrs:
        os.setxattr(descriptor, name, value)
    os.utime(descriptor, ns=rules.times(status))


def _own(parent: int, name: str, status: os.stat_result, rules: Rules) -> None:
    uid = status.st_uid if rules.uid is None else rules.uid
    gid = status.st_gid if rules.gid is None else rules.gid
    os.chown(name, uid, gid, dir_fd=parent, follow_symlinks=False)
    os.utime(name, ns=rules.times(status), dir_fd=parent, follow_symlinks=False)


def _mode(status: os.stat_result, rules: Rules) -> int:
    return stat.S_IMODE(status.st_mode) if rules.mode is None else rules.mode

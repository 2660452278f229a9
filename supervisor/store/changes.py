"""What was changed in a snapshot, as ``docker diff`` tells it.

Words: *upper* is the directory of what was written, *lowers* those of the layers below, the topmost first.

Rules: dockerd's. A directory that was there counts as changed when its owner or mode is another, or something in it is; a
file when its owner, mode, size or time is. What a removed directory held is not told one by one. The trees are hostile
and the upper changes meanwhile: directories are entered by descriptor, links never followed. Blocks: call it in a thread.
"""

from __future__ import annotations

import enum
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from supervisor.store import packing, trees

CHANGES_MAX = 1_000_000


class ChangeKind(enum.IntEnum):
    """What happened to a path; the values are Docker's."""

    MODIFIED = 0
    ADDED = 1
    DELETED = 2


@attrs.frozen
class Change:
    """One path, absolute as the container sees it."""

    path: bytes
    kind: ChangeKind


@attrs.define
class _Level:
    """One directory of the upper that is being looked through."""

    upper: int
    prefix: bytes
    names: Iterator[bytes]
    lowers: list[int]
    told: bool


def changes(upper: Path, lowers: Sequence[Path]) -> list[Change]:
    """All changes, a directory before what is in it; at most :data:`CHANGES_MAX`.

    Raises:
        OSError: A layer cannot be read.
    """
    found: list[Change] = []
    top = trees.open_directory(upper)
    levels = [_Level(top, b"/", _names(top), [trees.open_directory(one) for one in lowers], True)]
    try:
        while levels and len(found) < CHANGES_MAX:
            level = levels[-1]
            name = next(level.names, None)
            if name is None:
                _close(levels.pop())
                continue
            below = _look(levels, name, found)
            if below is not None and len(levels) < trees.WALK_DEPTH_MAX:
                levels.append(below)
    finally:
        for level in levels:
            _close(level)
    return found


def _look(levels: list[_Level], name: bytes, found: list[Change]) -> _Level | None:
    """Tell what became of one entry; the level below when it is a directory."""
    level = levels[-1]
    path = level.prefix + name
    try:
        status = os.lstat(name, dir_fd=level.upper)
    except FileNotFoundError:
        return None
    before = _lower_status(level.lowers, name)
    if _is_whiteout(status):
        if before is not None:
            _tell(levels, found, path, ChangeKind.DELETED)
        return None
    told = True
    if before is None:
        _tell(levels, found, path, ChangeKind.ADDED)
    elif _differs(before, status):
        _tell(levels, found, path, ChangeKind.MODIFIED)
    else:
        told = False
    if not stat.S_ISDIR(status.st_mode):
        return None
    return _below(levels, name, found, told=told)


def _below(levels: list[_Level], name: bytes, found: list[Change], *, told: bool) -> _Level | None:
    level = levels[-1]
    try:
        opened = os.open(name, trees.DIRECTORY, dir_fd=level.upper)
    except OSError:
        return None  # it has just gone
    lowers = _lower_directories(level.lowers, name)
    made = _Level(opened, level.prefix + name + b"/", _names(opened), lowers, told)
    if packing.is_opaque(opened):
        hidden = sorted(_visible_names(lowers) - set(_names(opened)))
        for gone in hidden:
            _tell([*levels, made], found, made.prefix + gone, ChangeKind.DELETED)
    return made


def _tell(levels: list[_Level], found: list[Change], path: bytes, kind: ChangeKind) -> None:
    """With the directories it is in, where these are not told yet."""
    for level in levels:
        if not level.told:
            found.append(Change(level.prefix.rstrip(b"/"), ChangeKind.MODIFIED))
            level.told = True
    found.append(Change(path, kind))


def _lower_status(lowers: Sequence[int], name: bytes) -> os.stat_result | None:
    for lower in lowers:
        try:
            status = os.lstat(name, dir_fd=lower)
        except (FileNotFoundError, NotADirectoryError):
            continue
        return None if _is_whiteout(status) else status
    return None


def _lower_directories(lowers: Sequence[int], name: bytes) -> list[int]:
    """The directories of this name that show through, the topmost first; the caller closes them."""
    opened = []
    for lower in lowers:
        try:
            status = os.lstat(name, dir_fd=lower)
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            break
        directory = os.open(name, trees.DIRECTORY, dir_fd=lower)
        opened.append(directory)
        if packing.is_opaque(directory):
            break
    return opened


def _visible_names(lowers: Sequence[int]) -> set[bytes]:
    names = {name for lower in lowers for name in _names(lower)}
    return {name for name in names if _lower_status(lowers, name) is not None}


def _differs(before: os.stat_result, after: os.stat_result) -> bool:
    if (before.st_mode, before.st_uid, before.st_gid) != (
        after.st_mode,
        after.st_uid,
        after.st_gid,
    ):
        return True
    if stat.S_ISDIR(after.st_mode):
        return False
    return (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _names(directory: int) -> Iterator[bytes]:
    return iter(sorted(os.fsencode(name) for name in os.listdir(directory)))


def _close(level: _Level) -> None:
    for descriptor in (level.upper, *level.lowers):
        os.close(descriptor)

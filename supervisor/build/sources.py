"""Finding what COPY and ADD name: paths and patterns below a directory fd that is not trusted.

Patterns are Go's ``filepath.Match``, part by part. Every step is an openat2 within the root: links are followed as the
container would follow them, and nothing leads out. Blocks: call it in a thread.
"""

from __future__ import annotations

import fnmatch
import os
import posixpath
import re
import stat
from collections.abc import Iterator

import attrs

from supervisor.errors import InvalidArgument
from supervisor.linux import beneath

MATCHES_MAX = 100_000
PATTERN_CHARACTERS_MAX = 4_096
_WILD = re.compile(r"[*?\[\\]")
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY


@attrs.frozen
class Found:
    """One source.

    Attributes:
        path: From the root, without a leading slash; empty for the root itself.
        directory: It is one: what is copied is its content.
    """

    path: str
    directory: bool

    @property
    def name(self) -> str:
        """Its last name."""
        return posixpath.basename(self.path)


def find(root: int, sources: tuple[str, ...], where: str) -> list[Found]:
    """Everything ``sources`` name below the directory ``root``, in order, patterns sorted.

    Args:
        root: A directory fd.
        sources: As COPY has them; ``..`` stops at the root.
        where: What the root is, for messages: ``the build context``.

    Raises:
        InvalidArgument: One names nothing, or is no pattern.
    """
    found: list[Found] = []
    for source in sources:
        path = posixpath.normpath(posixpath.join("/", source)).strip("/")
        matches = [path] if not _WILD.search(path) else sorted(_matches(root, path.split("/")))
        if not matches:
            msg = f"COPY failed: no source files were specified: nothing in {where} matches {source:.200}"
            raise InvalidArgument(msg)
        found += [_look(root, match, source, where) for match in matches]
        if len(found) > MATCHES_MAX:
            msg = f"COPY failed: {source:.200} matches more than {MATCHES_MAX} files"
            raise InvalidArgument(msg)
    return found


def _look(root: int, path: str, source: str, where: str) -> Found:
    try:
        status = beneath.stat_beneath(root, path)
    except OSError as error:
        hint = "the path is relative to the context, and what .dockerignore leaves out is not there"
        message = (
            f"COPY failed: file not found in {where} or excluded by .dockerignore: {source:.200}"
        )
        raise InvalidArgument(message, hint if "context" in where else "") from error
    kind = stat.S_IFMT(status.st_mode)
    if kind not in {stat.S_IFREG, stat.S_IFDIR, stat.S_IFIFO}:
        msg = f"COPY failed: {source:.200} is neither a file nor a directory"
        raise InvalidArgument(msg)
    return Found(path, kind == stat.S_IFDIR)


def _matches(root: int, parts: list[str]) -> Iterator[str]:
    """Paths whose parts match, found one level after the other."""
    level = [""]
    for part in parts:
        if not _WILD.search(part):
            level = [posixpath.join(path, part) for path in level]
            continue
        matches = compiled(part)
        level = [
            posixpath.join(path, name)
            for path in level
            for name in _names(root, path)
            if matches.match(name)
        ]
        if len(level) > MATCHES_MAX:
            msg = f"COPY failed: {part:.200} matches more than {MATCHES_MAX} files"
            raise InvalidArgument(msg)
    for path in level:
        try:
            beneath.stat_beneath(root, path, follow=False)
        except OSError:
            continue
        yield path


def _names(root: int, path: str) -> list[str]:
    try:
        directory = beneath.open_beneath(root, path, DIRECTORY)
    except OSError:
        return []
    try:
        return os.listdir(directory)  # noqa: PTH208  # by fd
    finally:
        os.close(directory)


def compiled(pattern: str) -> re.Pattern[str]:
    """One part of a Go pattern as a regular expression that does not backtrack over its stars.

    Raises:
        InvalidArgument: A bracket or a backslash never ends.
    """
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        msg = f"COPY failed: the pattern {pattern:.64}… is too long"
        raise InvalidArgument(msg)
    pieces: list[str] = []
    at = 0
    while at < len(pattern):
        mark = pattern[at]
        if mark == "\\":
            freed = pattern[at + 1 : at + 2]
            if not freed:
                raise _malformed(pattern)
            pieces.append(f"[{freed}]" if freed in "*?[" else freed)
            at += 2
        elif mark == "[":
            piece, at = _class(pattern, at)
            pieces.append(piece)
        else:
            pieces.append(mark)
            at += 1
    # fnmatch makes of each star a group that is never gone back into.
    return re.compile(fnmatch.translate("".join(pieces)))


def _class(pattern: str, at: int) -> tuple[str, int]:
    """``[a-z]`` or ``[^a-z]`` in fnmatch's words, and where it ends."""
    end = pattern.find("]", at + 2)
    body = pattern[at + 1 : end]
    if end < 0 or "\\" in body or not body.lstrip("^"):
        raise _malformed(pattern)
    return (f"[!{body[1:]}]" if body.startswith("^") else f"[{body}]"), end + 1


def _malformed(pattern: str) -> InvalidArgument:
    return InvalidArgument(
        f"COPY failed: {pattern:.200} is no pattern: a bracket or backslash never ends"
    )

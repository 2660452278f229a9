"""A build's context as a tar, made while it is sent.

Rules: what ``.dockerignore`` leaves out is not read; everything belongs to root, as other clients send it; sockets and
other odd files are left out; a file that shrinks while it is read is filled with zeros, one that grows is cut.
"""

from __future__ import annotations

import os
import secrets
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import attrs

from protocol.ignore import BadPatternError, Ignore, parse_ignore
from supervisor.errors import InvalidArgument, NotFound

PIECE_BYTES = 1_048_576
IGNORE_FILE = ".dockerignore"


@attrs.frozen
class LocalContext:
    """A directory to be sent, and what it is built by.

    Attributes:
        dockerfile: Its name within the tar.
        outside: Where the Dockerfile lies if that is not in the directory.
    """

    root: Path
    dockerfile: str
    ignore: Ignore
    outside: Path | None = None


def find_context(root: Path, dockerfile: Path | None) -> LocalContext:
    """The context in ``root``; ``dockerfile`` may lie anywhere, and is ``Dockerfile`` in it when not named.

    Raises:
        NotFound: There is no such directory or file.
        InvalidArgument: The ``.dockerignore`` makes no sense.
    """
    if not root.is_dir():
        raise NotFound(f"cannot build {root}: it is not a directory")
    path = root / "Dockerfile" if dockerfile is None else dockerfile
    if dockerfile is not None and not path.exists() and (root / path).exists():
        path = root / path
    if not path.is_file():
        raise NotFound(
            f"cannot build {root}: there is no {path}", hint="name the Dockerfile by -f FILE"
        )
    inside = path.parent.resolve().is_relative_to(root.resolve())
    name = f".dockerfile.{secrets.token_hex(8)}"
    if inside:
        name = (path.parent.resolve() / path.name).relative_to(root.resolve()).as_posix()
    return LocalContext(root, name, _find_ignore(root, path, name), None if inside else path)


def _find_ignore(root: Path, dockerfile: Path, name: str) -> Ignore:
    """A Dockerfile's own ignore file goes before the directory's."""
    own = dockerfile.with_name(f"{dockerfile.name}.dockerignore")
    path = own if own.is_file() else root / IGNORE_FILE
    text = path.read_text(errors="replace") if path.is_file() else ""
    try:
        return parse_ignore(text, always_sent=(name, IGNORE_FILE))
    except BadPatternError as error:
        raise InvalidArgument(f"cannot build {root}: {error}") from error


def tar_pieces(context: LocalContext) -> Iterator[bytes]:
    """The context's tar, in pieces of about a megabyte. Blocks.

    Raises:
        InvalidArgument: Something in it cannot be read.
    """
    pending = bytearray()
    for piece in _tar(context):
        pending += piece
        if len(pending) >= PIECE_BYTES:
            yield bytes(pending)
            pending.clear()
    yield bytes(pending) + bytes(2 * tarfile.BLOCKSIZE)


def _tar(context: LocalContext) -> Iterator[bytes]:
    for path, name in _walk(context, context.root, ""):
        try:
            yield from _member(path, name)
        except OSError as error:
            raise InvalidArgument(
                f"cannot send {name}: {error.strerror}",
                hint="leave it out of the context by a line in .dockerignore",
            ) from error
    if context.outside is not None:
        yield from _member(context.outside.resolve(), context.dockerfile)


def _walk(context: LocalContext, directory: Path, prefix: str) -> Iterator[tuple[Path, str]]:
    """What is sent, parents first, in an order that does not depend on the disk's."""
    try:
        entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
    except OSError as error:
        raise InvalidArgument(f"cannot send {prefix or directory}: {error.strerror}") from error
    for entry in entries:
        name = prefix + entry.name
        is_directory = entry.is_dir(follow_symlinks=False)
        if not context.ignore.excludes(name):
            yield Path(entry.path), name
        elif not is_directory or context.ignore.prunes(name):
            continue
        if is_directory:
            yield from _walk(context, Path(entry.path), f"{name}/")


def _member(path: Path, name: str) -> Iterator[bytes]:
    status = path.lstat()
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    if stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str(path.readlink())
    elif stat.S_ISREG(status.st_mode):
        info.size = status.st_size
    elif stat.S_ISFIFO(status.st_mode):
        info.type = tarfile.FIFOTYPE
    else:
        return
    if info.isreg():
        with path.open("rb") as file:
            yield info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
            yield from _content(file.read, info.size)
        return
    yield info.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")


def _content(read: object, size: int) -> Iterator[bytes]:
    assert callable(read)
    left = size
    while left:
        piece: bytes = read(min(left, PIECE_BYTES))
        if not piece:
            break
        left -= len(piece)
        yield piece
    yield bytes(left + -size % tarfile.BLOCKSIZE)

"""Archives however they are compressed: known by their first bytes, read in bounded pieces.

Rules: what comes out is asked for piece by piece, so that a small input cannot become a large piece of memory (attacks.md
6); several members or frames one after the other are one stream, as gzip(1) and zstd(1) have it; damage is an
InvalidArgument. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import bz2
import hashlib
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import attrs
import zstandard
from isal import igzip, isal_zlib
from typing_extensions import Buffer, override

from supervisor.errors import InvalidArgument
from supervisor.oci import digest as digests

READ_BYTES = 1 << 20
ZSTD_WINDOW_BYTES_MAX = 1 << 27
XZ_MEMORY_BYTES_MAX = 1 << 28

_DAMAGE: tuple[type[Exception], ...] = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
)


@attrs.frozen
class Span:
    """A stretch of an open file, read without moving anybody's position."""

    descriptor: int
    offset: int = 0
    length: int = -1

    def size(self) -> int:
        """Its length; to the end of the file when that was not said."""
        return os.fstat(self.descriptor).st_size - self.offset if self.length < 0 else self.length


class SpanReader(io.RawIOBase):
    """Reads a span, taking the digest of what was read and handing a copy on if asked to."""

    def __init__(self, span: Span, copy: Callable[[bytes], object] | None = None) -> None:
        super().__init__()
        self._descriptor = span.descriptor
        self._position = span.offset
        self._end = span.offset + span.size()
        self._hash = hashlib.sha256()
        self._copy = copy

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        data = os.pread(
            self._descriptor, min(len(view), self._end - self._position), self._position
        )
        view[: len(data)] = data
        self._position += len(data)
        self._hash.update(data)
        if self._copy is not None:
            self._copy(data)
        return len(data)

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return f"{digests.ALGORITHM}:{self._hash.hexdigest()}"


class HashedReader(io.RawIOBase):
    """Reads ``source``, taking the digest of what was read, handing a copy on if asked to, telling damage in one way."""

    def __init__(
        self,
        source: BinaryIO | io.BufferedIOBase,
        copy: Callable[[bytes], object] | None = None,
    ) -> None:
        super().__init__()
        self._source = source
        self._copy = copy
        self.length = 0
        self._hash = hashlib.sha256()

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer).cast("B")
        with damage_told():
            data = self._source.read(len(view))
        view[: len(data)] = data
        self._hash.update(data)
        self.length += len(data)
        if self._copy is not None:
            self._copy(data)
        return len(data)

    @property
    def digest(self) -> str:
        """Of what was read so far."""
        return f"{digests.ALGORITHM}:{self._hash.hexdigest()}"


@contextmanager
def damage_told() -> Iterator[None]:
    """Tell a damaged compressed stream as what it is.

    Raises:
        InvalidArgument: It is damaged.
    """
    try:
        yield
    except (*_DAMAGE, isal_zlib.IsalError) as error:  # type: ignore[misc]  # it is an exception
        message = f"cannot read the archive: its compression is damaged: {error}"
        raise InvalidArgument(message) from error
    except OSError as error:
        if error.errno is not None:
            raise
        message = (
            f"cannot read the archive: its compression is damaged: {error}"  # gzip and bz2 say so
        )
        raise InvalidArgument(message) from error


def kind_of(head: bytes) -> str:
    """``gzip``, ``zstd``, ``bzip2``, ``xz``, or nothing for what is not compressed, by the first bytes."""
    return next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")


def decompressed(source: io.BufferedReader[SpanReader]) -> BinaryIO | io.BufferedIOBase:
    """What ``source`` holds, whatever way it is compressed; itself if it is not.

    Raises:
        InvalidArgument: Later, when reading: it is damaged. Use :class:`HashedReader` or :func:`damage_told`.
    """
    match kind_of(source.peek(8)[:8]):
        case "gzip":
            return igzip.IGzipFile(fileobj=source, mode="rb")  # type: ignore[no-untyped-call]
        case "zstd":
            decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
            return decompressor.stream_reader(source, read_across_frames=True, closefd=False)
        case "bzip2":
            return bz2.BZ2File(source)
        case "xz":
            return lzma.LZMAFile(source)
        case _:
            return source


def pieces(span: Span) -> Iterator[bytes]:
    """What ``span`` holds, decompressed, in pieces of at most :data:`READ_BYTES`.

    Raises:
        InvalidArgument: It is damaged.
    """
    buffered = io.BufferedReader(SpanReader(span), READ_BYTES)
    stream = decompressed(buffered)
    while True:
        with damage_told():
            piece = stream.read(READ_BYTES)
        if not piece:
            return
        yield piece


_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)

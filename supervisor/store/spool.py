"""Archives that come over a connection: kept in a nameless file until they are read, within a bound.

Rules: the file has no name, so that nothing is left whatever happens; reading it is by position, from any thread.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from supervisor.errors import ResourceExhausted
from supervisor.store.compression import Span
from supervisor.tasks import in_thread


@attrs.frozen
class Spool:
    """Keeps what comes in a directory of ours."""

    directory: Path
    bytes_max: int

    @asynccontextmanager
    async def spooled(self, stream: AsyncIterable[bytes]) -> AsyncIterator[Span]:
        """All of ``stream``, for as long as the block runs.

        Raises:
            ResourceExhausted: It is longer than the bound, or the disk is full.
        """
        flags = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
        descriptor = os.open(self.directory, flags, 0o600)
        try:
            await self._fill(descriptor, stream)
            yield Span(descriptor)
        finally:
            os.close(descriptor)

    async def _fill(self, descriptor: int, stream: AsyncIterable[bytes]) -> None:
        length = 0
        async for piece in stream:
            length += len(piece)
            if length > self.bytes_max:
                message = f"cannot take the archive: it is longer than {self.bytes_max} bytes"
                raise ResourceExhausted(message, hint="see store.layer_bytes_max in the settings")
            await in_thread(lambda piece=piece: _write(descriptor, piece))  # type: ignore[misc]


def _write(descriptor: int, piece: bytes) -> None:
    left = memoryview(piece)
    while left:
        left = left[os.write(descriptor, left) :]


async def in_pieces(data: bytes, size: int = 1 << 20) -> AsyncIterator[bytes]:
    """``data`` as a stream."""
    for start in range(0, len(data), size):
        yield data[start : start + size]
        await trio.lowlevel.checkpoint()

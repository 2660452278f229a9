"""A server of a test's own at a UNIX socket, for clients that are tried without the daemon."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import trio


@asynccontextmanager
async def serving_at(
    path: Path, serve: Callable[[trio.SocketStream], Awaitable[object]]
) -> AsyncIterator[None]:
    """``serve`` is called with each connection, until the end."""
    listening = trio.socket.socket(trio.socket.AF_UNIX)
    await listening.bind(str(path))
    listening.listen(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, serve, [trio.SocketListener(listening)])
        yield
        nursery.cancel_scope.cancel()

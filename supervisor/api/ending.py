"""The end of the API, for requests that take long: their clients are told why, instead of finding the connection closed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import attrs
import trio

from supervisor.errors import Unavailable


@attrs.define(eq=False)
class Ending:
    """One for all connections of a daemon."""

    _begun: trio.Event = attrs.field(factory=trio.Event)
    _speaking: int = 0
    _silence: trio.Event = attrs.field(factory=trio.Event)

    async def begin(self) -> None:
        """Cut short what is to be, and wait until all of it has said so."""
        self._begun.set()
        if self._speaking:
            await self._silence.wait()

    @contextmanager
    def waits(self) -> Iterator[None]:
        """The end waits for what is inside."""
        self._speaking += 1
        try:
            yield
        finally:
            self._speaking -= 1
            if not self._speaking and self._begun.is_set():
                self._silence.set()

    @asynccontextmanager
    async def cuts_short(self) -> AsyncIterator[None]:
        """What is inside is cancelled when the end begins.

        Raises:
            Unavailable: It has been.
        """
        cut = False

        async def watch(scope: trio.CancelScope) -> None:
            nonlocal cut
            await self._begun.wait()
            cut = True
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            yield
            nursery.cancel_scope.cancel()
        if cut:
            raise Unavailable("cannot finish this: the daemon is stopping", hint="ask again")

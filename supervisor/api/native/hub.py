"""Telling many subscribers at once: those who are at the end of the journal rest here until something happens.

Words: who *rests* has been told everything; the *hub*'s one task makes what comes next once for all who may see and
want the same, and writes it to each without waiting. Whoever cannot take all of it at once is woken, and goes on by
itself in its own time: a slow one holds up nobody.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio
from typing_extensions import override

from protocol import codec
from protocol.messages import Bookmark
from supervisor.events.frames import Frame, Frames, Wish
from supervisor.events.journal import Events

_TEXT_FRAME = 0x81  # FIN, opcode 1
_LENGTH_7_BITS, _LENGTH_16_BITS = 125, 0xFFFF


def text_frame(payload: bytes) -> bytes:
    """An unmasked websocket text frame (RFC 6455 section 5.2)."""
    size = len(payload)
    if size <= _LENGTH_7_BITS:
        return bytes([_TEXT_FRAME, size]) + payload
    if size <= _LENGTH_16_BITS:
        return bytes([_TEXT_FRAME, 126]) + size.to_bytes(2, "big") + payload
    return bytes([_TEXT_FRAME, 127]) + size.to_bytes(8, "big") + payload


class Wire(trio.abc.Stream):
    """A connection on which whole frames of several senders follow each other.

    Args:
        stream: The connection.
        descriptor: Its socket, for sending without waiting; None when there is no such thing. It must stay open until
            this is closed.
    """

    def __init__(self, stream: trio.abc.Stream, descriptor: int | None) -> None:
        self._stream = stream
        self._descriptor = descriptor
        self._turn = trio.StrictFIFOLock()
        self._unsent = b""

    @override
    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, after all that was to be sent before."""
        async with self._turn:
            unsent, self._unsent = self._unsent, b""
            await self._stream.send_all(unsent + data if unsent else data)

    def send_now(self, data: bytes) -> bool:
        """Send without waiting; whether it is sent or, where a part of it is, will be first with the next send.

        What is to follow a part must be waited for: :attr:`full` tells.
        """
        if self._descriptor is None or self._unsent or self._turn.locked():
            return False
        try:
            sent = os.write(self._descriptor, data)
        except OSError:  # full, or gone: whoever waits for it will see
            return False
        self._unsent = data[sent:]
        return True

    @property
    def full(self) -> bool:
        """Whether a part is still to be sent."""
        return bool(self._unsent)

    @override
    async def wait_send_all_might_not_block(self) -> None:
        """See trio.abc.SendStream."""
        await self._stream.wait_send_all_might_not_block()

    @override
    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """See trio.abc.ReceiveStream."""
        return await self._stream.receive_some(max_bytes)

    @override
    async def aclose(self) -> None:
        """Close both directions."""
        self._descriptor = None
        await self._stream.aclose()


@attrs.define(eq=False)
class Place:
    """Where a subscriber is: all up to ``after`` is dealt with, all up to ``told`` said to be. ``spoke``: trio's time."""

    wire: Wire
    wish: Wish
    after: int
    told: int
    spoke: float = 0.0
    woken: trio.Event = attrs.field(factory=trio.Event)

    def take(self, batch: bytes, upto: int) -> bool:
        """Tell ``batch`` (nothing: none of it is wanted) now; whether one can go on resting."""
        if batch:
            if self.told != self.after:
                batch = text_frame(codec.encode(Bookmark(self.after))) + batch
            if not self.wire.send_now(batch):
                return False
            self.told, self.spoke = upto, trio.current_time()
        self.after = upto
        return not self.wire.full


@attrs.frozen
class _Key:
    after: int
    wish: Wish


@attrs.define(eq=False)
class Hub:
    """The daemon's one. Made by :func:`open_hub`."""

    frames: Frames
    _resting: dict[_Key, set[Place]] = attrs.field(factory=dict)

    @property
    def events(self) -> Events:
        """The journal."""
        return self.frames.events

    async def rest(self, place: Place, until: float) -> None:
        """Rest at ``place``, being told what comes, until trio's time ``until`` or until one must go on by oneself."""
        if place.after < self.events.last_seq:
            return
        place.woken = trio.Event()
        self._resting.setdefault(_Key(place.after, place.wish), set()).add(place)
        try:
            with trio.move_on_at(until):
                await place.woken.wait()
        finally:
            self._leave(place)

    def _leave(self, place: Place) -> None:
        key = _Key(place.after, place.wish)
        resting = self._resting.get(key, set())
        resting.discard(place)
        if not resting:
            self._resting.pop(key, None)

    async def _run(self) -> None:
        told = self.events.last_seq
        while True:
            await self.events.wait_beyond(told)
            told = self.events.last_seq
            for key in [key for key in self._resting if key.after < told]:
                frame = await self.frames.batch(key.after, key.wish)
                self._tell(key, frame)

    def _tell(self, key: _Key, frame: Frame) -> None:
        resting = self._resting.pop(key, set())
        missed = frame.first_seq - 1 > key.after
        batch = text_frame(frame.json) if frame.json else b""
        staying = set()
        for place in resting:
            if not missed and place.take(batch, frame.upto):
                staying.add(place)
            else:
                place.woken.set()
        if staying:
            self._resting.setdefault(_Key(frame.upto, key.wish), set()).update(staying)


@asynccontextmanager
async def open_hub(events: Events) -> AsyncIterator[Hub]:
    """Open the hub for the subscribers of ``events``."""
    hub = Hub(Frames(events))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub._run)  # noqa: SLF001  # its maker
        yield hub
        nursery.cancel_scope.cancel()

"""Batches of the journal, encoded once for all who want the same.

A subscriber that keeps up asks for the same piece as every other of the same visibility and wish; the first makes it,
the rest get the same bytes. Bounded: old batches are dropped, and made again for whoever still needs them.
"""

from __future__ import annotations

from collections import OrderedDict

import attrs
import trio

from protocol import codec
from protocol.messages import Want
from supervisor.events.journal import EntryPage, Events

FRAMES_MAX = 256
FRAMES_BYTES_MAX = 16 * 1024 * 1024


@attrs.frozen
class Wish:
    """What one reader may see (None: everything) and wants."""

    visible_to: int | None
    want: Want


@attrs.frozen
class Frame:
    """One page, encoded.

    Attributes:
        json: The whole ``batch`` message; empty when nothing in it is wanted.
        upto: Everything up to here is accounted for.
        first_seq: From here on nothing the reader may see is forgotten.
    """

    json: bytes
    upto: int
    first_seq: int


@attrs.frozen
class _Key:
    after: int
    last_seq: int
    wish: Wish


@attrs.define(eq=False)
class Frames:
    """The batches most recently made."""

    events: Events
    made: int = 0
    _kept: OrderedDict[_Key, Frame] = attrs.field(factory=OrderedDict)
    _kept_bytes: int = 0
    _being_made: dict[_Key, trio.Event] = attrs.field(factory=dict)

    async def batch(self, after: int, wish: Wish) -> Frame:
        """The page after ``after``."""
        while True:
            key = _Key(after, self.events.last_seq, wish)
            kept = self._kept.get(key)
            if kept is not None:
                await trio.lowlevel.checkpoint()
                return kept
            if key not in self._being_made:
                return await self._make(key)
            await self._being_made[key].wait()

    async def _make(self, key: _Key) -> Frame:
        done = self._being_made[key] = trio.Event()
        try:
            page = await self.events.entries(
                key.after, visible_to=key.wish.visible_to, want=key.wish.want
            )
            frame = _encode(key.after, page)
            self.made += 1
            self._keep(key, frame)
        finally:
            del self._being_made[key]
            done.set()
        return frame

    def _keep(self, key: _Key, frame: Frame) -> None:
        self._kept[key] = frame
        self._kept_bytes += len(frame.json)
        while len(self._kept) > FRAMES_MAX or self._kept_bytes > FRAMES_BYTES_MAX:
            _, dropped = self._kept.popitem(last=False)
            self._kept_bytes -= len(dropped.json)


def _encode(after: int, page: EntryPage) -> Frame:
    entries = [entry.json for entry in page.entries]
    batch = codec.join_batch(after, page.upto, entries) if entries else b""
    return Frame(batch, page.upto, page.first_seq)

"""The stream: events by websocket, in order and without loss, and resource samples beside them.

A session is one subscriber: a hello, a welcome, then batches for ever. Its place in the journal is a cursor and no
queue: a slow one reads bounded pages later than the others and holds up nobody; one that has caught up rests at the
hub. trio-websocket does the handshake, pings and the close; event frames are made once, shared, and written past it
(a server's frames are not masked, so they are the same bytes for everybody, RFC 6455 section 5.1).

Rules: one task always reads, as trio-websocket answers pings only while somebody takes its messages; no transaction
is open during a send; ``after`` of a batch is always what the client was told last.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Protocol

import attrs
import trio
from trio_websocket import (
    ConnectionClosed,
    WebSocketConnection,
    WebSocketRequest,
    wrap_server_stream,
)

from protocol import codec
from protocol.errors import ErrorKind, Refused
from protocol.ids import Anchor, parse_start
from protocol.messages import (
    SUBPROTOCOL,
    VERSION,
    Bookmark,
    Gone,
    Hello,
    Sample,
    Snapshot,
    Welcome,
)
from protocol.samples import HostSample
from supervisor.api.native.hub import Hub, Place, Wire, text_frame
from supervisor.api.streams import ReplayStream
from supervisor.events.frames import Wish

HANDSHAKE_SECONDS = 10.0
HELLO_BYTES_MAX = 65_536
CLOSE_SECONDS = 2.0

_POLICY_VIOLATION = 1008


class Sampled(Protocol):
    """A sample, and how many before it the reader was too late for."""

    @property
    def sample(self) -> HostSample: ...  # noqa: D102

    @property
    def skipped(self) -> int: ...  # noqa: D102


@attrs.frozen
class Subscriber:
    """For whom a session is, and what it can be told beside events.

    Attributes:
        visible_to: The host uid whose events may be seen; None for an admin, who sees all.
        samples: All resource samples from now on, the newest first for a reader that is late.
        snapshot: What there is now, of what this subscriber may see: lists by kind.
    """

    visible_to: int | None
    samples: Callable[[], AsyncIterator[Sampled]] | None = None
    snapshot: Callable[[], Awaitable[Mapping[str, object]]] | None = None


async def serve_stream(
    stream: ReplayStream, descriptor: int | None, subscriber: Subscriber, hub: Hub
) -> None:
    """Serve one session until the client leaves; the stream is closed at the end.

    Args:
        stream: The connection, with the upgrade request's head to be read once more.
        descriptor: The connection's socket, which stays open until this returns; None sends through ``stream`` only.
        subscriber: Who is at the other end.
        hub: The daemon's one.
    """
    wire = Wire(stream, descriptor)
    async with trio.open_nursery() as nursery:
        try:
            websocket = await _handshake(nursery, wire)
            if websocket is not None:
                stream.release()
                await _converse(websocket, wire, subscriber, hub)
        finally:
            nursery.cancel_scope.cancel()
            await trio.aclose_forcefully(wire)


async def _handshake(nursery: trio.Nursery, wire: Wire) -> WebSocketConnection | None:
    """Accept the upgrade; None when it is not for us, which the client has then been told."""
    with trio.move_on_after(HANDSHAKE_SECONDS):
        request: WebSocketRequest = await wrap_server_stream(
            nursery, wire, message_queue_size=1, max_message_size=HELLO_BYTES_MAX
        )
        proposed = request.proposed_subprotocols
        try:
            if proposed and SUBPROTOCOL not in proposed:
                body = f"cannot open the stream: it speaks only {SUBPROTOCOL}\n".encode()
                await request.reject(400, body=body)
                return None
            return await request.accept(subprotocol=SUBPROTOCOL if proposed else None)
        except ConnectionClosed:
            return None
    return None


async def _converse(
    websocket: WebSocketConnection, wire: Wire, subscriber: Subscriber, hub: Hub
) -> None:
    try:
        with trio.fail_after(HANDSHAKE_SECONDS):
            hello = _read_hello(await websocket.get_message())
        session = _Session.begin(hello, subscriber, hub, wire)
        if isinstance(session, Refused):
            await wire.send_all(text_frame(codec.encode(session)))
            with trio.move_on_after(CLOSE_SECONDS):
                await websocket.aclose(_POLICY_VIOLATION, "refused")
            return
        await session.greet()
    except (
        ConnectionClosed,
        trio.BrokenResourceError,
        trio.ClosedResourceError,
        trio.TooSlowError,
    ):
        return
    async with trio.open_nursery() as nursery:
        for part in _parts(websocket, session, hello):
            nursery.start_soon(_as_long_as_heard, part, nursery.cancel_scope)


def _parts(
    websocket: WebSocketConnection, session: _Session, hello: Hello | Refused
) -> list[Callable[[], Awaitable[None]]]:
    """What a session does at once."""
    assert isinstance(hello, Hello)
    parts: list[Callable[[], Awaitable[None]]] = [
        functools.partial(_until_closed, websocket),
        functools.partial(session.run, snapshot=hello.snapshot),
    ]
    if hello.samples and session.subscriber.samples:
        parts.append(functools.partial(_send_samples, session.subscriber, session.place.wire))
    return parts


async def _as_long_as_heard(part: Callable[[], Awaitable[None]], session: trio.CancelScope) -> None:
    """Run ``part``; when the client has gone, or reads nothing any more, end the session."""
    try:
        await part()
    except (ConnectionClosed, trio.BrokenResourceError, trio.ClosedResourceError):
        session.cancel()


def _read_hello(message: str | bytes) -> Hello | Refused:
    try:
        hello = codec.decode(message)
    except codec.MalformedMessageError as error:
        return _refused(f"cannot open the stream: {error}")
    if not isinstance(hello, Hello):
        return _refused("cannot open the stream: the first message is a hello")
    if hello.version < 1:
        return _refused(f"cannot open the stream: there is no version {hello.version}")
    return hello


def _refused(message: str, hint: str = "") -> Refused:
    return Refused(ErrorKind.INVALID_ARGUMENT, message, hint)


async def _until_closed(websocket: WebSocketConnection) -> None:
    """Read, and forget, whatever else the client says, until it leaves: ConnectionClosed."""
    while True:
        await websocket.get_message()


async def _send_samples(subscriber: Subscriber, wire: Wire) -> None:
    """Tell each sample as its subscriber may see it. A slow one comes back later, for the newest."""
    assert subscriber.samples is not None
    ticks = subscriber.samples()
    async with AsyncExitStack() as stack:
        if isinstance(ticks, AsyncGenerator):
            await stack.enter_async_context(aclosing(ticks))
        async for tick in ticks:
            await _send_sample(tick, subscriber, wire)


async def _send_sample(tick: Sampled, subscriber: Subscriber, wire: Wire) -> None:
    seen = tick.sample
    if subscriber.visible_to is not None:
        seen = seen.visible_to(subscriber.visible_to)
    fields: Mapping[str, object] = codec.converter().unstructure(seen)
    await wire.send_all(text_frame(codec.encode(Sample(fields, tick.skipped))))


@attrs.define(eq=False)
class _Session:
    """The events of one subscriber.

    Attributes:
        tolerated: What is forgotten up to here was not asked for, or the client was told of it.
        gone: The client's cursor is of another journal.
    """

    hub: Hub
    subscriber: Subscriber
    place: Place
    version: int
    tolerated: int
    gone: bool
    caught_up: bool = False

    @classmethod
    def begin(
        cls, hello: Hello | Refused, subscriber: Subscriber, hub: Hub, wire: Wire
    ) -> _Session | Refused:
        """The session the hello asks for, or why there cannot be one."""
        if isinstance(hello, Refused):
            return hello
        events, gone = hub.events, False
        tolerated = events.first_seq(subscriber.visible_to) - 1
        try:
            start = parse_start(hello.from_)
        except ValueError as error:
            return _refused(f"cannot open the stream: {error}", "now and oldest will do, too")
        if start is Anchor.NOW:
            after = events.last_seq
        elif start is Anchor.OLDEST:
            after = 0
        elif start.epoch != events.epoch:  # another journal: none of this one has been seen
            after, gone = 0, True
        elif start.seq > events.last_seq:
            return _refused(
                f"cannot open the stream: {hello.from_} has not happened yet",
                f"the newest is {events.cursor}",
            )
        else:
            after, tolerated = start.seq, min(tolerated, start.seq)
        place = Place(wire, Wish(subscriber.visible_to, hello.want), after, after)
        return cls(hub, subscriber, place, min(hello.version, VERSION), tolerated, gone)

    async def greet(self) -> None:
        """Say what there is, and what is lost of what was asked for."""
        events = self.hub.events
        first_seq = events.first_seq(self.subscriber.visible_to)
        await self._say(Welcome(self.version, events.epoch, first_seq, events.last_seq))
        if self.gone:
            await self._say(Gone(first_seq))

    async def run(self, *, snapshot: bool) -> None:
        """Tell until cancelled.

        Raises:
            trio.BrokenResourceError: The client cannot be told any more.
        """
        if snapshot and self.subscriber.snapshot:
            seq = self.hub.events.last_seq
            await self._say(Snapshot(seq, await self.subscriber.snapshot()))
        while True:
            await self._tell_page()
            if self.place.after >= self.hub.events.last_seq:
                await self._rest()

    async def _tell_page(self) -> None:
        place = self.place
        frame = await self.hub.frames.batch(place.after, place.wish)
        if frame.first_seq - 1 > max(place.after, self.tolerated):
            await self._say(Gone(frame.first_seq))
            place.after = place.told = self.tolerated = frame.first_seq - 1
            return
        if frame.json:
            if place.told != place.after:  # where nothing was wanted for a while
                await self._say_place()
            await place.wire.send_all(text_frame(frame.json))
            place.spoke, place.told = trio.current_time(), frame.upto
        place.after = frame.upto

    async def _rest(self) -> None:
        """At the end of the journal: be told of what comes, with signs of life when nothing does."""
        place, bookmark_seconds = self.place, self.hub.events.config.bookmark_seconds
        if not self.caught_up:
            self.caught_up = True
            await self._say_place()
        await self.hub.rest(place, place.spoke + bookmark_seconds)
        if place.wire.full:
            await place.wire.send_all(b"")
        if trio.current_time() >= place.spoke + bookmark_seconds:
            await self._say_place()

    async def _say_place(self) -> None:
        await self._say(Bookmark(self.place.after))
        self.place.told = self.place.after

    async def _say(self, message: codec.Message) -> None:
        await self.place.wire.send_all(text_frame(codec.encode(message)))
        self.place.spoke = trio.current_time()

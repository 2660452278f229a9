"""Speaking HTTP to the daemon over its socket: one connection, one request.

The body may be sent while the answer comes in already, as a build's is; a daemon that refuses before it has read the
whole body is heard all the same.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import quote, urlencode

import attrs
import h11
import orjson
import trio

from protocol.errors import ErrorKind
from supervisor import errors
from supervisor.errors import BakehouseError, InvalidArgument, Unavailable

INSTALLED_SOCKET = "/run/bakehouse/bakehouse.sock"
RECEIVE_BYTES = 65_536
STATUS_OK_BELOW = 400
USER_AGENT = "bakehouse"

_ERRORS: Mapping[str, type[BakehouseError]] = {
    kind.kind.value: kind
    for kind in (
        errors.NotFound,
        errors.AlreadyExists,
        errors.InvalidArgument,
        errors.PermissionDenied,
        errors.Conflict,
        errors.ResourceExhausted,
        errors.Unavailable,
        errors.Cancelled,
        errors.Internal,
    )
}


def find_socket(given: str | None, environment: Mapping[str, str] | None = None) -> str:
    """Where the daemon listens: ``given``, BAKEHOUSE_SOCKET, DOCKER_HOST, or the installed place.

    Raises:
        InvalidArgument: DOCKER_HOST is no unix socket.
    """
    environment = os.environ if environment is None else environment
    named = given or environment.get("BAKEHOUSE_SOCKET")
    if named:
        return named.removeprefix("unix://")
    host = environment.get("DOCKER_HOST", "")
    if not host:
        return INSTALLED_SOCKET
    if not host.startswith("unix://"):
        raise InvalidArgument(
            f"cannot use DOCKER_HOST={host}: it is no unix socket",
            hint="name the daemon's socket by --socket PATH or BAKEHOUSE_SOCKET",
        )
    return host.removeprefix("unix://")


@attrs.frozen
class Request:
    """What is asked.

    Attributes:
        query: A key with several values is given several times.
        body: Whole, or in pieces that may block while they are made.
    """

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | Iterator[bytes] = b""
    content_type: str = "application/json"

    def target(self) -> str:
        """Path and query, as the request line has them."""
        path = quote(self.path, safe="/:@")
        return f"{path}?{urlencode(self.query)}" if self.query else path

    def head(self) -> h11.Request:
        """The request's head."""
        headers = [("Host", "bakehouse"), ("User-Agent", USER_AGENT), ("Connection", "close")]
        if isinstance(self.body, bytes):
            headers.append(("Content-Length", str(len(self.body))))
        else:
            headers.append(("Transfer-Encoding", "chunked"))
        if self.body:
            headers.append(("Content-Type", self.content_type))
        return h11.Request(method=self.method, target=self.target(), headers=headers)


@attrs.define(eq=False)
class Answer:
    """A good answer, read as it comes."""

    status: int
    _stream: trio.SocketStream
    _http: h11.Connection
    _ended: bool = False

    async def piece(self) -> bytes:
        """The next bytes of the body; nothing at its end.

        Raises:
            Unavailable: The daemon went away in the middle.
        """
        if self._ended:
            return b""
        event = await _next_event(self._stream, self._http)
        if isinstance(event, h11.Data):
            return bytes(event.data)
        self._ended = True
        return b""

    async def read(self) -> bytes:
        """All of the body."""
        body = b""
        while piece := await self.piece():
            body += piece
        return body

    async def json(self) -> object:
        """All of the body, which is JSON."""
        return _load(await self.read())

    def messages(self) -> Messages:
        """The body's JSON values, one a line, as they come."""
        return Messages(self)


@attrs.define(eq=False)
class Messages:
    """The JSON values of an answer. Nothing to close."""

    _answer: Answer
    _lines: list[bytes] = attrs.field(factory=list)
    _rest: bytes = b""

    def __aiter__(self) -> Messages:
        return self

    async def __anext__(self) -> object:
        while not self._lines:
            piece = await self._answer.piece()
            *lines, self._rest = (self._rest + (piece or b"\n")).split(b"\n")
            self._lines = [line for line in lines if line.strip()]
            if not piece and not self._lines:
                raise StopAsyncIteration
        return _load(self._lines.pop(0))


def _load(data: bytes) -> object:
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise Unavailable(f"cannot understand the daemon's answer: {error}") from error
    return value


@asynccontextmanager
async def ask(socket: str, request: Request) -> AsyncIterator[Answer]:
    """Send ``request`` and give its answer once its head is there.

    Raises:
        Unavailable: Nobody listens at ``socket``, or it went away.
        BakehouseError: The daemon refuses; of the kind it says.
    """
    async with await connect(socket) as stream, trio.open_nursery() as nursery:
        http = h11.Connection(h11.CLIENT)
        nursery.start_soon(_send, stream, http, request)
        head = await _next_event(stream, http)
        while isinstance(head, h11.InformationalResponse):
            head = await _next_event(stream, http)
        assert isinstance(head, h11.Response)
        answer = Answer(head.status_code, stream, http)
        if head.status_code >= STATUS_OK_BELOW:
            raise _refusal(head.status_code, await answer.read())
        yield answer
        nursery.cancel_scope.cancel()


async def connect(socket: str) -> trio.SocketStream:
    """A connection to the daemon.

    Raises:
        Unavailable: Nobody listens there, or not for us.
    """
    try:
        return await trio.open_unix_socket(socket)
    except PermissionError as error:
        raise errors.PermissionDenied(
            f"cannot reach the daemon at {socket}: permission denied",
            hint="ask an admin to put you into the group bakehouse, then log in again",
        ) from error
    except OSError as error:
        raise Unavailable(
            f"cannot reach the daemon at {socket}: {error.strerror or error}",
            hint="is bakehoused running? name its socket by --socket PATH or BAKEHOUSE_SOCKET",
        ) from error


async def _send(stream: trio.SocketStream, http: h11.Connection, request: Request) -> None:
    try:
        await _send_events(stream, http, request)
    except trio.BrokenResourceError:
        return  # the daemon reads no more; its answer says why


async def _send_events(stream: trio.SocketStream, http: h11.Connection, request: Request) -> None:
    async def send(event: h11.Event) -> None:
        data = http.send(event)
        if data:
            await stream.send_all(data)

    await send(request.head())
    if isinstance(request.body, bytes):
        await send(h11.Data(data=request.body))
    else:
        pieces = request.body
        while piece := await trio.to_thread.run_sync(next, pieces, b""):
            await send(h11.Data(data=piece))
    await send(h11.EndOfMessage())


async def _next_event(stream: trio.SocketStream, http: h11.Connection) -> h11.Event:
    while True:
        try:
            event = http.next_event()
            if event is h11.NEED_DATA:
                http.receive_data(await stream.receive_some(RECEIVE_BYTES))
                continue
        except (h11.RemoteProtocolError, trio.BrokenResourceError) as error:
            raise Unavailable(
                "cannot go on: the daemon went away in the middle of its answer",
                hint="try again; what it had begun goes on or was undone",
            ) from error
        assert isinstance(event, h11.Event)
        return event


def _refusal(status: int, body: bytes) -> BakehouseError:
    """The daemon's error as its kind; ``message`` carries the hint on a line of its own already."""
    try:
        table: object = orjson.loads(body)
    except orjson.JSONDecodeError:
        table = {"message": body.decode(errors="replace").strip()}
    fields = table if isinstance(table, dict) else {}
    kind = _ERRORS.get(str(fields.get("kind", ErrorKind.INTERNAL.value)), errors.Internal)
    return kind(str(fields.get("message") or f"cannot do this: the daemon answered {status}"))

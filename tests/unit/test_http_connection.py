"""HTTP/1.1 on a stream in memory: keep-alive, bodies, hijacks, and everything that must not get through."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from supervisor.api.connection import Connection
from supervisor.api.exchange import serve_exchanges, turn_away
from supervisor.api.http import ClientGoneError, Head, Response, json_line, json_response
from supervisor.api.streams import ReplayStream
from supervisor.config import ApiConfig
from supervisor.errors import NotFound, PermissionDenied

Handler = Callable[[Connection, Head], Awaitable[Response | None]]
SMALL = ApiConfig(
    header_bytes_max=8_192, head_seconds_max=5, idle_seconds_max=20, write_stall_seconds_max=10
)


class Client:
    """The other end: sends raw bytes, reads what comes."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.seen = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def until(self, mark: bytes) -> bytes:
        """Everything up to and including ``mark``."""
        while mark not in self.seen:
            data = await self.stream.receive_some(65_536)
            assert data, f"closed before {mark!r}: {self.seen!r}"
            self.seen += data
        head, _, self.seen = self.seen.partition(mark)
        return head + mark

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        while data := await self.stream.receive_some(65_536):
            self.seen += data
        got, self.seen = self.seen, b""
        return got

    async def ask(self, request: bytes) -> bytes:
        await self.send(request)
        await self.stream.send_eof()
        return await self.rest()


async def echo(connection: Connection, head: Head) -> Response:
    body = await connection.whole_body(1_000_000)
    return json_response({"path": head.path, "method": head.method, "body": body.decode()})


@asynccontextmanager
async def serving(handler: Handler = echo, config: ApiConfig = SMALL) -> AsyncIterator[Client]:
    ours, theirs = trio.testing.memory_stream_pair()

    async def serve() -> None:
        await serve_exchanges(Connection(ours, config, (("Server", "test"),)), handler)
        await ours.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        yield Client(theirs)
        await theirs.aclose()


async def test_keep_alive_serves_one_request_after_the_other() -> None:
    async with serving() as client:
        for number in range(3):
            await client.send(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number)
            assert b"200 OK" in await client.until(b"\r\n\r\n")
            assert b'"/%d"' % number in await client.until(b"}\n")


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as client:
        got = await client.ask(
            b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(5))
        )
    places = [got.index(b'"/%d"' % n) for n in range(5)]
    assert places == sorted(places)


async def test_chunked_body_is_streamed_to_the_handler_before_it_ends() -> None:
    pieces: list[bytes] = []
    came = trio.Event()

    async def handler(connection: Connection, _: Head) -> Response:
        async for piece in connection.body():
            pieces.append(piece)
            came.set()
        return json_response(len(pieces))

    async with serving(handler) as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        await came.wait()
        assert pieces == [b"abc"]
        await client.send(b"2\r\nde\r\n0\r\n\r\n")
        await client.until(b"2\n")
    assert b"".join(pieces) == b"abcde"


async def test_expect_100_continue_is_answered_when_the_body_is_wanted() -> None:
    async with serving() as client:
        await client.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        )
        assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hi")
        assert b'"hi"' in await client.until(b"}\n")


async def test_a_refused_upload_is_answered_without_reading_it_and_closes() -> None:
    async def handler(_c: Connection, _h: Head) -> Response:
        raise NotFound("cannot find it")

    async with serving(handler) as client:
        await client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\nabc")
        got = await client.until(b"}\n")
        assert got.startswith(b"HTTP/1.1 404")
        assert b"Connection: close" in got
        await client.send(
            b"x" * 100_000
        )  # still read, thrown away: the client is not reset before it has read


async def test_head_has_no_body() -> None:
    async with serving() as client:
        got = await client.ask(b"HEAD /x HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 200")
    assert got.endswith(b"\r\n\r\n")
    assert b"Content-Length: 40" in got


async def test_a_stream_arrives_piece_by_piece() -> None:
    go_on = trio.Event()

    async def handler(connection: Connection, _: Head) -> None:
        answer = connection.streamed("text/plain")
        await answer.send(b"one\n")
        await go_on.wait()
        await answer.send(b"two\n")
        await answer.finish()

    async with serving(handler) as client:
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"chunked" in await client.until(b"one\n")
        go_on.set()
        await client.until(b"0\r\n\r\n")
        await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")  # and the connection goes on
        await client.until(b"0\r\n\r\n")


async def test_a_stream_that_fails_midway_ends_without_its_last_chunk() -> None:
    async def handler(connection: Connection, _: Head) -> None:
        answer = connection.streamed("text/plain")
        await answer.send(b"one\n")
        raise NotFound("gone")

    async with serving(handler) as client:
        got = await client.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got.count(b"HTTP/1.1") == 1
    assert b"0\r\n\r\n" not in got


@pytest.mark.parametrize("upgrade", [True, False])
async def test_hijack_hands_on_early_bytes_and_half_close(upgrade: bool) -> None:
    async def handler(connection: Connection, _: Head) -> None:
        await connection.whole_body(100)
        stream = await connection.hijack()
        got = b""
        while data := await stream.receive_some():
            got += data
        await stream.send_all(b"got:" + got)
        await stream.send_eof()

    fields = b"Connection: Upgrade\r\nUpgrade: tcp\r\n" if upgrade else b""
    async with serving(handler) as client:
        await client.send(
            b"POST /attach HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
            + fields
            + b"\r\n{}GET /early HTTP/1.1\r\n\r\n"
        )
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 UPGRADED\r\n" if upgrade else b"HTTP/1.1 200 OK\r\n")
        assert (b"Upgrade: tcp" in head) is upgrade
        assert b"chunked" not in head
        assert b"application/vnd.docker.raw-stream" in head
        await client.send(b" late")
        await client.stream.send_eof()
        assert await client.rest() == b"got:GET /early HTTP/1.1\r\n\r\n late"


async def test_a_refused_upgrade_leaves_plain_http() -> None:
    async with serving() as client:
        ask = b"POST /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        got = await client.ask(ask + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got.count(b"HTTP/1.1 200 OK") == 2


async def test_replay_shows_the_head_again_and_holds_the_rest_back() -> None:
    seen: list[bytes] = []

    async def handler(connection: Connection, head: Head) -> None:
        stream = ReplayStream(connection.take_over(), head.raw)
        seen.append(bytes(await stream.receive_some()))
        with trio.move_on_after(1):
            seen.append(bytes(await stream.receive_some()))
        stream.release()
        seen.append(bytes(await stream.receive_some()))

    request = b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    async with serving(handler) as client:
        await client.send(request + b"frames")
        await client.rest()
    assert seen == [request, b"frames"]


async def test_client_that_leaves_cancels_a_handler_that_asked_for_it() -> None:
    ended: list[str] = []

    async def handler(connection: Connection, _: Head) -> None:
        await connection.whole_body(100)
        try:
            async with connection.while_client_stays():
                await trio.sleep_forever()
        finally:
            ended.append("cancelled")

    async with serving(handler) as client:
        await client.send(b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
        await trio.testing.wait_all_tasks_blocked()
        assert not ended
        await client.stream.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert ended == ["cancelled"]


async def test_client_that_stays_keeps_what_it_pipelined() -> None:
    async def handler(connection: Connection, head: Head) -> Response:
        async with connection.while_client_stays():
            await trio.testing.wait_all_tasks_blocked()
        return json_response(head.path)

    async with serving(handler) as client:
        await client.send(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.send(b"GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
        await client.until(b'"/a"')
        await client.until(b'"/b"')


async def test_body_that_breaks_off_is_a_client_gone() -> None:
    seen: list[BaseException] = []

    async def handler(connection: Connection, _: Head) -> Response:
        try:
            await connection.whole_body(100)
        except ClientGoneError as gone:
            seen.append(gone)
            raise
        return json_response("")

    async with serving(handler) as client:
        assert (
            await client.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc") == b""
        )
    assert len(seen) == 1


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET http://elsewhere/ HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /%ff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /?a=%00 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\x01 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n folded\r\nC: \x00\r\n\r\n", 400),
        (b"\x16\x03\x01 a TLS hello\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 5_000 + b"\r\n", 431),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n", 431),
    ],
)
async def test_what_can_be_read_in_two_ways_is_refused(request_bytes: bytes, status: int) -> None:
    async with serving() as client:
        got = await client.ask(request_bytes)
    assert got.startswith(b"HTTP/1.1 %d " % status), got
    assert got.count(b"Server: test") == 1
    assert b'{"message":' in got


async def test_length_zero_with_a_body_is_no_body() -> None:
    """What follows is the next request, and this one is none."""
    async with serving() as client:
        got = await client.ask(
            b'POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n{"Privileged": true}\r\n\r\n'
        )
    assert b'"body":""' in got
    assert got.count(b"HTTP/1.1 400") == 1


async def test_a_stranger_is_told_why_on_the_first_request() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(
            turn_away, Connection(ours, SMALL), PermissionDenied("cannot let you in", "ask")
        )
        client = Client(theirs)
        await client.send(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        got = await client.until(b"}\n")
        await theirs.aclose()
    assert got.startswith(b"HTTP/1.1 403")
    assert b"hint: ask" in got


async def test_a_bug_is_told_as_such_and_let_through() -> None:
    async def handler(_c: Connection, _h: Head) -> Response:
        raise ZeroDivisionError

    got = b""
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012  # the server fails while its client reads
        async with serving(handler) as client:
            await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            got = await client.until(b"}\n")
            await client.stream.aclose()
    assert got.startswith(b"HTTP/1.1 500")
    assert caught.group_contains(ZeroDivisionError)


async def test_expected_failures_inside_a_handlers_nursery_are_told() -> None:
    async def fail() -> None:
        raise NotFound("No such container: web")

    async def handler(_c: Connection, _h: Head) -> Response:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail)
        return json_response("")

    async with serving(handler) as client:
        got = await client.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 404")
    assert json_line({"message": "No such container: web", "kind": "not found"}) in got


async def test_slow_head_is_refused_and_idle_connection_closed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with serving() as client:
        await client.send(b"GET / HT")
        assert (await client.rest()).startswith(b"HTTP/1.1 408")
    async with serving() as client:
        assert await client.rest() == b""
        assert trio.current_time() >= 20


async def test_a_reader_who_stalls_is_let_go(autojump_clock: trio.testing.MockClock) -> None:
    ours, theirs = trio.testing.lockstep_stream_pair()
    ended: list[type[BaseException]] = []

    async def handler(connection: Connection, _: Head) -> None:
        answer = connection.streamed("text/plain")
        try:
            await answer.send(b"never read")
        except ClientGoneError as gone:
            ended.append(type(gone))
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_exchanges, Connection(ours, SMALL), handler)
        await theirs.send_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert ended == [ClientGoneError]
    assert trio.current_time() >= 10

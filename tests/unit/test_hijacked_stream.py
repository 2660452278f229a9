"""A hijacked connection: who has left, and who only says no more."""

from __future__ import annotations

import socket

import pytest
import trio

from supervisor.api.streams import HijackedStream, while_client_stays


async def pair() -> tuple[HijackedStream, trio.SocketStream]:
    ours, theirs = socket.socketpair()
    streams = [trio.SocketStream(trio.socket.from_stdlib_socket(one)) for one in (ours, theirs)]
    return HijackedStream(streams[0], b"", 1.0), streams[1]


async def test_a_client_that_says_no_more_stays() -> None:
    stream, client = await pair()
    async with stream, client:
        await client.send_eof()
        with trio.move_on_after(0.05) as waiting:
            await stream.hung_up()
        assert waiting.cancelled_caught


@pytest.mark.parametrize("half_closed_before", [False, True])
async def test_a_client_that_left_is_seen_without_reading(
    half_closed_before: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("supervisor.api.streams.FAREWELL_SECONDS", 0)
    stream, client = await pair()
    async with stream:
        await client.send_all(b"unread")
        if half_closed_before:
            await client.send_eof()
        with trio.fail_after(20):
            async with while_client_stays(stream) as left:
                await client.aclose()
                await trio.sleep(10)
        assert left.is_set()


async def test_work_that_is_done_ends_the_watch() -> None:
    stream, client = await pair()
    async with stream, client, while_client_stays(stream) as left:
        await client.send_all(b"x")
    assert not left.is_set()

"""The stream, over a real socket with the real client: order, cursors, visibility, slow readers, samples."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from protocol.client import Stream, StreamLostError, StreamRefusedError, open_follower, open_stream
from protocol.codec import structure
from protocol.events import ContainerStart
from protocol.ids import Cursor
from protocol.messages import Batch, Bookmark, Gone, Hello, Sample, Snapshot, Want, Welcome
from protocol.samples import HostSample, OwnerSample, Usage
from supervisor.api.native.hub import Hub, open_hub
from supervisor.api.native.stream import Subscriber, serve_stream
from supervisor.api.streams import ReplayStream
from supervisor.cli.follow import EventsWanted, show_events
from supervisor.config import JournalConfig
from supervisor.database.database import open_database
from supervisor.errors import InvalidArgument
from supervisor.events.journal import Events, open_events

ALICE, BOB = 1000, 1001
CONFIG = JournalConfig(bookmark_seconds=0.05, page_events_max=10, recent_events_max=20)


@attrs.define
class Host:
    """A journal served at a socket; whoever connects is ``subscriber``."""

    events: Events
    hub: Hub
    path: str
    subscriber: Subscriber = Subscriber(visible_to=None)  # noqa: RUF009

    async def serve(self, stream: trio.SocketStream) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += await stream.receive_some(65_536)
        replay = ReplayStream(stream, head)
        await serve_stream(replay, stream.socket.fileno(), self.subscriber, self.hub)

    async def start(self, owner: int, count: int = 1) -> None:
        def record(connection: sqlite3.Connection) -> None:
            for _ in range(count):
                self.events.record(connection, ContainerStart(pid=1), owner=owner, subject="c" * 64)

        await self.events.database.write(record)


@asynccontextmanager
async def opened(folder: Path, config: JournalConfig = CONFIG) -> AsyncIterator[Host]:
    async with open_database(folder / "database.sqlite") as database:
        async with (
            open_events(database, config) as events,
            open_hub(events) as hub,
            trio.open_nursery() as nursery,
        ):
            path = str(folder / "socket")
            listening = trio.socket.socket(trio.socket.AF_UNIX)
            await listening.bind(path)
            listening.listen(600)
            host = Host(events, hub, path)
            nursery.start_soon(trio.serve_listeners, host.serve, [trio.SocketListener(listening)])
            yield host
            nursery.cancel_scope.cancel()
    Path(path).unlink()


async def until(stream: Stream, seq: int) -> list[int]:
    """The seqs told until ``seq`` is accounted for; every step must follow the one before."""
    seen: list[int] = []
    told: int | None = None
    async for message in stream:
        if isinstance(message, Batch):
            assert told is None or message.after == told
            assert all(message.after < event.seq <= message.upto for event in message.events)
            seen += [event.seq for event in message.events]
        if isinstance(message, Batch | Bookmark | Gone):
            told = message.first_seq - 1 if isinstance(message, Gone) else message.upto
            if told >= seq:
                return seen
    raise AssertionError


async def test_everything_in_order_from_the_oldest(tmp_path: Path) -> None:
    async with opened(tmp_path) as host:
        await host.start(ALICE, 95)
        async with open_stream(host.path, from_="oldest") as stream:
            assert (stream.welcome.first_seq, stream.welcome.last_seq) == (1, 95)
            assert await until(stream, 95) == list(range(1, 96))
            await host.start(BOB, 5)
            assert await until(stream, 100) == list(range(96, 101))
            assert stream.cursor == Cursor(host.events.epoch, 100)


async def test_owners_see_their_own_and_all_is_accounted_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as host:
        host.subscriber = Subscriber(visible_to=ALICE)
        for index in range(60):
            await host.start(ALICE if index % 3 == 0 else BOB)
        async with open_stream(host.path, from_="oldest") as stream:
            assert await until(stream, 60) == list(range(1, 61, 3))
            await host.start(BOB, 30)
            await host.start(ALICE)
            assert await until(stream, 91) == [91]
        async with open_stream(host.path, from_="oldest", want=Want(types=("image.*",))) as stream:
            assert await until(stream, 91) == []


async def test_from_a_cursor_and_from_now(tmp_path: Path) -> None:
    async with opened(tmp_path) as host:
        await host.start(ALICE, 30)
        async with open_stream(host.path, from_=f"{host.events.epoch}:25") as stream:
            assert await until(stream, 30) == [26, 27, 28, 29, 30]
        async with open_stream(host.path) as stream:
            await host.start(ALICE)
            assert await until(stream, 31) == [31]


async def test_a_forgotten_place_is_told(tmp_path: Path) -> None:
    config = attrs.evolve(CONFIG, events_per_owner_max=50)
    async with opened(tmp_path, config) as host:
        await host.start(ALICE, 200)
        first = host.events.first_seq(ALICE)
        assert 150 <= first <= 152
        async with open_stream(host.path, from_=f"{host.events.epoch}:7") as stream:
            assert await anext(stream) == Gone(first)
            assert await until(stream, 200) == list(range(first, 201))
        async with open_stream(host.path, from_="0" * 32 + ":3") as stream:
            assert await anext(stream) == Gone(first)
            assert await until(stream, 200) == list(range(first, 201))
        async with open_stream(host.path, from_="oldest") as stream:
            assert await until(stream, 200) == list(range(first, 201))


@pytest.mark.parametrize("start", ["yesterday", "0" * 32, "{epoch}:99", "{epoch}:-1"])
async def test_a_senseless_start_is_refused(tmp_path: Path, start: str) -> None:
    async with opened(tmp_path) as host:
        with pytest.raises(StreamRefusedError, match="cannot open the stream"):
            async with open_stream(host.path, from_=start.format(epoch=host.events.epoch)):
                pass


async def test_quiet_streams_give_signs_of_life(tmp_path: Path) -> None:
    async with opened(tmp_path) as host:
        await host.start(ALICE)
        async with open_stream(host.path) as stream:
            with trio.fail_after(20):
                assert [await anext(stream) for _ in range(3)] == [Bookmark(1)] * 3


async def test_a_reader_that_stops_holds_up_nobody_and_loses_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as host:
        async with open_stream(host.path) as slow, open_stream(host.path) as quick:
            for _ in range(30):
                await host.start(ALICE, 100)
            with trio.fail_after(20):
                assert await until(quick, 3_000) == list(range(1, 3_001))
            assert await until(slow, 3_000) == list(range(1, 3_001))


async def test_many_readers_cost_one_encoding(tmp_path: Path) -> None:
    async with opened(tmp_path, attrs.evolve(CONFIG, bookmark_seconds=60)) as host:
        async with trio.open_nursery() as nursery:
            ready: list[Stream] = []

            async def read() -> None:
                async with open_stream(host.path) as stream:
                    ready.append(stream)
                    assert await until(stream, 0) == []
                    assert await until(stream, 5) == [1, 2, 3, 4, 5]

            for _ in range(20):
                nursery.start_soon(read)
            while len(ready) < 20:
                await trio.sleep(0.01)
            await trio.sleep(0.1)
            made = host.hub.frames.made
            await host.start(ALICE, 5)
        assert host.hub.frames.made - made == 1


@attrs.frozen
class Looked:
    """What a monitor yields."""

    sample: HostSample
    skipped: int = 0


async def test_samples_and_a_snapshot_on_request(tmp_path: Path) -> None:
    owners = tuple(OwnerSample(uid, 1, Usage()) for uid in (ALICE, BOB))
    host_sample = HostSample(1, 1.0, 2, 0.5, 0.0, 0.0, 0.0, 100, 50, owners=owners)

    async def samples() -> AsyncGenerator[Looked, None]:
        for number in range(3):
            yield Looked(host_sample, skipped=number)
            await trio.sleep(0.02)
        await trio.sleep_forever()

    async def snapshot() -> dict[str, object]:
        await trio.lowlevel.checkpoint()
        return {"containers": [{"id": "c" * 64}]}

    async with opened(tmp_path) as host:
        host.subscriber = Subscriber(ALICE, samples, snapshot)
        async with open_stream(host.path, samples=True, snapshot=True) as stream:
            messages = [await anext(stream) for _ in range(6)]
        assert Snapshot(0, {"containers": [{"id": "c" * 64}]}) in messages
        told = [message for message in messages if isinstance(message, Sample)]
        assert [message.skipped for message in told] == [0, 1, 2]
        seen = [structure(message.sample, HostSample) for message in told]
        assert seen == [host_sample.visible_to(ALICE)] * 3
        assert [owner.owner for owner in seen[0].owners] == [ALICE]


async def test_a_follower_comes_back_by_its_cursor(tmp_path: Path) -> None:
    seen: list[int] = []
    welcomes = 0
    async with trio.open_nursery() as nursery:

        async def follow() -> None:
            nonlocal welcomes
            hello = Hello(from_="oldest")
            async with open_follower(str(tmp_path / "socket"), hello) as messages:
                async for message in messages:
                    welcomes += isinstance(message, Welcome)
                    if isinstance(message, Batch):
                        seen.extend(event.seq for event in message.events)

        async with opened(tmp_path) as host:
            await host.start(ALICE, 40)
            nursery.start_soon(follow)
            while len(seen) < 40:
                await trio.sleep(0.01)
        async with opened(tmp_path) as host:
            await host.start(ALICE, 40)
            while len(seen) < 80:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    assert seen == list(range(1, 81))
    assert welcomes == 2


async def test_the_client_hears_of_a_lost_server(tmp_path: Path) -> None:
    with pytest.raises(StreamLostError):
        async with open_stream(str(tmp_path / "nobody")):
            pass


async def test_a_client_that_leaves_ends_its_session(tmp_path: Path) -> None:
    async with opened(tmp_path) as host:
        await trio.sleep(0.1)
        before = trio.lowlevel.current_statistics().tasks_living
        for _ in range(3):
            async with open_stream(host.path):
                pass
        with trio.fail_after(20):
            while trio.lowlevel.current_statistics().tasks_living > before:
                await trio.sleep(0.01)


async def test_garbage_instead_of_a_hello(tmp_path: Path) -> None:
    async with opened(tmp_path) as host:
        stream = await trio.open_unix_socket(host.path)
        await stream.send_all(b"GET /bakehouse/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        with trio.fail_after(15):
            answer = bytes(await stream.receive_some())
        assert answer.startswith(b"HTTP/1.1 4")
        await stream.aclose()


async def test_the_command_prints_a_line_for_each_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with opened(tmp_path) as host:
        await host.start(ALICE, 25)
        with trio.fail_after(20):
            await show_events(host.path, EventsWanted("oldest", False, True, Want()))
            lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
            assert [line["seq"] for line in lines] == list(range(1, 26))
            assert lines[0]["type"] == "container.start"
            await show_events(host.path, EventsWanted("now", False, True, Want()))
            await show_events(host.path, EventsWanted("oldest", False, False, Want(types=("x",))))
            assert not capsys.readouterr().out
            await show_events(host.path, EventsWanted(lines[23]["id"], False, False, Want()))
            assert "container.start" in capsys.readouterr().out
        with pytest.raises(InvalidArgument, match="no cursor"):
            await show_events(host.path, EventsWanted("yesterday", False, False, Want()))


async def test_the_command_follows_across_a_restart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seqs: list[int] = []

    async def printed(count: int) -> None:
        with trio.fail_after(20):
            while len(seqs) < count:
                await trio.sleep(0.01)
                seqs.extend(
                    json.loads(line)["seq"] for line in capsys.readouterr().out.splitlines()
                )

    async with trio.open_nursery() as nursery:
        for start in (0, 30):
            async with opened(tmp_path) as host:
                if not start:
                    wanted = EventsWanted("oldest", True, True, Want())
                    nursery.start_soon(show_events, host.path, wanted)
                await host.start(ALICE, 30)
                await printed(start + 30)
        nursery.cancel_scope.cancel()
    assert seqs == list(range(1, 61))

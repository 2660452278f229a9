"""The journal: order, pages, visibility, retention, waking, and Docker's way to follow."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
import trio

from protocol.events import ContainerDie, ContainerStart, DaemonStart, ExecStart, ImageTag
from protocol.messages import Want
from supervisor import clock
from supervisor.config import JournalConfig
from supervisor.database.database import open_database
from supervisor.errors import InvalidArgument
from supervisor.events.follow import Span, follow
from supervisor.events.journal import Events, open_events
from supervisor.events.retention import older_than

ALICE, BOB = 1000, 1001
SMALL = JournalConfig(page_events_max=7, recent_events_max=10)


@asynccontextmanager
async def opened(folder: Path, config: JournalConfig = SMALL) -> AsyncIterator[Events]:
    async with open_database(folder / "d") as database, open_events(database, config) as events:
        yield events


def starts(
    events: Events, owner: int, count: int, subject: str = "c"
) -> Callable[[sqlite3.Connection], None]:
    def unit(connection: sqlite3.Connection) -> None:
        for _ in range(count):
            events.record(connection, ContainerStart(pid=1), owner=owner, subject=subject)

    return unit


async def read(
    events: Events, visible_to: int | None, after: int = 0, want: Want | None = None
) -> list[int]:
    """Page by page to the end; each page must account for something."""
    seen: list[int] = []
    while True:
        page = await events.page(after, visible_to=visible_to, want=want or Want())
        assert len(page.events) <= events.config.page_events_max
        seen += [event.seq for event in page.events]
        if page.upto == after:
            return seen
        assert page.upto > after
        after = page.upto


async def test_the_fact_and_its_event_are_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as events:
        assert (
            await events.emit(
                ContainerStart(pid=7), owner=ALICE, subject="c", attributes={"name": "web"}
            )
            == 1
        )

        def fails(connection: sqlite3.Connection) -> None:
            events.record(connection, ContainerStart(), owner=ALICE, subject="c")
            raise LookupError

        with pytest.raises(LookupError):
            await events.database.write(fails)
        assert events.last_seq == 1
        assert await events.emit(ContainerDie(0), owner=ALICE, subject="c") == 2
        first, second = (await events.page(0, visible_to=ALICE)).events
    assert (first.data, first.actor.attributes, first.owner) == (
        ContainerStart(7),
        {"name": "web"},
        ALICE,
    )
    assert (second.seq, second.id) == (2, f"{events.epoch}:2")
    assert first.time_ns <= second.time_ns


@pytest.mark.parametrize("reopen", [False, True], ids=["recent", "kept"])
async def test_pages_by_visibility_and_wish(tmp_path: Path, reopen: bool) -> None:
    async with opened(tmp_path) as events:
        for number in range(40):
            await events.database.write(
                starts(events, ALICE if number % 4 else BOB, 1, f"c{number}")
            )
        if not reopen:
            await check_pages(events)
    if reopen:
        async with opened(tmp_path) as events:
            await check_pages(events)


async def check_pages(events: Events) -> None:
    assert await read(events, None) == list(range(1, 41))
    assert await read(events, BOB) == list(range(1, 41, 4))
    assert await read(events, 4711) == []
    assert await read(events, None, 35) == [36, 37, 38, 39, 40]
    assert await read(events, None, 0, Want(owners=(BOB,))) == list(range(1, 41, 4))
    assert await read(events, ALICE, 0, Want(subjects=("c6", "c8"))) == [7]
    assert await read(events, None, 0, Want(types=("image.*",))) == []


async def test_everything_recorded_while_reading_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as events, trio.open_nursery() as nursery:
        seen: list[int] = []

        async def reader() -> None:
            after = 0
            while after < 300:
                await events.wait_beyond(after)
                page = await events.page(after, visible_to=None)
                seen.extend(event.seq for event in page.events)
                after = page.upto

        nursery.start_soon(reader)
        async with trio.open_nursery() as writers:
            for _ in range(60):
                writers.start_soon(events.database.write, starts(events, ALICE, 5))
    assert seen == list(range(1, 301))


async def test_one_persons_noise_pushes_out_nobody_elses_history(tmp_path: Path) -> None:
    config = JournalConfig(events_per_owner_max=20, recent_events_max=5)
    async with opened(tmp_path, config) as events:
        await events.database.write(starts(events, BOB, 3))
        for _ in range(50):
            await events.database.write(starts(events, ALICE, 2))
        assert events.first_seq(BOB) == 1
        assert await read(events, BOB) == [1, 2, 3]
        assert await read(events, ALICE) == list(range(84, 104))
        assert events.first_seq(ALICE) == events.first_seq(None) == 84
        page = await events.page(50, visible_to=ALICE)
        assert page.first_seq == 84


async def test_bytes_and_age_are_bounded_too(tmp_path: Path) -> None:
    async with opened(tmp_path, JournalConfig(bytes_per_owner_max=10_000)) as events:
        for _ in range(30):
            await events.emit(ImageTag("x" * 1_000), owner=ALICE, subject="i")
        assert 5 <= len(await read(events, ALICE)) < 10
        assert not await events.database.write(older_than(clock.now_ns() + 1))
        assert await read(events, ALICE, events.first_seq(ALICE) - 1) in ([], [30])
        assert events.first_seq(ALICE) == 31
        await events.emit(ContainerStart(), owner=ALICE, subject="c")
        assert events.last_seq == 31
        share = await events.database.read(
            lambda connection: connection.execute("SELECT events FROM event_share").fetchone()[0]
        )
        assert share == 1


async def test_the_newest_is_kept_whatever_its_size(tmp_path: Path) -> None:
    async with opened(tmp_path, JournalConfig(bytes_per_owner_max=10)) as events:
        await events.emit(ImageTag("x" * 100), owner=ALICE, subject="i")
        await events.emit(ImageTag("y" * 100), owner=ALICE, subject="i")
        assert await read(events, ALICE, 1) == [2]


async def test_docker_follows_from_a_time_through_filters(tmp_path: Path) -> None:
    async with opened(tmp_path) as events:
        await events.emit(DaemonStart(), owner=0, subject="daemon")
        await events.emit(
            ContainerStart(), owner=ALICE, subject="a" * 64, attributes={"name": "old"}
        )
        since = clock.now_ns()
        web = {"name": "web", "image": "site:1", "tier": "front"}
        await events.emit(ContainerStart(), owner=ALICE, subject="b" * 64, attributes=web)
        await events.emit(ExecStart("e", "ls"), owner=ALICE, subject="b" * 64, attributes=web)
        await events.emit(
            ImageTag("site:2"), owner=BOB, subject="sha256:i", attributes={"name": "site:2"}
        )

        async def told(
            since_ns: int = 0, visible_to: int | None = None, **filters: list[str]
        ) -> list[int]:
            span = Span(since_ns, clock.now_ns())
            async with aclosing(
                follow(events, visible_to=visible_to, span=span, filters=filters)
            ) as found:
                return [event.seq async for event in found]

        assert await told() == [2, 3, 4, 5]
        assert await told(since) == [3, 4, 5]
        assert await told(visible_to=BOB) == [5]
        assert await told(container=["web"]) == await told(container=["b" * 12]) == [3, 4]
        assert await told(event=["exec_start"]) == [4]
        assert await told(type=["image"]) == [5]
        assert await told(image=["site"]) == [3, 4, 5]
        assert await told(label=["tier=front"], event=["start"]) == [3]
        assert await told(label=["tier=back"]) == []
        with pytest.raises(InvalidArgument, match="invalid filter 'colour'"):
            await told(colour=["red"])


async def test_docker_follows_what_is_still_to_come(tmp_path: Path) -> None:
    async with opened(tmp_path) as events, trio.open_nursery() as nursery:
        await events.emit(ContainerStart(), owner=ALICE, subject="past")
        seen: list[str] = []

        async def reader() -> None:
            span = Span(None, clock.now_ns() + 200_000_000)
            async with aclosing(follow(events, visible_to=ALICE, span=span, filters={})) as found:
                seen.extend([event.subject async for event in found])

        nursery.start_soon(reader)
        await trio.sleep(0.02)
        await events.emit(ContainerStart(), owner=ALICE, subject="now")
    assert seen == ["now"]

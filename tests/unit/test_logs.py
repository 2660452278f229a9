"""Reading logs: whole, from the end, following, across rotations."""

from __future__ import annotations

from pathlib import Path

import trio

from supervisor.runtime.logs import LogEntry, LogQuery, parse, read_log

FILES_MAX = 3


def line(number: int, stream: str = "stdout", flag: str = "F") -> str:
    return f"2026-01-02T03:04:{number:02d}.000000001+00:00 {stream} {flag} line {number}\n"


async def read(log: Path, query: LogQuery, *, ended: bool = True) -> list[LogEntry]:
    return [
        entry async for some in read_log(log, FILES_MAX, query, lambda: ended) for entry in some
    ]


def test_a_part_of_a_line_has_no_newline_and_an_empty_line_is_a_line() -> None:
    assert parse(b"t stdout P ab") == LogEntry(1, b"t", b"ab")
    assert parse(b"t stderr F ") == LogEntry(2, b"t", b"\n")
    assert parse(b"rubbish") is None


async def test_all_files_are_read_from_the_oldest(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number, name in enumerate(["log.2", "log.1", "log"]):
        (tmp_path / name).write_text(line(number))
    assert [entry.data for entry in await read(log, LogQuery())] == [
        b"line 0\n",
        b"line 1\n",
        b"line 2\n",
    ]


async def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert await read(tmp_path / "log", LogQuery(tail=5)) == []


async def test_tail_counts_lines_and_not_their_parts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(line(1) + line(2, flag="P") + line(3, flag="P") + line(4) + line(5))
    tail = await read(log, LogQuery(tail=2))
    assert b"".join(entry.data for entry in tail) == b"line 2line 3line 4\nline 5\n"
    assert await read(log, LogQuery(tail=0)) == []


async def test_streams_and_times_are_chosen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(line(n, "stderr" if n % 2 else "stdout") for n in range(6)))
    chosen = await read(log, LogQuery(stdout=False))
    assert [entry.data for entry in chosen] == [b"line 1\n", b"line 3\n", b"line 5\n"]
    since = chosen[1].time_ns
    assert [e.data for e in await read(log, LogQuery(since_ns=since, until_ns=since))] == [
        b"line 3\n"
    ]


async def test_following_sees_what_is_written_and_a_rotation_takes_nothing_away(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    log = tmp_path / "log"
    log.write_text(line(0))
    over = trio.Event()
    seen: list[bytes] = []
    done = trio.Event()

    async def follow() -> None:
        async for some in read_log(log, FILES_MAX, LogQuery(follow=True), over.is_set):
            seen.extend(entry.data for entry in some)
        done.set()

    async def until(count: int) -> None:
        with trio.fail_after(5):
            while len(seen) < count:
                await trio.sleep(0.01)

    nursery.start_soon(follow)
    await until(1)
    with log.open("a") as file:
        file.write(line(1))
        file.flush()
        log.replace(tmp_path / "log.1")
        file.write(line(2))
    log.write_text(line(3))
    await until(4)
    over.set()
    with trio.fail_after(5):
        await done.wait()
    assert seen == [b"line 0\n", b"line 1\n", b"line 2\n", b"line 3\n"]

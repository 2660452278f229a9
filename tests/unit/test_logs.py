"""Reading logs: whole, from the end, following, across rotations."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path

import trio

from protocol.times import parse_time
from supervisor.runtime import log_files
from supervisor.runtime.log_files import rotated, tend
from supervisor.runtime.log_settings import LogSettings
from supervisor.runtime.logs import LogEntry, LogQuery, entries_of, read_log, utc

SETTINGS = LogSettings("json-file", bytes_max=10_000, files_max=3)


def line(number: int, stream: str = "stdout", flag: str = "F") -> str:
    return f"2026-01-02T03:04:{number % 60:02d}.000000001+00:00 {stream} {flag} line {number}\n"


def joined(entries: Sequence[LogEntry]) -> bytes:
    return b"".join(data for _, _, data in entries)


async def read(log: Path, query: LogQuery, settings: LogSettings = SETTINGS) -> bytes:
    pages = read_log(log, settings, query, lambda: True, joined)
    return b"".join([page async for page in pages])


def told(*numbers: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in numbers)


def test_a_part_of_a_line_has_no_newline_and_an_empty_line_is_a_line() -> None:
    lines = [b"t stdout P ab", b"t stderr F ", b"rubbish", b"t other F x"]
    assert entries_of(lines) == [(1, b"t", b"ab"), (2, b"t", b"\n")]


def test_times_are_told_in_utc_whatever_the_host_wrote() -> None:
    for text in (b"2026-01-02T03:04:05.000000001+00:00", b"2026-01-02T05:04:05.000000001+02:00"):
        assert utc(text) == b"2026-01-02T03:04:05.000000001Z"


async def test_all_files_are_read_from_the_oldest(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for number, name in enumerate(["log.9", "log.10", "log"]):
        (tmp_path / name).write_text(line(number))
    (tmp_path / "log.8.gz").write_bytes(gzip.compress(line(7).encode()))
    (tmp_path / "log.8.gz.part").write_text("rubbish")
    assert await read(log, LogQuery()) == told(7, 0, 1, 2)
    assert await read(log, LogQuery(tail=3)) == told(0, 1, 2)
    assert await read(log, LogQuery(tail=4)) == told(7, 0, 1, 2)


async def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert await read(tmp_path / "log", LogQuery(tail=5)) == b""
    assert await read(tmp_path / "log", LogQuery()) == b""


async def test_tail_counts_lines_and_not_their_parts(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(line(1) + line(2, flag="P") + line(3, flag="P") + line(4) + line(5))
    assert await read(log, LogQuery(tail=2)) == b"line 2line 3line 4\nline 5\n"
    assert await read(log, LogQuery(tail=0)) == b""
    with log.open("a") as file:
        file.write(line(6, flag="P") + "2026-01-02T03:04:06.0000")  # being written just now
    assert await read(log, LogQuery(tail=2)) == b"line 5\nline 6"


async def test_of_a_long_log_only_the_end_is_read_for_its_tail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(map(line, range(50_000))))
    reader = log_files.LogReader(log, 10**9)
    blocks = reader.backward()
    newest = next(blocks)
    assert newest[0].endswith(b"line 49999")
    assert len(newest) < 10_000
    blocks.close()
    reader.close()
    whole = LogSettings("json-file", 10**8, 1)
    assert await read(log, LogQuery(tail=30_000), whole) == told(*range(20_000, 50_000))
    assert await read(log, LogQuery(), whole) == told(*range(50_000))


async def test_streams_and_times_are_chosen(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(line(n, "stderr" if n % 2 else "stdout") for n in range(6)))
    assert await read(log, LogQuery(stdout=False)) == told(1, 3, 5)
    since = parse_time("2026-01-02T03:04:03.000000001Z")
    assert await read(log, LogQuery(since_ns=since, until_ns=since)) == told(3)
    assert await read(log, LogQuery(since_ns=since + 1)) == told(4, 5)
    log.write_text(log.read_text().replace("+00:00", "+01:00"))
    hour_ns = 3_600 * 10**9
    assert await read(log, LogQuery(until_ns=since - hour_ns)) == told(0, 1, 2, 3)


def test_a_log_is_held_to_its_bounds(tmp_path: Path) -> None:
    log = tmp_path / "log"
    packed = LogSettings("json-file", bytes_max=100, files_max=3, compressed=True)
    for number in range(6):
        assert not tend(log, packed, written=True) or number
        log.write_text(line(number) * 3)
        assert tend(log, packed, written=True)
        assert tend(log, packed, written=True), "conmon is told again until it has opened it"
    log.write_text(line(6))
    assert not tend(log, packed, written=True)
    assert [path.name for path in rotated(log).values()] == ["log.5.gz", "log.6.gz"]
    log.unlink()
    assert not tend(log, packed, written=False)


async def test_more_than_its_bounds_is_not_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(map(line, range(50))))
    size = len(line(10))
    bound = LogSettings("json-file", bytes_max=5 * size + 3, files_max=2)
    assert await read(log, LogQuery(), bound) == told(*range(40, 50))


async def test_following_sees_what_is_written_and_rotations_take_nothing_away(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    log = tmp_path / "log"
    log.write_text(line(0))
    over, done = trio.Event(), trio.Event()
    seen: list[bytes] = []

    async def follow() -> None:
        pages = read_log(log, SETTINGS, LogQuery(follow=True), over.is_set, joined)
        async for page in pages:
            seen.append(page)  # noqa: PERF401  # looked at meanwhile
        done.set()

    async def until(*numbers: int) -> None:
        with trio.fail_after(20):
            while b"".join(seen) != told(*numbers):
                await trio.sleep(0.01)

    nursery.start_soon(follow)
    await until(0)
    with log.open("a") as file:
        file.write(line(1))
        file.flush()
        log.replace(tmp_path / "log.1")
        file.write(line(2))
    log.write_text(line(3))
    await until(0, 1, 2, 3)
    for number in (4, 5, 6):  # three rotations before anybody looks
        log.replace(tmp_path / f"log.{number - 2}")
        log.write_text(line(number))
    await until(0, 1, 2, 3, 4, 5, 6)
    over.set()
    with trio.fail_after(20):
        await done.wait()

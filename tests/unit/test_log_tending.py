"""Logs at rest: nobody looks at them until they are written to."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import trio

from supervisor.linux import syscall
from supervisor.linux.write_watches import WriteWatches
from supervisor.runtime.log_tending import Tending


@pytest.fixture
def watches() -> Iterator[WriteWatches]:
    with closing(WriteWatches()) as made:
        yield made


@pytest.fixture
def log(tmp_path: Path) -> Path:
    (tmp_path / "log").write_text("a line\n")
    return tmp_path / "log"


def write(log: Path) -> None:
    with log.open("a") as file:
        file.write("one more\n")


def at_rest(watches: WriteWatches, *logs: Path) -> Tending:
    tending = Tending(watches)
    tending.settle(logs)
    assert not any(map(tending.rests, logs)), "seen once, it is not known whether it grows"
    tending.settle(logs)
    assert all(map(tending.rests, logs))
    return tending


async def test_who_is_quiet_rests_until_it_is_written_to(watches: WriteWatches, log: Path) -> None:
    other = log.with_name("other")
    other.touch()
    tending = at_rest(watches, log, other)
    tending.rouse()
    assert tending.rests(log)
    with trio.move_on_after(0.05) as quiet:
        await watches.wait()
    assert quiet.cancelled_caught
    write(log)
    with trio.fail_after(20):
        await watches.wait()
    tending.rouse()
    assert not tending.rests(log)
    assert tending.rests(other)


def test_who_grows_from_look_to_look_does_not_rest(watches: WriteWatches, log: Path) -> None:
    tending = Tending(watches)
    for _ in range(3):
        tending.settle([log])
        write(log)
    assert not tending.rests(log)


def test_who_is_written_to_while_the_watch_is_set_does_not_rest(
    watches: WriteWatches, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = watches.arm

    def late(path: Path) -> int:
        write(path)
        return arm(path)

    monkeypatch.setattr(watches, "arm", late)
    tending = Tending(watches)
    for _ in range(3):
        tending.settle([log])
        assert not tending.rests(log)


def test_what_has_gone_does_not_rest(watches: WriteWatches, log: Path) -> None:
    tending = at_rest(watches, log)
    log.unlink()
    tending.rouse()
    assert not tending.rests(log)
    tending.settle([log])
    tending.settle([log])
    assert not tending.rests(log)


def test_where_there_are_no_watches_left_nobody_rests(
    watches: WriteWatches, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(syscall, "inotify_add_watch", refused)
    tending = Tending(watches)
    for _ in range(3):
        tending.settle([log])
        assert not tending.rests(log)


def test_when_the_kernel_has_lost_count_all_are_looked_at(
    watches: WriteWatches, log: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = log.with_name("other")
    other.touch()
    tending = at_rest(watches, log, other)
    overflow = (-1).to_bytes(4, "little", signed=True) + bytes(12)
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", lambda *_: overflow)
        tending.rouse()
    assert not tending.rests(log)
    assert not tending.rests(other)

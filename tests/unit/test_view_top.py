"""Rows of ``ps``, from the text of proc(5)."""

from __future__ import annotations

import pytest

from supervisor.api.docker import ps
from supervisor.api.docker.view_top import Host, columns, parse, row, titles
from supervisor.errors import InvalidArgument

HOST = Host(
    now=1_000_100.0, boot=1_000_000.0, memory_kibibytes=1_000_000, user=lambda uid: f"u{uid}"
)
STAT = (
    "77 (sl) ep) S 70 77 77 34819 77 4194560 99 0 0 0 150 50 0 0 20 0 2 0 8000 4096000 250"
    " 18446744073709551615 0 0 0"
)
"""Started 80 s after boot, 2 s busy since, on pts/3, leader of its session, in the foreground, two threads."""
SLEEP = parse(77, 1000, STAT, b"sleep\x00100\x00", HOST)


def shown(arguments: str) -> dict[str, str]:
    chosen = columns(arguments)
    assert chosen is not None
    return dict(zip(titles(chosen), row(SLEEP, chosen), strict=True))


def test_as_ps_ef() -> None:
    told = shown("")
    assert list(told) == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    del told["STIME"]  # in the host's time zone
    assert list(told.values()) == ["u1000", "77", "70", "10", "pts/3", "00:00:02", "sleep 100"]
    assert shown("") == shown("-ef")


def test_as_ps_aux() -> None:
    told = shown("aux")
    assert (told["%CPU"], told["%MEM"], told["VSZ"], told["RSS"]) == ("10.0", "0.1", "4000", "1000")
    assert (told["STAT"], told["TIME"], told["COMMAND"]) == ("Ssl+", "0:02", "sleep 100")


@pytest.mark.parametrize(
    "arguments",
    ["-o pid,comm,etime", "-eo pid,comm,etime", "o pid,comm,etime", "-o pid -o comm -oetime"],
)
def test_columns_of_ones_choice(arguments: str) -> None:
    assert shown(arguments) == {"PID": "77", "COMMAND": "sl) ep", "ELAPSED": "00:20"}


@pytest.mark.parametrize("arguments", ["-o pid,nosuch", "-o", "-x", "axf", "-eLf", "-ef --forest"])
def test_what_ps_itself_is_asked_for(arguments: str) -> None:
    assert columns(arguments) is None


def test_without_a_pid_nothing_can_be_told() -> None:
    with pytest.raises(InvalidArgument, match="PID field"):
        columns("-o comm")


@pytest.mark.parametrize(
    "arguments",
    [
        "axf",
        "-eLf",
        "-ef --forest",
        "-o pid,args --sort -rss",
        "--format=pid,comm",
        "-eo pid k-rss",
    ],
)
def test_how_to_show_is_handed_on(arguments: str) -> None:
    assert ps.words(arguments) == tuple(arguments.split())


@pytest.mark.parametrize(
    "arguments",
    ["-N", "-ef -N", "-C init", "-o ppid=PID", "-oppid=PID", "--format=ppid=PID", "-p 1", "-q1", "--deselect", "-u root",
     "--pid=1", "--sort", "-o", "x" * 40, " ".join(["-e"] * 40), "-o pid=PID,ppid"],
)  # fmt: skip
def test_whom_to_show_is_not(arguments: str) -> None:
    with pytest.raises(InvalidArgument):
        ps.words(arguments)


def test_only_lines_of_the_containers_are_taken() -> None:
    output = "  PID USER COMMAND\n  1 root init\n  77 ada sh -c x y\n  - ada -\n  88 bob cat\n  - bob -\n"
    titles_, rows = ps.table(output, {77})
    assert titles_ == ["PID", "USER", "COMMAND"]
    assert rows == [["77", "ada", "sh -c x y"], ["-", "ada", "-"]]
    with pytest.raises(InvalidArgument, match="PID field"):
        ps.table("USER COMMAND\nroot init\n", {1})


def test_no_terminal_and_no_command_line() -> None:
    process = parse(2, 0, STAT.replace(" 34819 ", " 0 "), b"", HOST)
    assert row(process, ("tty", "cmd")) == ["?", "[sl) ep]"]

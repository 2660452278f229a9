"""The service manager's protocol, from its side: real sockets, no systemd."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.errors import InvalidArgument
from supervisor.linux.systemd import NOBODY, is_journal, take_over
from supervisor.service.standing import Standing


@pytest.fixture(params=["path", "abstract"])
def hearing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, socket.socket]]:
    """Where a service manager listens, as it tells it and as it hears it."""
    told = str(tmp_path / "notify") if request.param == "path" else f"@bakehouse-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(told.replace("@", "\0", 1))
        heard.settimeout(5)
        yield told, heard


def test_what_is_told_arrives_as_one_message(hearing: tuple[str, socket.socket]) -> None:
    told, heard = hearing
    manager = take_over({"NOTIFY_SOCKET": told})
    manager.ready("ready:\nnothing runs")
    assert heard.recv(4096) == b"READY=1\nSTATUS=ready: nothing runs"
    manager.reloading()
    words = dict(line.split("=", 1) for line in heard.recv(4096).decode().splitlines())
    assert words["RELOADING"] == "1"
    assert int(words["MONOTONIC_USEC"]) > 0
    manager.starting("opening the store", 2.5)
    assert heard.recv(4096) == b"STATUS=opening the store\nEXTEND_TIMEOUT_USEC=2500000"
    manager.alive()
    assert heard.recv(4096) == b"WATCHDOG=1"


def test_a_service_manager_that_has_gone_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = take_over({"NOTIFY_SOCKET": str(tmp_path / "gone")})
    manager.alive()
    manager.alive()
    assert len(caplog.records) == 1


def test_without_a_service_manager_nothing_is_told() -> None:
    NOBODY.ready("ready")
    assert not NOBODY.listens
    assert take_over({}).watchdog_seconds == 0


def test_what_was_passed_to_another_process_is_not_taken() -> None:
    environ = {
        "LISTEN_FDS": "1",
        "LISTEN_PID": str(os.getpid() + 1),
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": str(os.getpid() + 1),
        "PATH": "/bin",
    }
    manager = take_over(environ)
    assert (manager.sockets, manager.watchdog_seconds) == ((), 0.0)
    assert environ == {"PATH": "/bin"}, "they are not for our children either"


def test_the_watchdogs_time_is_taken() -> None:
    ours = {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}
    assert take_over(ours).watchdog_seconds == 30.0


@pytest.mark.parametrize("address", ["vsock:2:1", "relative", "/" + "x" * 200])
def test_an_address_nobody_can_have_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument, match="no such address"):
        take_over({"NOTIFY_SOCKET": address})


def test_the_journal_is_known_by_its_stream() -> None:
    with tempfile.TemporaryFile() as file:
        here = os.fstat(file.fileno())
        assert is_journal(f"{here.st_dev}:{here.st_ino}", file.fileno())
        assert not is_journal(f"{here.st_dev}:{here.st_ino + 1}", file.fileno())
        assert not is_journal("", file.fileno())


@pytest.mark.parametrize(
    ("standing", "line"),
    [
        (Standing(), "ready: nothing runs"),
        (Standing(1, 0, [1000]), "ready: 1 container of 1 person"),
        (Standing(12, 1, [1000, 1001, 1000]), "ready: 12 containers and 1 build of 2 people"),
        (Standing(0, 2, [1, 2]), "ready: 2 builds of 2 people"),
    ],
)
def test_how_we_stand_is_one_line(standing: Standing, line: str) -> None:
    assert standing.line() == line

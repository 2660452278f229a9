"""Logging to the journal, and how events are told there."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from protocol.events import (
    AccessRefuse,
    Actor,
    BuildFail,
    BuildStart,
    ContainerAdopt,
    ContainerDie,
    ContainerStart,
    Event,
    EventData,
    MonitorRelief,
    OwnerLimit,
    OwnerResume,
    OwnerSuspend,
)
from supervisor.linux.journald import FIELDS, JournalHandler, encode, priority
from supervisor.service.log_lines import line_of

CONTAINER = "c0ffee" * 10 + "1234"


def decoded(data: bytes) -> Mapping[str, str]:
    """An entry as journald reads it."""
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + size], data[9 + size :]
        found[name.decode()] = value.decode()
    return found


def event(data: EventData, subject: str = CONTAINER, **attributes: str) -> Event:
    return Event(
        7, "e:7", "/bakehouse/e", data.type, subject, 0, 1000, Actor(subject, attributes), data
    )


def test_no_value_passes_for_a_field() -> None:
    fields = {
        "MESSAGE": "one\nPRIORITY=0\nBAKEHOUSE_OWNER=0",
        "BAKEHOUSE_OWNER": "1000",
        "EMPTY": "",
    }
    assert decoded(encode(fields)) == fields


def test_levels_are_syslogs() -> None:
    levels = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)
    assert [priority(level) for level in levels] == [2, 3, 4, 6, 7]


def test_a_record_goes_with_its_fields(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "socket"))
        handler = JournalHandler(tmp_path / "socket")
        assert handler.formatter is not None, "logging.basicConfig() would repeat the fields"
        log = logging.Logger("bakehouse.test")
        log.addHandler(handler)
        log.warning("%s ended", "web", extra={FIELDS: {"BAKEHOUSE_OWNER": "1000"}})
        entry = decoded(journal.recv(65_536))
        handler.close()
    assert entry["MESSAGE"] == "web ended"
    assert entry["PRIORITY"] == "4"
    assert entry["SYSLOG_IDENTIFIER"] == "bakehoused"
    assert entry["CODE_FUNC"] == "test_a_record_goes_with_its_fields"
    assert (entry["LOGGER"], entry["BAKEHOUSE_OWNER"]) == ("bakehouse.test", "1000")


def test_without_a_journal_it_goes_to_standard_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = JournalHandler(tmp_path / "none")
    handler.handle(logging.LogRecord("x", logging.ERROR, "f", 1, "lost %s", ("it",), None))
    handler.close()
    assert capsys.readouterr().err == "<3>lost it\n"


@pytest.mark.parametrize(
    ("data", "attributes", "text"),
    [
        (
            ContainerStart(pid=9),
            {"name": "web", "image": "busybox"},
            "container web of ada started from busybox",
        ),
        (ContainerDie(exit_code=0), {"name": "web"}, "container web of ada ended with code 0"),
        (
            ContainerDie(137, reason="why", oom=True, restart_after_ns=1_500_000_000),
            {"name": "web"},
            "container web of ada ended with code 137, out of memory, why, starts again in 1.5 s",
        ),
        (BuildStart("b"), {"name": "app:1"}, "build app:1 of ada begun"),
        (
            BuildFail("b", message="no\nsuch\x1b[2Jfile"),
            {},
            "build c0ffeec0ffee of ada failed: no such [2Jfile",
        ),
        (
            AccessRefuse("create", "host-path", "cannot", 3),
            {},
            "ada: refused 3 times by host-path: cannot",
        ),
    ],
)
def test_an_event_is_one_line(data: EventData, attributes: Mapping[str, str], text: str) -> None:
    line = line_of(event(data, **attributes), "ada")
    assert line is not None
    assert line.text == text
    assert line.fields["BAKEHOUSE_OWNER"] == "1000"
    assert line.fields["BAKEHOUSE_EVENT"] == data.type


def test_things_can_be_filtered_by() -> None:
    line = line_of(event(ContainerStart(), name="web"), "ada")
    assert line is not None
    assert line.fields["BAKEHOUSE_CONTAINER"] == CONTAINER
    assert line.fields["BAKEHOUSE_CONTAINER_NAME"] == "web"
    line = line_of(event(BuildStart("b1"), subject="b1"), "ada")
    assert line is not None
    assert line.fields["BAKEHOUSE_BUILD"] == "b1"
    assert line_of(event(ContainerAdopt()), "ada") is None


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (OwnerSuspend("mining"), "ada: suspended by root: mining"),
        (OwnerResume(), "ada: may work again"),
        (OwnerLimit("pids_max", 99, 16_384), "ada: pids_max is 99, and was 16384"),
        (
            MonitorRelief("end", "memory is short", what="web"),
            "ada: relief, end to web: done: memory is short",
        ),
    ],
)
def test_what_is_done_to_somebody_is_told_with_their_name(data: EventData, text: str) -> None:
    line = line_of(event(data, by="root"), "ada")
    assert line is not None
    assert line.text == text

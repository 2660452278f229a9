"""What is asked of the host's journal, and what is read from its answer."""

from __future__ import annotations

import json

from supervisor.runtime.journal_log import entry_of, words
from supervisor.runtime.logs import LogQuery, utc


def line(**fields: object) -> bytes:
    return json.dumps(
        {"PRIORITY": "6", "__REALTIME_TIMESTAMP": "1700000000123456", **fields}
    ).encode()


def test_only_conmons_own_entries_are_asked_for() -> None:
    asked = words("ab", LogQuery(tail=5, since_ns=1_500_000_000, until_ns=2_000_000_000))
    assert {"_UID=0", "_COMM=conmon", "CONTAINER_ID_FULL=ab", "--lines=5"} <= set(asked)
    assert {"--since=@1.500000", "--until=@2.000000"} <= set(asked)
    assert "--follow" not in asked
    assert words("ab", LogQuery(stdout=False, follow=True))[-1] == "PRIORITY=3"
    assert words("ab", LogQuery(stderr=False))[-1] == "PRIORITY=6"


def test_entries_are_lines_parts_and_bytes() -> None:
    entry = entry_of(line(MESSAGE="one\n"))
    assert entry is not None
    assert (entry[0], utc(entry[1]), entry[2]) == (1, b"2023-11-14T22:13:20.123456000Z", b"one\n")
    assert entry_of(line(MESSAGE="two", PRIORITY="3"))[0::2] == (2, b"two\n")  # type: ignore[index]
    part = entry_of(line(MESSAGE="part", CONTAINER_PARTIAL_MESSAGE="true"))
    assert part is not None
    assert part[2] == b"part"
    assert entry_of(line(MESSAGE=[255, 10]))[2] == b"\xff\n"  # type: ignore[index]
    for broken in (
        b"",
        b"{}",
        b"[]",
        line(),
        b'{"MESSAGE":"x","PRIORITY":"6","__REALTIME_TIMESTAMP":"x"}',
    ):
        assert entry_of(broken) is None

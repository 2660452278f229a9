"""Times as Docker's clients write them in queries."""

from __future__ import annotations

import re

from protocol.times import parse_time as parse_rfc3339
from supervisor.clock import NANOSECONDS_PER_SECOND
from supervisor.errors import InvalidArgument

_UNIX = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,9}))?")


def parse_time(name: str, text: str) -> int | None:
    """Nanoseconds since 1970 of ``1700000000.5`` or an RFC 3339 time; None for nothing.

    Args:
        name: The parameter, for the message.
        text: Its value.

    Raises:
        InvalidArgument: It is neither.
    """
    if not text:
        return None
    match = _UNIX.fullmatch(text)
    if match:
        return int(match[1]) * NANOSECONDS_PER_SECOND + int((match[2] or "").ljust(9, "0"))
    try:
        return parse_rfc3339(text)
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(
            f"cannot read the query: {name}={text[:80]!r} is no time",
            "seconds since 1970, or a time like 2026-01-31T12:00:00Z",
        ) from error

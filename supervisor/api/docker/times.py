"""Times as Docker's clients write them in queries."""

from __future__ import annotations

import re

from protocol.times import parse_time as parse_rfc3339
from supervisor.clock import NANOSECONDS_PER_SECOND
from supervisor.errors import InvalidArgument

_UNIX = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,9}))?")

_UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9}
_UNITS["h"] = 60 * _UNITS["m"]
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)(ns|us|ms|s|m|h)")
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ns|us|ms|s|m|h))+")
_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T([0-9]{2})(:[0-9]{2})?)?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


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


def parse_moment(name: str, text: str, now_ns: int) -> int:
    """Nanoseconds since 1970 of what people write: ``24h`` (ago), ``2026-01-31``, ``2026-01-31T12:00``, or :func:`parse_time`.

    Raises:
        InvalidArgument: It is none of these.
    """
    duration = _DURATION.fullmatch(text)
    if duration and text != "0":
        return now_ns - sum(
            int(float(amount) * _UNITS[unit]) for amount, unit in _PART.findall(text)
        )
    match = _DATE.fullmatch(text)
    if match is None:
        return parse_time(name, text) or 0
    date, hour, rest, zone = match.groups()
    return parse_time(name, f"{date}T{hour or '00'}{rest or ':00'}:00{zone or 'Z'}") or 0

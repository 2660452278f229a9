"""Times on the wire: RFC 3339 in UTC with nanoseconds; in memory, integer nanoseconds since 1970."""

from __future__ import annotations

import datetime
import re

_NANOSECONDS = 1_000_000_000
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)


def format_time(time_ns: int) -> str:
    """``2026-01-31T12:00:00.123456789Z``."""
    seconds, fraction = divmod(time_ns, _NANOSECONDS)
    moment = _EPOCH + datetime.timedelta(seconds=seconds)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def parse_time(text: str) -> int:
    """The inverse of :func:`format_time`; any UTC offset, any number of digits.

    Raises:
        ValueError: It is no RFC 3339 time.
    """
    match = _TIME.fullmatch(text)
    if not match:
        message = f"{text!r} is no RFC 3339 time"
        raise ValueError(message)
    try:
        moment = datetime.datetime.fromisoformat(match[1].replace(" ", "T") + match[3].upper())
        since = moment - _EPOCH
    except OverflowError as error:
        raise ValueError(str(error)) from error
    return (since.days * 86_400 + since.seconds) * _NANOSECONDS + int(
        (match[2] or "0").ljust(9, "0")
    )

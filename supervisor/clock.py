"""Time, in one place, so that tests can turn it.

Wall time is integer nanoseconds since the epoch (as Docker prints it); durations come from trio's clock.
"""

from __future__ import annotations

import contextvars
import datetime
import time
from collections.abc import Callable

WALL: contextvars.ContextVar[Callable[[], int]] = contextvars.ContextVar(
    "WALL", default=time.time_ns
)

NANOSECONDS_PER_SECOND = 1_000_000_000


def now_ns() -> int:
    """Wall time in nanoseconds since 1970-01-01 UTC."""
    return WALL.get()()


def rfc3339(time_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds, as Docker writes times; 0 is Docker's ``0001-01-01T00:00:00Z``."""
    if time_ns == 0:
        return "0001-01-01T00:00:00Z"
    seconds, fraction = divmod(time_ns, NANOSECONDS_PER_SECOND)
    moment = datetime.datetime.fromtimestamp(seconds, tz=datetime.UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"


def from_rfc3339(text: str) -> int:
    """The inverse of :func:`rfc3339`; nanoseconds since 1970, any UTC offset.

    Raises:
        ValueError: It is not an RFC 3339 time.
    """
    head, dot, tail = text.partition(".")
    if not dot:
        return _whole_seconds(text)
    digits = len(tail) - len(tail.lstrip("0123456789"))
    fraction = tail[:digits][:9].ljust(9, "0")
    return _whole_seconds(head + tail[digits:]) + int(fraction)


def _whole_seconds(text: str) -> int:
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        message = f"no UTC offset in {text!r}"
        raise ValueError(message)
    seconds = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (seconds.days * 86_400 + seconds.seconds) * NANOSECONDS_PER_SECOND

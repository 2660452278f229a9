"""Time, in one place, so that tests can turn it.

Wall time is integer nanoseconds since the epoch (as Docker prints it); durations come from trio's clock.
"""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable

from protocol.times import format_time

WALL: contextvars.ContextVar[Callable[[], int]] = contextvars.ContextVar(
    "WALL", default=time.time_ns
)

NANOSECONDS_PER_SECOND = 1_000_000_000


def now_ns() -> int:
    """Wall time in nanoseconds since 1970-01-01 UTC."""
    return WALL.get()()


def rfc3339(time_ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds, as Docker writes times; 0 is Docker's ``0001-01-01T00:00:00Z``."""
    return format_time(time_ns) if time_ns else "0001-01-01T00:00:00Z"

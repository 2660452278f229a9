"""Pressure stall information: how much of the time work waited for want of a resource.

``some`` is the share of time in which at least one task waited, ``full`` that in which all did. See the kernel's
``Documentation/accounting/psi.rst``.

Rules: a trigger is watched by an inner epoll, which trio watches in turn: the PSI file itself is always readable.
The wake is the event: the inner epoll may already have nothing to tell. Without CAP_SYS_RESOURCE a trigger's window
must be a multiple of two seconds, so it always is here; and the first windows of such a trigger count all that was
waited since boot (6.18): what has not really grown is no event.
"""

from __future__ import annotations

import os
import select
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from supervisor.errors import Unavailable

READ_BYTES = 4_096
WINDOW_MICROSECONDS = 2_000_000


@attrs.frozen
class Pressure:
    """One resource's pressure.

    Attributes:
        some_avg10: Percent of the last ten seconds in which a task waited; ``full_avg10`` in which all did.
        some_total_microseconds: Time waited since the beginning; only grows.
    """

    some_avg10: float = 0.0
    some_avg60: float = 0.0
    some_total_microseconds: int = 0
    full_avg10: float = 0.0
    full_avg60: float = 0.0
    full_total_microseconds: int = 0


def parse(text: str) -> Pressure:
    """The pressure a PSI file tells; a line that is not there (``full`` of the CPU, on old kernels) counts as none."""
    lines: dict[str, dict[str, float]] = {"some": {}, "full": {}}
    for line in text.splitlines():
        kind, *pairs = line.split()
        if kind in lines:
            lines[kind] = {
                key: float(value) for key, _, value in (pair.partition("=") for pair in pairs)
            }
    some, full = lines["some"], lines["full"]
    return Pressure(
        some_avg10=some.get("avg10", 0.0),
        some_avg60=some.get("avg60", 0.0),
        some_total_microseconds=int(some.get("total", 0)),
        full_avg10=full.get("avg10", 0.0),
        full_avg60=full.get("avg60", 0.0),
        full_total_microseconds=int(full.get("total", 0)),
    )


def read(path: Path | str) -> Pressure | None:
    """The pressure told by a file such as ``/proc/pressure/memory``; ``None`` where the kernel does not tell."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return parse(os.read(fd, READ_BYTES).decode())
    except OSError:  # accounting is switched off (EOPNOTSUPP)
        return None
    finally:
        os.close(fd)


class Trigger:
    """A threshold of which the kernel tells when it is crossed. Made by :func:`open_trigger`."""

    def __init__(
        self, epoll: select.epoll, total: Callable[[], int], stalled_microseconds: int
    ) -> None:
        self._epoll = epoll
        self._total = total
        self._seen = total()
        self._stalled_microseconds = stalled_microseconds

    async def wait(self) -> None:
        """Return when the threshold has been crossed; at most once in each window."""
        while True:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._epoll.poll(0)
            before, self._seen = self._seen, self._total()
            if self._seen - before >= self._stalled_microseconds // 2:
                return


@asynccontextmanager
async def open_trigger(
    path: Path | str, *, stalled_microseconds: int, full: bool = False
) -> AsyncIterator[Trigger]:
    """Watch ``path`` for more than ``stalled_microseconds`` waited within two seconds.

    Raises:
        Unavailable: The kernel has no PSI, or grants us no trigger.
    """
    try:
        psi = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"cannot watch {path}: {error.strerror}") from error
    try:
        line = f"{'full' if full else 'some'} {stalled_microseconds} {WINDOW_MICROSECONDS}\0"
        try:
            os.write(psi, line.encode())
        except OSError as error:
            raise Unavailable(f"cannot watch {path}: {error.strerror}") from error
        with select.epoll() as epoll:
            epoll.register(psi, select.EPOLLPRI)
            await trio.lowlevel.checkpoint()
            yield Trigger(epoll, lambda: _total(path, full=full), stalled_microseconds)
    finally:
        os.close(psi)


def _total(path: Path | str, *, full: bool) -> int:
    """Microseconds waited since the beginning."""
    now = read(path) or Pressure()
    return now.full_total_microseconds if full else now.some_total_microseconds

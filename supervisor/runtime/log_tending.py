"""Holding the logs of those that run, and of those that ran until just now, to their bounds.

Words: a log is *at rest* when nothing was written to it between two looks; it is looked at again when something is.
Rules: while all logs are at rest and nothing happens to a container, this costs nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import closing, suppress
from functools import partial
from pathlib import Path

import attrs
import trio

from supervisor.clock import NANOSECONDS_PER_SECOND, now_ns
from supervisor.linux.write_watches import WriteWatches
from supervisor.runtime.assembly import session_paths
from supervisor.runtime.conmon import SessionPaths, control
from supervisor.runtime.containers import Containers
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.log_files import size_of, tend
from supervisor.runtime.log_settings import LogSettings, log_settings
from supervisor.tasks import any_of, in_thread

TENDING_SECONDS = 1.0
AFTER_THE_END_NS = 10 * NANOSECONDS_PER_SECOND
REOPEN_LOG = 2


async def tend_logs(containers: Containers) -> None:
    """Look at all that are not at rest again and again, all at once: one hop to a thread however many there are."""
    events = containers.parts.events
    with closing(WriteWatches()) as watches:
        tending = Tending(watches)
        while True:
            # Before the pause: a start that is told just before a look is known to its container just after.
            seen = events.last_seq
            await trio.sleep(TENDING_SECONDS)
            tending.rouse()
            wanted = [
                (keeper, settings)
                for keeper in containers.every()
                if _is_tended(keeper)
                and not tending.rests(keeper.log)
                and (settings := _settings(keeper)).in_files
            ]
            if wanted:
                await in_thread(lambda wanted=wanted: _tend(wanted, tending))  # type: ignore[misc]  # bound here
            else:
                await any_of(watches.wait, partial(events.wait_beyond, seen))


@attrs.define
class Tending:
    """Which logs are at rest. Used by one thread at a time."""

    _watches: WriteWatches
    _sizes: dict[Path, int] = attrs.field(factory=dict)
    _resting: dict[int, Path] = attrs.field(factory=dict)

    def rests(self, log: Path) -> bool:
        """Whether nothing has been written to it, as far as we know."""
        return log in self._resting.values()

    def rouse(self) -> None:
        """What was written to is not at rest any more."""
        for number in self._watches.gone_off():
            self._resting.pop(number, None)

    def settle(self, logs: Iterable[Path]) -> None:
        """These were looked at, and are within their bounds: who is as large as at the last look is at rest."""
        before, self._sizes = self._sizes, {}
        for log in logs:
            size = size_of(log)
            if size is not None:
                self._sizes[log] = size
                if before.get(log) == size:
                    self._rest(log)

    def _rest(self, log: Path) -> None:
        with suppress(
            OSError
        ):  # it has just gone, or no watches are left: it is looked at as before
            number = self._watches.arm(log)
            if size_of(log) == self._sizes[log]:  # else it was written to before it was watched
                self._resting[number] = log


def _is_tended(keeper: Keeper) -> bool:
    return keeper.alive or now_ns() - keeper.state.finished_ns < AFTER_THE_END_NS


def _settings(keeper: Keeper) -> LogSettings:
    return log_settings(keeper.record.request.log, keeper.parts.config.runtime)


def _tend(wanted: Collection[tuple[Keeper, LogSettings]], tending: Tending) -> None:
    within = []
    for keeper, settings in wanted:
        if tend(keeper.log, settings, written=keeper.alive):
            control(_session(keeper), REOPEN_LOG, 0, 0)
        else:
            within.append(keeper.log)
    tending.settle(within)


def _session(keeper: Keeper) -> SessionPaths:
    return session_paths(keeper.parts.run_root, keeper.record)

"""Holding the logs of those that run, and of those that ran until just now, to their bounds."""

from __future__ import annotations

from collections.abc import Collection

import trio

from supervisor.clock import NANOSECONDS_PER_SECOND, now_ns
from supervisor.runtime.assembly import session_paths
from supervisor.runtime.conmon import SessionPaths, control
from supervisor.runtime.containers import Containers
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.log_files import tend
from supervisor.runtime.log_settings import LogSettings, log_settings
from supervisor.tasks import in_thread

TENDING_SECONDS = 1.0
AFTER_THE_END_NS = 10 * NANOSECONDS_PER_SECOND
REOPEN_LOG = 2


async def tend_logs(containers: Containers) -> None:
    """Look at all of them again and again, all at once: one hop to a thread however many there are."""
    while True:
        await trio.sleep(TENDING_SECONDS)
        wanted = [
            (keeper, settings)
            for keeper in containers.every()
            if _is_tended(keeper) and (settings := _settings(keeper)).in_files
        ]
        if wanted:
            await in_thread(lambda wanted=wanted: _tend(wanted))  # type: ignore[misc]  # bound here


def _is_tended(keeper: Keeper) -> bool:
    return keeper.alive or now_ns() - keeper.state.finished_ns < AFTER_THE_END_NS


def _settings(keeper: Keeper) -> LogSettings:
    return log_settings(keeper.record.request.log, keeper.parts.config.runtime)


def _tend(wanted: Collection[tuple[Keeper, LogSettings]]) -> None:
    for keeper, settings in wanted:
        if tend(keeper.log, settings, written=keeper.alive):
            control(_session(keeper), REOPEN_LOG, 0, 0)


def _session(keeper: Keeper) -> SessionPaths:
    return session_paths(keeper.parts.run_root, keeper.record)

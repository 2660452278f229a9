"""Moving processes into cgroups without waiting for the kernel.

The first write to any ``cgroup.procs`` after half a second of quiet waits for an RCU grace period, 10 to 20 ms: most of
what a container's start or an exec costs on an idle host. With the option ``favordynmods`` (Linux 6.0; cgroups(7),
``Documentation/admin-guide/cgroup-v2.rst``) it takes a tenth of a millisecond, and forks cost a little more.

Rules: the option is the whole host's. It is set while the daemon runs, and taken back at its end if it was the daemon
that set it, also when an earlier one was killed: a note in the run directory says so.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from supervisor.linux.spawner import Spawner
from supervisor.tasks import finish_within

OPTION = "favordynmods"
TAKE_BACK_SECONDS = 5.0

log = logging.getLogger(__name__)


@asynccontextmanager
async def favouring_moves(spawner: Spawner, run_root: Path, *, wanted: bool) -> AsyncIterator[None]:
    """While this is open, entering a cgroup is quick, where it is ``wanted`` and the kernel has the option."""
    note = run_root / OPTION
    if wanted and await _set(spawner, wanted=True):
        note.touch()
    try:
        yield
    finally:
        if note.exists():
            with finish_within(TAKE_BACK_SECONDS):
                await _set(spawner, wanted=False)
            note.unlink(missing_ok=True)


async def _set(spawner: Spawner, *, wanted: bool) -> bool:
    """Whether the option was changed; a host that does not have it goes on as it is."""
    try:
        answer = await spawner.call("cgroup2_option", {"option": OPTION, "wanted": wanted})
    except OSError as refused:
        log.info("this host does not favour moves between cgroups: %s", refused.strerror)
        return False
    return answer.value is True

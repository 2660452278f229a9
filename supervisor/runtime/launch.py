"""Having the runtime create a container, under a conmon that outlives the daemon."""

from __future__ import annotations

from pathlib import Path

import trio

from supervisor.errors import Internal
from supervisor.runtime.assembly import Surroundings
from supervisor.runtime.cgroup_tree import monitors_group
from supervisor.runtime.conmon import SessionInputs, open_session
from supervisor.runtime.parts import Parts
from supervisor.runtime.processes import identify
from supervisor.runtime.records import ContainerRecord, ProcessIdentity

LOG_CUT_FACTOR = 4


async def launch(
    parts: Parts, record: ContainerRecord, surroundings: Surroundings, log: Path
) -> ProcessIdentity:
    """The runtime has created the container, stopped before its first instruction.

    When this fails or is cancelled, some of it may be there: take the surroundings apart, and end the monitors.

    Raises:
        Internal: The runtime or conmon could not; its own words.
    """
    inputs = SessionInputs(
        paths=surroundings.session,
        log=log if record.request.log.driver != "none" else None,
        log_bytes_max=parts.config.runtime.log_bytes_max * LOG_CUT_FACTOR,
        entry_paths=parts.tree.entry_paths(surroundings.group),
        monitor_paths=parts.tree.entry_paths(monitors_group(record.owner)),
        terminal=record.request.tty,
        open_stdin=record.request.open_stdin,
        stdin_once=record.request.stdin_once and not record.request.tty,
    )
    conmon = parts.config.runtime.conmon
    session = await open_session(parts.spawner, conmon, parts.runtime, inputs)
    try:
        pid = await session.pid()
    finally:
        await trio.aclose_forcefully(session)
    process = identify(pid, parts.boot_id)
    if process is None:
        raise Internal(f"cannot start container {record.name}: it ended before it was started")
    return process

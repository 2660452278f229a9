"""Having the runtime create a container, under a conmon that outlives the daemon; and the end of it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import trio

from supervisor.errors import BakehouseError, Internal
from supervisor.runtime.assembly import assemble, session_paths, take_down
from supervisor.runtime.cgroup_tree import container_group, monitors_group
from supervisor.runtime.conmon import Session, SessionInputs, end_monitors, open_session
from supervisor.runtime.joining import Joined
from supervisor.runtime.log_settings import log_settings, log_words
from supervisor.runtime.parts import Parts
from supervisor.runtime.processes import identify
from supervisor.runtime.records import ContainerRecord, ProcessIdentity
from supervisor.tasks import finish_within, in_thread

EXECS_END_SECONDS = 10.0


async def launch(
    parts: Parts, record: ContainerRecord, log: Path, joined: Joined
) -> ProcessIdentity:
    """The container has its surroundings, and the runtime has created it, stopped before its first instruction.

    conmon is started while the surroundings are made, and waits for them. When this fails or is cancelled, some of it
    may be there: take the surroundings apart, and end the monitors.

    Raises:
        Internal: The runtime or conmon could not; its own words.
        BakehouseError: See :func:`assemble`.
    """
    alone = parts.runtime.stays_out(parts.tree.cgroups)
    group = container_group(record)
    settings = log_settings(record.request.log, parts.config.runtime)
    inputs = SessionInputs(
        paths=session_paths(parts.run_root, record),
        log_words=log_words(settings, record, log),
        entry_paths=[] if alone else parts.tree.entry_paths(group),
        monitor_paths=parts.tree.entry_paths(monitors_group(record.owner)),
        terminal=record.request.tty,
        open_stdin=record.request.open_stdin,
        stdin_once=record.request.stdin_once and not record.request.tty,
    )
    sessions: list[Session] = []

    async def start_monitor() -> None:
        conmon = parts.config.runtime.conmon
        sessions.append(await open_session(parts.spawner, conmon, parts.runtime, inputs))

    try:
        surroundings = await assemble(parts, record, joined, start_monitor)
        (session,) = sessions
        await session.go()
        pid = await session.pid()
        if parts.runtime.filters.needs(surroundings.spec):
            state = parts.runtime.state(record.id)
            await in_thread(lambda: parts.runtime.filters.learn(surroundings.spec, state))
    finally:
        for session in sessions:
            await trio.aclose_forcefully(session)
    process = identify(pid, parts.boot_id)
    if process is None:
        raise Internal(f"cannot start container {record.name}: it ended before it was started")
    return process


async def take_apart(
    parts: Parts,
    record: ContainerRecord,
    execs: Collection[trio.Event],
    seconds: float,
    *,
    lost: bool,
) -> str:
    """Leave only a run's session directory, within so many seconds and also when cancelled; why that failed, if it did.

    Its ``execs`` are killed with it; their ends are told before what tells of them is removed. With ``lost`` its monitor
    is not believed to end by itself.
    """
    why = f"not done within {seconds:.0f} seconds"
    with finish_within(seconds):
        try:
            await parts.tree.clear(container_group(record))
            if lost:
                await end_monitors(parts.tree, record.owner, record.id.__eq__)
            with trio.move_on_after(EXECS_END_SECONDS):
                for ended in execs:
                    await ended.wait()
            await take_down(parts, record)
            why = ""
        except BakehouseError as error:
            why = error.message
    return why

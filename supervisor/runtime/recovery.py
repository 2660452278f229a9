"""Start is recovery: read the records, look at the kernel, make a keeper for each, finish or undo what was half done.

What a run has come to is decided by :func:`decide` from the record and what can be seen, and carried out here. A process is
taken over only when boot, pid and start time all agree. What started and ended while nobody looked yields both events,
with the true code and time; where the code is lost, the reason is told.
"""

from __future__ import annotations

import enum
import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import assert_never

import attrs

from supervisor.clock import now_ns
from supervisor.errors import BakehouseError, NotFound
from supervisor.runtime.assembly import dismantle, session_paths
from supervisor.runtime.cgroup_tree import container_group, limits_of
from supervisor.runtime.conmon import end_monitors
from supervisor.runtime.containers import Containers
from supervisor.runtime.endings import UNKNOWN_CODE, Ending, await_ending, read_ending
from supervisor.runtime.execs import Exec
from supervisor.runtime.keeper import Keeper
from supervisor.runtime.ledger import Ledger
from supervisor.runtime.parts import Parts
from supervisor.runtime.processes import identify
from supervisor.runtime.records import ContainerRecord, ContainerState, ExecRecord
from supervisor.runtime.runs import CUT_OFF
from supervisor.runtime.status import Status
from supervisor.tasks import in_thread

Progress = Callable[[int, int], None]
"""How many are done, of how many."""

PROGRESS_EVERY = 20
LOST = "its monitor was lost while the daemon was down, and the exit code with it"

log = logging.getLogger(__name__)


class Finding(enum.Enum):
    """What is to be done about a container found at start."""

    KEEP = enum.auto()
    CLEAN = enum.auto()
    FORGET = enum.auto()
    UNDO_START = enum.auto()
    CONFIRM_START = enum.auto()
    CONFIRM_AND_END = enum.auto()
    ADOPT = enum.auto()
    END = enum.auto()
    FINISH_REMOVAL = enum.auto()


TAKEN_OVER = frozenset({Finding.ADOPT, Finding.CONFIRM_START})
ENDED_MEANWHILE = frozenset({Finding.END, Finding.CONFIRM_AND_END})


@attrs.frozen
class Seen:
    """What the kernel and the session directory tell of a container.

    Attributes:
        process_alive: The recorded process, and no other with its pid.
        runtime_state: The runtime's word for it; None if it knows none.
        ended_ns: When conmon wrote an exit code, wall time; 0 if it did not.
        traces: A session directory or a cgroup is there.
    """

    process_alive: bool = False
    runtime_state: str | None = None
    ended_ns: int = 0
    traces: bool = False


def decide(status: Status, seen: Seen) -> Finding:
    """What to do; pure."""
    match status:
        case Status.CREATING:
            return Finding.FORGET
        case Status.CREATED | Status.EXITED | Status.RESTARTING | Status.DEAD:
            return Finding.CLEAN if seen.traces else Finding.KEEP
        case Status.STARTING:
            if seen.process_alive:
                return (
                    Finding.CONFIRM_START if seen.runtime_state == "running" else Finding.UNDO_START
                )
            return Finding.CONFIRM_AND_END if seen.ended_ns else Finding.UNDO_START
        case Status.RUNNING | Status.PAUSED:
            return Finding.ADOPT if seen.process_alive else Finding.END
        case Status.REMOVING | Status.REMOVED:
            return Finding.FINISH_REMOVAL
        case _:
            assert_never(status)


def untold(_done: int, _of: int) -> None:
    """Nobody wants to know."""


async def recover(containers: Containers, progress: Progress = untold) -> None:
    """Take over what is there; afterwards records and kernel agree."""
    parts = containers.parts
    ledger = Ledger(parts.database, parts.events)
    rows = await ledger.read()
    progress(0, len(rows))
    seen = {record.id: await _see(parts, record, state) for record, state, _ in rows}
    found = {record.id: decide(state.status, seen[record.id]) for record, state, _ in rows}
    live = {key for key, finding in found.items() if finding in TAKEN_OVER}
    idle = {key for key, finding in found.items() if finding is Finding.KEEP}
    await parts.store.snapshots.recover(found.keys(), idle)
    await parts.networks.recover(live)
    await limit_owners(parts)
    left = [await _take_up(containers, found[row[0].id], row) for row in rows]
    # What happened while nobody looked is told in the order in which it did.
    in_order = sorted(filter(None, left), key=lambda one: seen[one.keeper.record.id].ended_ns)
    for done, one in enumerate(in_order):
        if done % PROGRESS_EVERY == 0:
            progress(done, len(rows))
        try:
            await _settle(containers, one)
        except BakehouseError as error:  # one container's trouble is no other's
            log.warning(
                "container %s is not recovered wholly: %s", one.keeper.record.name, error.message
            )
    await _sweep(parts, live)
    _summarize(found)
    containers.recovered()


def _summarize(found: Mapping[str, Finding]) -> None:
    if found:
        live = sum(finding in TAKEN_OVER for finding in found.values())
        ended = sum(finding in ENDED_MEANWHILE for finding in found.values())
        log.info("recovered %d containers: %d run on, %d ended meanwhile", len(found), live, ended)


async def limit_owners(parts: Parts) -> None:
    """The settings may be others by now, or the daemon before ended between other limits and their being written down."""
    for owner in await in_thread(parts.tree.owners):
        try:
            await parts.tree.limit_owner(owner, parts.owners.limits(owner))
        except BakehouseError as error:  # they use more by now: what they had holds
            log.warning("owner %d is not limited wholly: %s", owner, error.message)


@attrs.frozen
class _Left:
    """A container the daemon before left, with its keeper."""

    keeper: Keeper
    execs: Sequence[ExecRecord]
    finding: Finding


async def _take_up(
    containers: Containers,
    finding: Finding,
    row: tuple[ContainerRecord, ContainerState, Sequence[ExecRecord]],
) -> _Left | None:
    """Make a keeper; what was never wholly made is unmade."""
    record, state, execs = row
    if finding is not Finding.FORGET:
        return _Left(await containers.adopt(record, state), execs, finding)
    parts = containers.parts
    try:
        await dismantle(parts, record)
        await parts.store.volumes.release(record.id, remove_anonymous=True)
        await Ledger(parts.database, parts.events).delete(record, [])
    except BakehouseError as error:
        log.warning("container %s is not unmade wholly: %s", record.name, error.message)
    return None


async def _settle(containers: Containers, left: _Left) -> None:
    parts, keeper = containers.parts, left.keeper
    ledger = Ledger(parts.database, parts.events)
    # Their ends first: the container's own takes away what tells of them.
    if left.finding is not Finding.FINISH_REMOVAL:
        for row in left.execs:
            await _recover_exec(containers, ledger, keeper, row)
    await _carry_out(left.finding, keeper)


async def _see(parts: Parts, record: ContainerRecord, state: ContainerState) -> Seen:
    process = state.process
    session = session_paths(parts.run_root, record)

    def look() -> Seen:
        same_boot = process is not None and process.boot_id == parts.boot_id
        alive = (
            process is not None and same_boot and identify(process.pid, parts.boot_id) == process
        )
        group = container_group(record)
        ending = read_ending(session) if same_boot else None
        return Seen(
            process_alive=alive,
            ended_ns=ending.time_ns if ending is not None else 0,
            traces=session.directory.exists() or parts.tree.cgroups.exists(group),
        )

    seen = await in_thread(look)
    if state.status is Status.STARTING and seen.process_alive:
        return attrs.evolve(seen, runtime_state=await parts.runtime.knows(parts.spawner, record.id))
    return seen


async def _carry_out(finding: Finding, keeper: Keeper) -> None:
    match finding:
        case Finding.KEEP | Finding.FORGET:
            _after_run(keeper)
        case Finding.CLEAN:
            await dismantle(keeper.parts, keeper.record)
            _after_run(keeper)
        case Finding.UNDO_START:
            await keeper.runs.undo(CUT_OFF)
        case Finding.FINISH_REMOVAL:
            await keeper.finish_removal()
        case Finding.CONFIRM_START | Finding.CONFIRM_AND_END | Finding.ADOPT | Finding.END:
            await _take_over(finding, keeper)
        case _:
            assert_never(finding)


async def _take_over(finding: Finding, keeper: Keeper) -> None:
    """A run that was left: adopt it, or tell its end."""
    if finding in {Finding.CONFIRM_START, Finding.CONFIRM_AND_END}:
        await keeper.runs.confirm()
    if finding in {Finding.CONFIRM_START, Finding.ADOPT}:
        await _adopt(keeper)
    else:
        await _end(keeper)


def _after_run(keeper: Keeper) -> None:
    """The daemon before may have ended between the end of a run (or a failed start) and what follows it."""
    status = keeper.state.status
    if status in {Status.EXITED, Status.RESTARTING} or (
        status is Status.CREATED and keeper.state.error
    ):
        keeper.after_run()


async def _adopt(keeper: Keeper) -> None:
    if not keeper.runs.adopt():
        await _end(keeper)
        return
    await _limit_anew(keeper)
    cgroups, frozen = keeper.parts.tree.cgroups, keeper.state.status is Status.PAUSED
    with suppress(NotFound):  # it has just ended
        if await in_thread(lambda: cgroups.frozen(keeper.group)) != frozen:
            await in_thread(lambda: cgroups.freeze(keeper.group, frozen=frozen))


async def _limit_anew(keeper: Keeper) -> None:
    """The daemon before may have ended between other limits and their being written down."""
    config = keeper.parts.config.runtime
    limits = limits_of(keeper.record.request.resources, config.pids_max)
    with suppress(
        BakehouseError
    ):  # it has just ended, or uses more by now: what it was started with holds
        await keeper.parts.tree.limit(keeper.record.owner, keeper.group, limits)


async def _end(keeper: Keeper) -> None:
    await keeper.runs.end(await _ending(keeper))


async def _ending(keeper: Keeper) -> Ending:
    process = keeper.state.process
    if process is not None and process.boot_id != keeper.parts.boot_id:
        return Ending(UNKNOWN_CODE, now_ns(), "the host was restarted")
    ending = await await_ending(session_paths(keeper.parts.run_root, keeper.record))
    return attrs.evolve(ending, reason=LOST) if ending.reason else ending


async def _recover_exec(
    containers: Containers, ledger: Ledger, keeper: Keeper, row: ExecRecord
) -> None:
    made = Exec(containers.parts, ledger, keeper, row)
    containers.adopt_exec(made)
    if row.started and row.exit_code is None:
        await made.adopt()


async def _sweep(parts: Parts, live: Collection[str]) -> None:
    """What no record knows of goes: the groups and conmons of containers that do not run, and session directories."""
    for owner in await in_thread(parts.tree.owners):
        await _sweep_owner(parts, owner, live)
    directory = parts.run_root / "containers"
    await in_thread(lambda: _remove_strays(directory, live))


async def _sweep_owner(parts: Parts, owner: int, live: Collection[str]) -> None:
    """Groups first: without its group a conmon that is just creating cannot go on."""
    await parts.tree.sweep(owner, live)
    await end_monitors(parts.tree, owner, lambda container: container not in live)


def _remove_strays(directory: Path, live: Collection[str]) -> None:
    for path in directory.glob("u*/*"):
        if path.name not in live:
            shutil.rmtree(path, ignore_errors=True)

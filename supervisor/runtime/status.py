"""What a container can be, and what makes it so: one table.

Words: a *status* is what a container is, a *cause* is what happened to it (Docker's actions where Docker has one). The
only way from one status to another is :func:`advance`; the diagram in ``docs/architecture.md`` is printed from the table.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from supervisor.errors import Conflict


class Status(enum.StrEnum):
    """What a container is. The values are Docker's, where Docker has the status."""

    CREATING = "creating"
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    REMOVING = "removing"
    DEAD = "dead"
    REMOVED = "removed"


class Cause(enum.StrEnum):
    """What happened to a container."""

    CREATE = "create"
    START = "start"
    STARTED = "started"
    START_FAIL = "start fails"
    START_FAIL_AGAIN = "start fails again"
    PAUSE = "pause"
    UNPAUSE = "unpause"
    DIE = "die"
    DIE_TO_RESTART = "die, to restart"
    GIVE_UP = "give up"
    REMOVE = "remove"
    DESTROY = "destroy"
    REMOVE_FAIL = "remove fails"


TABLE: Mapping[tuple[Status, Cause], Status] = MappingProxyType(
    {
        (Status.CREATING, Cause.CREATE): Status.CREATED,
        (Status.CREATING, Cause.REMOVE): Status.REMOVING,
        (Status.CREATED, Cause.START): Status.STARTING,
        (Status.EXITED, Cause.START): Status.STARTING,
        (Status.RESTARTING, Cause.START): Status.STARTING,
        (Status.STARTING, Cause.STARTED): Status.RUNNING,
        (Status.STARTING, Cause.START_FAIL): Status.CREATED,
        (Status.STARTING, Cause.START_FAIL_AGAIN): Status.EXITED,
        (Status.RUNNING, Cause.PAUSE): Status.PAUSED,
        (Status.PAUSED, Cause.UNPAUSE): Status.RUNNING,
        (Status.RUNNING, Cause.DIE): Status.EXITED,
        (Status.PAUSED, Cause.DIE): Status.EXITED,
        (Status.RUNNING, Cause.DIE_TO_RESTART): Status.RESTARTING,
        (Status.PAUSED, Cause.DIE_TO_RESTART): Status.RESTARTING,
        (Status.RESTARTING, Cause.GIVE_UP): Status.EXITED,
        (Status.CREATED, Cause.REMOVE): Status.REMOVING,
        (Status.EXITED, Cause.REMOVE): Status.REMOVING,
        (Status.RESTARTING, Cause.REMOVE): Status.REMOVING,
        (Status.DEAD, Cause.REMOVE): Status.REMOVING,
        (Status.REMOVING, Cause.DESTROY): Status.REMOVED,
        (Status.REMOVING, Cause.REMOVE_FAIL): Status.DEAD,
    }
)
"""(status, cause) to status; a pair that is not here cannot happen."""

ALIVE = frozenset({Status.RUNNING, Status.PAUSED})
"""A process of the container exists."""

ACTIVE = ALIVE | {Status.RESTARTING}
"""It runs, or will again by itself: what Docker calls running."""

VISIBLE = frozenset(Status) - {Status.CREATING, Status.REMOVED}
"""What listings show."""


def advance(status: Status, cause: Cause) -> Status:
    """The status after ``cause``.

    Raises:
        Conflict: A container of this status cannot go through that.
    """
    after = TABLE.get((status, cause))
    if after is None:
        raise Conflict(f"cannot {cause.value} the container: it is {status.value}")
    return after


def diagram() -> str:
    """The table as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", f"    [*] --> {Status.CREATING.value}"]
    lines += [
        f"    {before.value} --> {after.value}: {cause.value}"
        for (before, cause), after in TABLE.items()
    ]
    lines.append(f"    {Status.REMOVED.value} --> [*]")
    return "\n".join(lines)


def check_runs(container_id: str, status: Status) -> None:
    """Let pass who wants something of the first process.

    Raises:
        Conflict: There is none; Docker's wording.
    """
    if status is Status.RESTARTING:
        raise Conflict(
            f"Container {container_id} is restarting, wait until the container is running"
        )
    if status not in ALIVE:
        raise Conflict(f"Container {container_id} is not running")


def cannot_remove(container_id: str, status: Status) -> str:
    """Why a container that runs is not removed; Docker's wording."""
    what = status.value if status in ACTIVE else Status.RUNNING.value
    advice = "Unpause and then stop" if status is Status.PAUSED else "Stop"
    return (
        f"You cannot remove a {what} container {container_id}. "
        f"{advice} the container before attempting removal or force remove"
    )

"""What is done about a container found at start."""

from __future__ import annotations

import pytest

from supervisor.runtime.recovery import Finding, Seen, decide
from supervisor.runtime.status import Status


@pytest.mark.parametrize(
    ("status", "seen", "finding"),
    [
        (Status.CREATING, Seen(), Finding.FORGET),
        (Status.CREATED, Seen(), Finding.KEEP),
        (Status.EXITED, Seen(traces=True), Finding.CLEAN),
        (Status.STARTING, Seen(), Finding.UNDO_START),
        (Status.STARTING, Seen(process_alive=True, runtime_state="created"), Finding.UNDO_START),
        (Status.STARTING, Seen(process_alive=True, runtime_state=None), Finding.UNDO_START),
        (Status.STARTING, Seen(process_alive=True, runtime_state="running"), Finding.CONFIRM_START),
        (Status.STARTING, Seen(ended_ns=1), Finding.CONFIRM_AND_END),
        (Status.RUNNING, Seen(process_alive=True), Finding.ADOPT),
        (Status.RUNNING, Seen(ended_ns=1), Finding.END),
        (Status.PAUSED, Seen(), Finding.END),
        (Status.REMOVING, Seen(traces=True), Finding.FINISH_REMOVAL),
    ],
)
def test_findings(status: Status, seen: Seen, finding: Finding) -> None:
    assert decide(status, seen) is finding


@pytest.mark.parametrize("status", Status)
def test_every_status_has_a_finding(status: Status) -> None:
    assert isinstance(decide(status, Seen()), Finding)

"""Other limits, or another restart policy, for a container that is there; pure.

As with dockerd, what an update does not say (0, or nothing) stays as it is. -1 lifts a limit on processes, processor time
or swap: what then holds is what holds for a container that was made without.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from protocol.errors import Fault
from supervisor.access.requests import Resources, UpdateRequest
from supervisor.errors import Conflict, faulty
from supervisor.linux.cgroup_model import UNLIMITED, CgroupLimits
from supervisor.runtime.cgroup_tree import limits_of
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.sanity import Host, resource_faults

LIFTED = -1


def updated(record: ContainerRecord, update: UpdateRequest, host: Host) -> ContainerRecord:
    """The record after the update.

    Raises:
        Conflict: The container cannot have both; Docker's wording.
        InvalidArgument: It makes no sense; every fault is told.
    """
    before, asked = record.request.resources, update.resources
    if update.restart is not None and record.request.auto_remove:
        raise Conflict(
            "Restart policy cannot be updated because AutoRemove is enabled for the container"
        )
    after = _merged(before, asked)
    faults = [*_conflicts(before, asked)] or [*_memory_faults(after)]
    faults += resource_faults(after, host)
    if faults:
        raise faulty(f"Cannot update container {record.id}", faults)
    request = attrs.evolve(
        record.request, resources=after, restart=update.restart or record.request.restart
    )
    return attrs.evolve(record, request=request)


def limits_between(before: Resources, after: Resources, pids_default: int) -> CgroupLimits:
    """What is to be set in a cgroup that is limited by ``before``: what is no limit any more is lifted."""
    old, new = limits_of(before, pids_default), limits_of(after, pids_default)
    lifted = {
        name: UNLIMITED
        for name in (
            "cpu_quota_microseconds",
            "memory_bytes",
            "memory_swap_bytes",
            "memory_reservation_bytes",
        )
        if getattr(old, name) is not None and getattr(new, name) is None
    }
    return attrs.evolve(new, **lifted)  # type: ignore[arg-type]  # all of them are integers


def _merged(before: Resources, asked: Resources) -> Resources:
    """What was there, under what was asked for."""
    said = {
        field.name: value
        for field in attrs.fields(Resources)
        if (value := getattr(asked, field.name)) not in {0, None, "", ()}
    }
    if asked.memory_bytes and asked.memory_swap_bytes is None:
        said["memory_swap_bytes"] = swap_of(before)
    for name in ("pids_max", "cpu_quota_microseconds"):
        if said.get(name) == LIFTED:
            said[name] = 0
    return attrs.evolve(before, **said)


def swap_of(resources: Resources) -> int | None:
    """Memory and swap together: twice the memory where nobody said, as in Docker."""
    if resources.memory_swap_bytes is None and resources.memory_bytes:
        return 2 * resources.memory_bytes
    return resources.memory_swap_bytes


def _conflicts(before: Resources, asked: Resources) -> Iterator[Fault]:
    """What cannot be said beside what was said before; Docker's wording."""
    if asked.cpu_nanos and (before.cpu_period_microseconds or before.cpu_quota_microseconds):
        what = "Period" if before.cpu_period_microseconds else "Quota"
        yield Fault(
            f"Conflicting options: Nano CPUs cannot be updated as CPU {what} has already been set"
        )
    for what, wanted in (
        ("Quota", asked.cpu_quota_microseconds),
        ("Period", asked.cpu_period_microseconds),
    ):
        if wanted and before.cpu_nanos:
            yield Fault(
                f"Conflicting options: CPU {what} cannot be updated as NanoCPUs has already been set"
            )
    swap = swap_of(before)
    if asked.memory_swap_bytes is None and swap and 0 < swap < asked.memory_bytes:
        yield Fault(
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
        )


def _memory_faults(after: Resources) -> Iterator[Fault]:
    swap = after.memory_swap_bytes
    if swap is not None and swap > 0:
        if not after.memory_bytes:
            yield Fault("You should always set the Memory limit when using Memoryswap limit")
        elif swap < after.memory_bytes:
            yield Fault("Minimum memoryswap limit should be larger than memory limit")
    if after.memory_bytes and after.memory_reservation_bytes > after.memory_bytes:
        yield Fault("Minimum memory limit can not be less than memory reservation limit")

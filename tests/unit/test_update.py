"""What an update makes of a container's limits."""

from __future__ import annotations

import attrs
import pytest

from supervisor.access.requests import Resources, RestartRequest, UpdateRequest
from supervisor.errors import Conflict, InvalidArgument
from supervisor.linux.cgroup_model import UNLIMITED
from supervisor.runtime.sanity import Host
from supervisor.runtime.update import limits_between, updated
from tests.unit.test_docker_views import RECORD

MB = 1 << 20
HOST = Host(cpus=2)


def after(before: Resources, asked: Resources) -> Resources:
    record = attrs.evolve(RECORD, request=attrs.evolve(RECORD.request, resources=before))
    return updated(record, UpdateRequest(asked), HOST).request.resources


@pytest.mark.parametrize(
    ("before", "asked", "expected"),
    [
        (Resources(cpu_shares=512), Resources(), Resources(cpu_shares=512)),
        (Resources(pids_max=9), Resources(pids_max=-1), Resources()),
        (Resources(pids_max=9), Resources(pids_max=20), Resources(pids_max=20)),
        (
            Resources(cpu_quota_microseconds=5_000),
            Resources(cpu_quota_microseconds=-1),
            Resources(),
        ),
        (
            Resources(memory_bytes=64 * MB),
            Resources(memory_bytes=32 * MB),
            Resources(memory_bytes=32 * MB, memory_swap_bytes=128 * MB),
        ),
        (
            Resources(memory_bytes=64 * MB),
            Resources(memory_bytes=256 * MB, memory_swap_bytes=-1),
            Resources(memory_bytes=256 * MB, memory_swap_bytes=-1),
        ),
        (Resources(), Resources(cpuset_cpus="0-1"), Resources(cpuset_cpus="0-1")),
    ],
)
def test_what_is_not_said_stays(before: Resources, asked: Resources, expected: Resources) -> None:
    assert after(before, asked) == expected


@pytest.mark.parametrize(
    ("before", "asked", "told"),
    [
        (Resources(cpu_nanos=1), Resources(cpu_quota_microseconds=9), "NanoCPUs has already"),
        (Resources(cpu_period_microseconds=9), Resources(cpu_nanos=1), "CPU Period has already"),
        (Resources(memory_bytes=8 * MB), Resources(memory_bytes=32 * MB), "already set memoryswap"),
        (Resources(), Resources(memory_swap_bytes=8 * MB), "always set the Memory limit"),
        (Resources(), Resources(cpu_nanos=3_000_000_000), "Range of CPUs"),
        (Resources(), Resources(cpuset_cpus="7"), "not available"),
    ],
)
def test_what_makes_no_sense_is_refused(before: Resources, asked: Resources, told: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        after(before, asked)
    assert told in caught.value.text()


def test_restart_policies() -> None:
    policy = RestartRequest("always")
    assert updated(RECORD, UpdateRequest(restart=policy), HOST).request.restart == policy
    assert updated(RECORD, UpdateRequest(), HOST).request.restart == RECORD.request.restart
    vanishing = attrs.evolve(RECORD, request=attrs.evolve(RECORD.request, auto_remove=True))
    with pytest.raises(Conflict, match="AutoRemove"):
        updated(vanishing, UpdateRequest(restart=policy), HOST)


def test_what_is_no_limit_any_more_is_lifted() -> None:
    before = Resources(cpu_quota_microseconds=5_000, memory_bytes=64 * MB, cpu_shares=512)
    lifted = limits_between(before, Resources(), 100)
    assert lifted.cpu_quota_microseconds == lifted.memory_bytes == UNLIMITED
    assert lifted.memory_swap_bytes == UNLIMITED
    assert lifted.memory_reservation_bytes is None
    assert limits_between(before, before, 100).memory_bytes == 64 * MB

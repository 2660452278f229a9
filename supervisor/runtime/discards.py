"""What of a request this host cannot limit: left out, and told as warnings in Docker's words; pure."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from supervisor.access.requests import ContainerRequest, Resources
from supervisor.linux.cgroup_model import Ability

NONE = Resources()

_DISCARDS: tuple[tuple[Ability, tuple[str, ...], str], ...] = (
    (
        Ability.MEMORY,
        ("memory_bytes", "memory_swap_bytes"),
        "Your kernel does not support memory limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ),
    (
        Ability.SWAPPINESS,
        ("swappiness",),
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded.",
    ),
    (
        Ability.MEMORY,
        ("memory_reservation_bytes",),
        "Your kernel does not support memory soft limit capabilities or the cgroup is not mounted. Limitation discarded.",
    ),
    (
        Ability.OOM_KILL_DISABLE,
        ("oom_kill_disable",),
        "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
    ),
    (
        Ability.PIDS,
        ("pids_max",),
        "Your kernel does not support PIDs limit capabilities or the cgroup is not mounted. PIDs limit discarded.",
    ),
    (
        Ability.CPU,
        ("cpu_shares",),
        "Your kernel does not support CPU shares or the cgroup is not mounted. Shares discarded.",
    ),
    (
        Ability.CPU,
        ("cpu_quota_microseconds", "cpu_period_microseconds", "cpu_nanos"),
        "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
    ),
    (
        Ability.CPUSET,
        ("cpuset_cpus", "cpuset_mems"),
        "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
    ),
    (
        Ability.IO_WEIGHT,
        ("io_weight",),
        "Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.",
    ),
    (
        Ability.IO_WEIGHT_DEVICE,
        ("io_device_weights",),
        "Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.",
    ),
    (
        Ability.IO_RATES,
        ("read_bytes_max",),
        "Your kernel does not support BPS Block I/O read limit or the cgroup is not mounted. Block I/O BPS read limit discarded.",
    ),
    (
        Ability.IO_RATES,
        ("write_bytes_max",),
        "Your kernel does not support BPS Block I/O write limit or the cgroup is not mounted. Block I/O BPS write limit discarded.",
    ),
    (
        Ability.IO_RATES,
        ("read_operations_max",),
        "Your kernel does not support IOPS Block read limit or the cgroup is not mounted. Block I/O IOPS read limit discarded.",
    ),
    (
        Ability.IO_RATES,
        ("write_operations_max",),
        "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. Block I/O IOPS write limit discarded.",
    ),
)


def fitted(
    request: ContainerRequest, abilities: frozenset[Ability]
) -> tuple[ContainerRequest, list[str]]:
    """The request without what the host cannot do, and what the caller is warned of."""
    resources, warnings = request.resources, []
    for ability, names, warning in _DISCARDS:
        said = [name for name in names if getattr(resources, name) != getattr(NONE, name)]
        if said and ability not in abilities:
            warnings.append(warning)
            resources = attrs.evolve(resources, **{name: getattr(NONE, name) for name in said})
    resources, swap = _without_swap(resources, abilities)
    warnings += [*swap, *_cautions(request, resources)]
    return attrs.evolve(request, resources=resources), warnings


def _without_swap(
    resources: Resources, abilities: frozenset[Ability]
) -> tuple[Resources, list[str]]:
    """Docker bounds swap with memory unless told that it is unlimited."""
    if not resources.memory_bytes or resources.memory_swap_bytes == -1 or Ability.SWAP in abilities:
        return resources, []
    return attrs.evolve(resources, memory_swap_bytes=-1), [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap."
    ]


def _cautions(request: ContainerRequest, resources: Resources) -> Iterator[str]:
    if resources.oom_kill_disable and not resources.memory_bytes:
        yield (
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system"
            " running out of resources."
        )
    if request.network_mode == "host" and request.ports:
        yield "Published ports are discarded when using host network mode"

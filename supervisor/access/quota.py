"""What an owner uses of what they may; pure.

Words: a *quota* is one line: what is counted, how much of it is used, and how much is allowed. *Counted* ones are refused
beyond their bound when the next is allotted; the kernel sees to processors, memory and processes.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

import attrs

from supervisor.config import OwnerConfig
from supervisor.errors import ResourceExhausted


class Unit(enum.Enum):
    """In what a quota is told."""

    COUNT = "count"
    BYTES = "bytes"
    CORES = "cores"


@attrs.frozen
class Use:
    """What an owner has and uses now.

    Attributes:
        cpu_cores: Processors busy with it, over the last sample.
        memory_bytes: Of all their containers and builds.
        pids: Processes and threads.
        containers: Running or not.
        builds: At work.
        networks: That they made.
        ports: Published on the host.
        volumes: Anonymous ones too.
        execs: At work.
        disk: Bytes their things took when they were last looked at, by kind.
    """

    cpu_cores: float = 0.0
    memory_bytes: int = 0
    pids: int = 0
    containers: int = 0
    builds: int = 0
    networks: int = 0
    ports: int = 0
    volumes: int = 0
    execs: int = 0
    disk: Mapping[str, int] = attrs.field(factory=dict)

    @property
    def disk_bytes(self) -> int:
        """All of it."""
        return sum(self.disk.values())


@attrs.frozen
class Quota:
    """One line.

    Attributes:
        allowed: ``None`` where there is no bound.
    """

    name: str
    unit: Unit
    used: float
    allowed: float | None


_TABLE: tuple[tuple[str, Unit, str, str], ...] = (
    ("cpu", Unit.CORES, "cpu_cores", "cpus_max"),
    ("memory", Unit.BYTES, "memory_bytes", "memory_bytes_max"),
    ("pids", Unit.COUNT, "pids", "pids_max"),
    ("containers", Unit.COUNT, "containers", "containers_max"),
    ("builds", Unit.COUNT, "builds", "builds_max"),
    ("networks", Unit.COUNT, "networks", "networks_max"),
    ("ports", Unit.COUNT, "ports", "ports_max"),
    ("volumes", Unit.COUNT, "volumes", "volumes_max"),
    ("execs", Unit.COUNT, "execs", "execs_max"),
    ("disk", Unit.BYTES, "disk_bytes", "disk_bytes_max"),
)
"""Name, unit, the field of :class:`Use`, and the setting that bounds it."""


def quotas(use: Use, limits: OwnerConfig) -> tuple[Quota, ...]:
    """Every line of an owner's, in the order they are told."""
    return tuple(
        Quota(name, unit, float(getattr(use, used)), float(getattr(limits, allowed)) or None)
        for name, unit, used, allowed in _TABLE
    )


def admit(what: str, have: int, allowed: int, *, more: int = 1, hint: str = "") -> None:
    """Let an owner have ``more`` of something.

    Args:
        what: In words that follow ``cannot``: ``create a volume``.
        have: How many they have.
        allowed: How many they may have; 0 is no bound.
        more: How many are wanted.
        hint: What uses most, or what makes room.

    Raises:
        ResourceExhausted: It would be more than they may.
    """
    if allowed and have + more > allowed:
        raise ResourceExhausted(
            f"cannot {what}: you have {have}, and {allowed} are allowed", hint=hint
        )

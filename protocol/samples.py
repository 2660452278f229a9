"""What the host, its owners and their containers use, as told over the wire.

Words: *cores* are processors' worth of work (1.5 is one and a half processors busy); *percent* of pressure is kernel
PSI's: the share of the last ten seconds in which work waited. Rates are over the ``seconds`` before the sample.
"""

from __future__ import annotations

import attrs


@attrs.frozen
class Usage:
    """What one group of processes uses.

    Attributes:
        cpu_cores: Processors busy with it.
        cpu_throttled_percent: Share of quota periods in which it was held back.
        memory_bytes: Held, without file cache that can be dropped.
        memory_limit_bytes: ``None`` where there is no limit; likewise ``pids_limit``.
        oom_kills: Processes killed for want of memory since the group was made.
        cpu_some_percent: Pressure; ``None`` where the host does not tell, likewise the other two.
    """

    cpu_cores: float = 0.0
    cpu_throttled_percent: float = 0.0
    memory_bytes: int = 0
    memory_peak_bytes: int = 0
    memory_limit_bytes: int | None = None
    pids: int = 0
    pids_limit: int | None = None
    io_read_bytes_per_second: float = 0.0
    io_write_bytes_per_second: float = 0.0
    oom_kills: int = 0
    cpu_some_percent: float | None = None
    memory_full_percent: float | None = None
    io_full_percent: float | None = None


@attrs.frozen
class ContainerSample:
    """One container, or one build.

    Attributes:
        container_id: Empty for a build.
        name: The container's name, or what the build is called.
    """

    container_id: str
    name: str
    owner: int
    usage: Usage


@attrs.frozen
class OwnerSample:
    """All that one owner runs."""

    owner: int
    containers: int
    usage: Usage


@attrs.frozen
class Waiting:
    """Leaves to start work: how many are given, and how many wait for one."""

    held: int = 0
    waiting: int = 0


@attrs.frozen
class QueuedWork:
    """One start or build step that holds leave to work, or waits for it.

    Attributes:
        what: In words: ``container web``, ``step 3 of build ab12``.
        kind: ``start`` or ``step``; each has a queue of its own.
        seconds: For how long it has held its leave, or waited.
        waiting: Whether it waits.
        why: Why it waits, in words; empty for what does not.
    """

    owner: int
    what: str
    kind: str
    seconds: float
    waiting: bool
    why: str = ""


@attrs.frozen
class Queue:
    """Who works, who waits for what, and why.

    Attributes:
        verdict: Of the host, with its ``reason``.
        relief: The steps of relief that stand, the mildest first.
        work: What works first, then what waits, in the order in which it will be let in.
        others: How much of other people's is left out.
    """

    verdict: str
    reason: str
    relief: tuple[str, ...] = ()
    work: tuple[QueuedWork, ...] = ()
    others: int = 0

    def visible_to(self, uid: int) -> Queue:
        """The queue as one person may see it: their own work, and how much there is of others'."""
        own = tuple(each for each in self.work if each.owner == uid)
        return attrs.evolve(self, work=own, others=self.others + len(self.work) - len(own))


@attrs.frozen
class HostSample:
    """The whole host at one moment, and who uses it.

    Attributes:
        time_ns: Wall time, nanoseconds since 1970.
        seconds: Over how long the rates were taken; 0 in the first sample.
        memory_available_bytes: What can be had without swapping.
        cpu_some_percent: Pressure; ``None`` where the kernel does not tell, likewise the others.
        verdict: ``calm``, ``tight`` or ``critical``, and the ``reason`` in words.
        owners: Those who run something, by uid; ``containers`` in the same order.
    """

    time_ns: int
    seconds: float
    processors: int
    cpu_cores: float
    load1: float
    load5: float
    load15: float
    memory_total_bytes: int
    memory_available_bytes: int
    swap_total_bytes: int = 0
    swap_free_bytes: int = 0
    cpu_some_percent: float | None = None
    memory_some_percent: float | None = None
    memory_full_percent: float | None = None
    io_some_percent: float | None = None
    io_full_percent: float | None = None
    verdict: str = "calm"
    reason: str = ""
    tickets: Waiting = Waiting()
    owners: tuple[OwnerSample, ...] = ()
    containers: tuple[ContainerSample, ...] = ()

    def visible_to(self, uid: int) -> HostSample:
        """The sample as one person may see it: the host, and of owners and containers their own."""
        return attrs.evolve(
            self,
            owners=tuple(owner for owner in self.owners if owner.owner == uid),
            containers=tuple(each for each in self.containers if each.owner == uid),
        )

"""The few helpers that tasks share: bounded cleanup, and work in threads.

Rules: no function takes a timeout (callers use ``trio.fail_after``); the only shield in the program is
:func:`finish_within`; threads are only for calls that block in the kernel or burn CPU, each under a named limiter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Generic, TypeVar

import trio

from supervisor import faults
from supervisor.errors import BakehouseError

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)

DISK = trio.CapacityLimiter(8)
"""File system calls that may block."""

WALK = trio.CapacityLimiter(2)
"""Looking at every file of a tree, which may take long: whoever asks for much waits for themselves."""

DIGEST = trio.CapacityLimiter(4)
"""Hashing and (de)compression: CPU-bound, outside the interpreter lock."""


@contextmanager
def finish_within(seconds: float) -> Iterator[trio.CancelScope]:
    """Cleanup that must wait, but not for ever: shielded from cancellation, ended after ``seconds``."""
    with trio.CancelScope(shield=True, deadline=trio.current_time() + seconds) as scope:
        yield scope


class Turns(Generic[K]):
    """One at a time for each key; nothing is kept of a key that nobody wants."""

    def __init__(self) -> None:
        self._wanted: dict[K, tuple[trio.Lock, list[None]]] = {}

    @asynccontextmanager
    async def of(self, key: K) -> AsyncIterator[None]:
        """While this is open it is our turn."""
        lock, waiting = self._wanted.setdefault(key, (trio.Lock(), []))
        waiting.append(None)
        try:
            async with lock:
                yield
        finally:
            waiting.pop()
            if not waiting:
                self._wanted.pop(key, None)


async def in_thread(work: Callable[[], T], limiter: trio.CapacityLimiter = DISK) -> T:
    """Run ``work`` in a thread and wait for its end, even when cancelled: it may hold a resource."""
    faults.before(faults.Door.THREAD, work)
    done = await trio.to_thread.run_sync(work, limiter=limiter)
    faults.after(faults.Door.THREAD, work)
    return done


async def together(*jobs: Callable[[], Awaitable[None]]) -> None:
    """Do all ``jobs`` at once; the first expected failure cancels the others and is raised as it is, ungrouped.

    Raises:
        BakehouseError: What the first job that failed raised.
    """
    await _at_once(jobs, all_to_their_end=False)


async def each_to_its_end(*jobs: Callable[[], Awaitable[None]]) -> None:
    """Do all ``jobs`` at once, each to its end also when others fail; for taking things apart.

    Raises:
        BakehouseError: What the first job that failed raised.
    """
    await _at_once(jobs, all_to_their_end=True)


async def _at_once(
    jobs: Sequence[Callable[[], Awaitable[None]]], *, all_to_their_end: bool
) -> None:
    failures: list[BakehouseError] = []

    async def do(job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
        except BakehouseError as error:
            failures.append(error)
            if not all_to_their_end:
                nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for job in jobs:
            nursery.start_soon(do, job)
    if failures:
        raise failures[0]


async def first_of(*events: trio.Event) -> None:
    """Return when one of ``events`` is set."""
    await any_of(*(event.wait for event in events))


async def any_of(*waits: Callable[[], Awaitable[None]]) -> None:
    """Return when one of ``waits`` does; the others are cancelled."""

    async def wait(one: Callable[[], Awaitable[None]]) -> None:
        await one()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for one in waits:
            nursery.start_soon(wait, one)

"""Changes of one container, done in its keeper's nursery, so that a client who goes away takes nothing with them.

Words: a *change* is what somebody asks for (start, stop, remove, …); its *outcome* is for whoever waits for it.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

import attrs
import trio

from supervisor.errors import BakehouseError, NotFound, ResourceExhausted, Unavailable

T = TypeVar("T")

CHANGES_WAITING_MAX = 64

log = logging.getLogger(__name__)


@attrs.define
class _Outcome(Generic[T]):
    """What became of a change, for whoever waits for it. Neither value nor error: it was cut off."""

    done: trio.Event = attrs.field(factory=trio.Event)
    value: list[T] = attrs.field(factory=list)
    error: BakehouseError | None = None


@attrs.define(eq=False)
class Changes:
    """The changes that are under way for one container.

    Attributes:
        container_id: Whose.
        gone: Set when the container is removed.
    """

    container_id: str
    gone: trio.Event = attrs.field(factory=trio.Event)
    _nursery: trio.Nursery | None = None
    _waiting: int = 0

    def open(self, nursery: trio.Nursery) -> None:
        """From now on changes are done there."""
        self._nursery = nursery

    def close(self) -> None:
        """No change is done any more."""
        self._nursery = None

    async def perform(self, change: Callable[[], Awaitable[T]]) -> T:
        """Do ``change`` and wait for it; it goes on if the caller does not.

        Raises:
            BakehouseError: What the change raised.
            NotFound: The container was removed meanwhile; Docker's wording.
            ResourceExhausted: Too many changes wait for this container.
            Unavailable: The daemon stops.
        """
        if self._waiting >= CHANGES_WAITING_MAX:
            raise ResourceExhausted(
                f"cannot change container {self.container_id}: {CHANGES_WAITING_MAX} changes already wait for it"
            )
        outcome: _Outcome[T] = _Outcome()
        self._nursery_now().start_soon(self._settle, change, outcome)
        await outcome.done.wait()
        if outcome.error is not None:
            raise outcome.error
        if not outcome.value:
            raise self._over()
        return outcome.value[0]

    def begin(self, change: Callable[[], Awaitable[None]]) -> None:
        """Do ``change``; nobody waits for it, so an expected failure is only logged."""
        self._nursery_now().start_soon(self._unattended, change)

    async def _unattended(self, change: Callable[[], Awaitable[None]]) -> None:
        outcome: _Outcome[None] = _Outcome()
        await self._settle(change, outcome)
        if outcome.error is not None:
            log.warning("container %s: %s", self.container_id, outcome.error.message)

    async def _settle(self, change: Callable[[], Awaitable[T]], outcome: _Outcome[T]) -> None:
        self._waiting += 1
        try:
            outcome.value.append(await change())
        except BakehouseError as error:
            outcome.error = error
        finally:
            self._waiting -= 1
            outcome.done.set()

    def _nursery_now(self) -> trio.Nursery:
        if self._nursery is None or self.gone.is_set():
            raise self._over()
        return self._nursery

    def _over(self) -> BakehouseError:
        if self.gone.is_set():
            return NotFound(f"No such container: {self.container_id}")
        return Unavailable(
            f"cannot change container {self.container_id}: the daemon stops",
            hint="try again in a moment",
        )

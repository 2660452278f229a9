"""The watchdog is fed as long as the daemon's loops live, each of which answers for itself.

Words: a *heart* is a long-lived loop that can be asked for a *beat*: something it does only if it still goes round.

Rules: half the service manager's patience passes between two rounds. It is fed when all hearts have answered in the same
round; one that has not is named in the log and, since nothing feeds the watchdog then, soon takes the daemon with it:
containers do not notice, and the next daemon recovers. That the event loop itself hangs is noticed likewise.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import attrs
import trio

from supervisor.linux.systemd import ServiceManager

ROUNDS = 2
ANSWER_SHARE = 0.8
"""Of a round's time, how much there is to answer in."""

log = logging.getLogger(__name__)

Beat = Callable[[], Awaitable[None]]


@attrs.define(eq=False)
class Heart:
    """One loop.

    Attributes:
        name: For the log.
        beat: Returns when the loop has gone round.
        asked: A beat is awaited; it may not be asked for another.
        told: Why it did not answer the last time, if it said.
    """

    name: str
    beat: Beat
    asked: bool = False
    told: str = ""

    async def answer(self) -> None:
        """Ask, and wait however long it takes."""
        self.asked, self.told = True, ""
        try:
            await self.beat()
        except OSError as error:
            self.told = str(error)
        finally:
            self.asked = False


def silent(hearts: Iterable[Heart]) -> tuple[str, ...]:
    """Who has not answered, with the reason where there is one; pure."""
    return tuple(
        f"{heart.name} ({heart.told})" if heart.told else heart.name
        for heart in hearts
        if heart.asked or heart.told
    )


async def feed(manager: ServiceManager, beats: Mapping[str, Beat]) -> None:
    """Feed the watchdog until cancelled; without one, nothing."""
    if not manager.watchdog_seconds:
        return
    every = manager.watchdog_seconds / ROUNDS
    hearts = [Heart(name, beat) for name, beat in beats.items()]
    async with trio.open_nursery() as nursery:
        while True:
            begun = trio.current_time()
            for heart in hearts:
                if not heart.asked:
                    nursery.start_soon(heart.answer)
            await _answered(hearts, begun + every * ANSWER_SHARE)
            if hung := silent(hearts):
                log.error("the watchdog is not fed: no answer from %s", ", ".join(hung))
            else:
                manager.alive()
            await trio.sleep_until(begun + every)


async def _answered(hearts: Iterable[Heart], until: float) -> None:
    """Wait until all have, but no longer than ``until``. They need milliseconds: a look now and then will do."""
    pause = 0.005
    await trio.sleep(pause)
    while silent(hearts) and trio.current_time() < until:
        await trio.sleep(min(pause, max(until - trio.current_time(), 0.0)))
        pause = min(2 * pause, 1.0)

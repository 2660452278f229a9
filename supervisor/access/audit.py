"""Refusals made known: every one to the person who asked, a bounded number a minute to the journal.

Words: a *window* is one minute in which refusals of one owner are counted; it begins with the first.

Rules: the first refusals of a window are events of their own, the rest are told as one event with their count when the
window ends; so nobody can push out history, and nothing is silently dropped. Strangers have no history of their own
and share one window, root's.
"""

from __future__ import annotations

import math
import resource
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import attrs
import trio

from protocol.events import AccessRefuse
from supervisor.access import policy
from supervisor.access.identity import Identity
from supervisor.access.policy import Action, Bounds, Request
from supervisor.access.rules import TABLE
from supervisor.access.served import check_served
from supervisor.config import Config
from supervisor.errors import BakehouseError, PermissionDenied
from supervisor.events.journal import Events
from supervisor.tasks import finish_within

WINDOW_SECONDS = 60.0
CLOSING_SECONDS = 5.0
MESSAGE_LENGTH_MAX = 2_000

GRANT_RULE = "mount-source"

STRANGERS = 0
"""The owner under whom the refusals of strangers are written: root."""


@attrs.define(eq=False)
class _Window:
    """What was refused to one owner in the current minute."""

    ends: float
    told: int = 0
    untold: int = 0


@attrs.define(eq=False)
class Audit:
    """The gate every request passes, and the one who writes down what was refused. Made by :func:`open_audit`."""

    bounds: Bounds
    _events: Events
    _refusals_per_minute_max: int
    _windows: dict[int, _Window] = attrs.field(factory=dict)
    _opened: trio.Event = attrs.field(factory=trio.Event)

    def configure(self, config: Config) -> None:
        """Judge by these settings from now on."""
        self.bounds = Bounds.of(config, hard_limits())
        self._refusals_per_minute_max = config.journal.refusals_per_minute_max

    async def enforce(
        self, identity: Identity, action: Action, request: Request, subject: str = ""
    ) -> None:
        """Let ``request`` pass if it is served and allowed.

        Args:
            identity: Who asks.
            action: What for.
            request: The parsed object that the handler will act on.
            subject: The name of the thing, for the message.

        Raises:
            InvalidArgument: It asks for what nobody is served.
            PermissionDenied: Policy refuses it; every rule that does is told, and it is an event.
        """
        check_served(request, action, subject)
        verdict = policy.decide(identity, request, self.bounds, TABLE)
        try:
            policy.check(verdict, action, subject)
        except PermissionDenied as error:
            rules = ",".join(sorted({refusal.rule for refusal in verdict.refusals}))
            await self.refused(identity.owner, action.value, rules, error.text())
            raise

    @asynccontextmanager
    async def granting(self, owner: int, source: str, *, read_only: bool) -> AsyncIterator[None]:
        """Around the opening of a host path with the caller's credentials: what the kernel refuses is a rule's refusal.

        Args:
            owner: Whose credentials.
            source: The path.
            read_only: Whether only reading was asked for.

        Raises:
            PermissionDenied: With the rule's name and what would be allowed; it is an event.
        """
        try:
            yield
        except PermissionDenied as error:
            refusal = PermissionDenied(
                f"cannot mount {source}: refused by the rule {GRANT_RULE}: {error.message}",
                hint=f"allowed: what you may {'read' if read_only else 'write, or with :ro what you may read'}",
            )
            await self.refused(owner, "mount", GRANT_RULE, refusal.message)
            raise refusal from error

    async def refused(self, owner: int, action: str, rule: str, message: str) -> None:
        """Write down that something was refused, unless this owner's minute is full; then count it.

        Args:
            owner: Whose journal it goes to; :data:`STRANGERS` for those who were not let in.
            action: What was asked for.
            rule: The name of the rule, or several, separated by commas.
            message: What the person was told.
        """
        now = trio.current_time()
        window = self._windows.get(owner)
        if window is None:
            window = self._windows[owner] = _Window(ends=now + WINDOW_SECONDS)
            self._opened.set()
        data = AccessRefuse(action=action, rule=rule, message=message[:MESSAGE_LENGTH_MAX])
        if window.told >= self._refusals_per_minute_max:
            window.untold += 1
        elif await self._tell(owner, data):
            window.told += 1
        else:
            window.untold += 1

    async def _tell(self, owner: int, data: AccessRefuse) -> bool:
        """Put it into the journal; whether that went well. A full disk must not turn a refusal into another error."""
        try:
            await self._events.emit(data, owner=owner, subject=str(owner))
        except BakehouseError:
            return False
        return True

    async def _close_windows(self) -> None:
        """Close each window when its minute is over."""
        while True:
            if not self._windows:
                self._opened = trio.Event()
                await self._opened.wait()
            await trio.sleep_until(min(window.ends for window in self._windows.values()))
            await self._close(trio.current_time())

    async def _close(self, now: float) -> None:
        """Close the windows that end by ``now`` and tell what they counted."""
        ended = [(owner, window) for owner, window in self._windows.items() if window.ends <= now]
        for owner, window in ended:
            if not window.untold:
                del self._windows[owner]
                continue
            count, window.untold = window.untold, 0
            message = f"{count} more refusals within a minute"
            told = await self._tell(
                owner, AccessRefuse(action="various", rule="various", message=message, count=count)
            )
            window.untold += 0 if told else count
            window.ends = trio.current_time() + WINDOW_SECONDS
            window.told = 0


def hard_limits() -> Mapping[str, int]:
    """The daemon's hard resource limits by ulimit name, which no container can go above; unlimited ones are left out."""
    found: dict[str, int] = {}
    for name in dir(resource):
        if name.startswith("RLIMIT_"):
            hard = resource.getrlimit(getattr(resource, name))[1]
            if hard != resource.RLIM_INFINITY:
                found[name.removeprefix("RLIMIT_").lower()] = hard
    return found


@asynccontextmanager
async def open_audit(events: Events, config: Config) -> AsyncIterator[Audit]:
    """The gate; on leaving, what was counted and not told yet is told."""
    audit = Audit(Bounds.of(config, hard_limits()), events, config.journal.refusals_per_minute_max)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(audit._close_windows)  # noqa: SLF001  # its maker
        try:
            yield audit
        finally:
            nursery.cancel_scope.cancel()
            with finish_within(CLOSING_SECONDS):
                await audit._close(math.inf)  # noqa: SLF001  # its maker

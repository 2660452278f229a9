"""Whether and when a container is started again by its restart policy; pure.

As in dockerd: it waits 0.1 s, then twice as long each time, and never more than a minute; after a run of 10 s it begins
anew. Whoever asks for a container's end ends its restarts with it. At the daemon's start ``always`` starts whatever has
ever run, ``unless-stopped`` what nobody stopped; ``on-failure`` answers a failure, and a daemon's start is none.

Words: the *back-off* is what a policy remembers from one run to the next.
"""

from __future__ import annotations

import attrs

from supervisor.access.requests import RestartRequest

DELAY_NS_MIN = 100_000_000
DELAY_NS_MAX = 60_000_000_000
DELAY_FACTOR = 2
LONG_RUN_NS = 10_000_000_000


@attrs.frozen
class Backoff:
    """What a restart policy remembers.

    Attributes:
        count: How often it has started the container since somebody did.
        delay_ns: How long it waited, or waits, before the last of these; 0 before the first.
        due_ns: When that is or was due, wall time.
    """

    count: int = 0
    delay_ns: int = 0
    due_ns: int = 0

    def remaining_ns(self, now_ns: int) -> int:
        """How long is still to be waited; never longer than the delay itself, also when the clock was set back."""
        return min(max(self.due_ns - now_ns, 0), self.delay_ns)


@attrs.frozen
class Ended:
    """The run that is over.

    Attributes:
        code: Its exit code; 255 where it is not known, which is a failure.
        ran_ns: How long it lasted.
        stopped: Somebody asked for its end.
    """

    code: int
    ran_ns: int
    stopped: bool = False


def after_run(
    policy: RestartRequest, ended: Ended, backoff: Backoff, now_ns: int
) -> Backoff | None:
    """The back-off before the next run, or None when there is none."""
    if ended.stopped or not _wants(policy, ended.code, backoff.count):
        return None
    delay_ns = next_delay_ns(backoff.delay_ns, ended.ran_ns)
    return Backoff(backoff.count + 1, delay_ns, now_ns + delay_ns)


def next_delay_ns(delay_ns: int, ran_ns: int) -> int:
    """How long is waited after a run of ``ran_ns``, when it was ``delay_ns`` the last time."""
    if not delay_ns or ran_ns >= LONG_RUN_NS:
        return DELAY_NS_MIN
    return min(DELAY_FACTOR * delay_ns, DELAY_NS_MAX)


def at_daemon_start(
    policy: RestartRequest, *, stopped: bool, has_run: bool, cut_off: bool = False
) -> bool:
    """Whether a container that does not run is started when the daemon is.

    Args:
        policy: The container's.
        stopped: Somebody asked for its end since it was last started by hand.
        has_run: It has ever run.
        cut_off: It was being started when the daemon ended.
    """
    match policy.name:
        case "always":
            return has_run or cut_off
        case "unless-stopped":
            return (has_run or cut_off) and not stopped
        case "on-failure":
            return cut_off and not stopped
        case _:
            return False


def _wants(policy: RestartRequest, code: int, count: int) -> bool:
    match policy.name:
        case "always" | "unless-stopped":
            return True
        case "on-failure":
            return code != 0 and (not policy.attempts_max or count < policy.attempts_max)
        case _:
            return False

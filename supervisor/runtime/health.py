"""What a container's health check is, and what its probes' answers make of its health; pure.

As in dockerd: a container that runs is *starting* until a probe succeeds (*healthy*) or too many in a row have failed
(*unhealthy*); failures within the start period do not count while it is starting. What the caller does not say of a
check is the image's, and then a default.

Words: a *probe* is one run of the check's command in the container; the *streak* is how many have failed in a row.
"""

from __future__ import annotations

import enum

import attrs

from supervisor.access.requests import HealthRequest
from supervisor.clock import NANOSECONDS_PER_SECOND
from supervisor.oci.image import HealthCheck

INTERVAL_NS = 30_000_000_000
TIMEOUT_NS = 30_000_000_000
RETRIES = 3
LOG_ENTRIES_MAX = 5
OUTPUT_BYTES_MAX = 4_096
CUT_SHORT = "..."
DEFAULT_SHELL = ("/bin/sh", "-c")
NOT_RUN_CODE = -1

_UNITS = ((3_600_000_000_000, "h"), (60_000_000_000, "m"))


class Health(enum.StrEnum):
    """How a container is; the values are Docker's."""

    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@attrs.frozen
class Plan:
    """A health check that is carried out; times in nanoseconds.

    Attributes:
        interval_ns: From the end of a probe (or the start of the container) to the next.
        timeout_ns: A probe that takes longer is killed, and has failed.
        start_period_ns: Failures before the first success count only after this.
        retries: So many failures in a row make it unhealthy.
    """

    command: tuple[str, ...]
    interval_ns: int = INTERVAL_NS
    timeout_ns: int = TIMEOUT_NS
    start_period_ns: int = 0
    retries: int = RETRIES


@attrs.frozen
class ProbeResult:
    """What came of one probe; wall times. An exit code of -1 is a probe that could not be run, or was killed."""

    start_ns: int
    end_ns: int
    exit_code: int
    output: str


@attrs.frozen
class HealthState:
    """How a container with a health check is; the log is oldest first."""

    status: Health = Health.STARTING
    failing_streak: int = 0
    log: tuple[ProbeResult, ...] = ()


def merged(asked: HealthRequest | None, image: HealthCheck | None) -> HealthRequest | None:
    """What was asked for, over what the image says."""
    if image is None:
        return asked
    said = asked or HealthRequest()
    return HealthRequest(
        test=said.test or image.test,
        interval_ns=said.interval_ns or image.interval_ns,
        timeout_ns=said.timeout_ns or image.timeout_ns,
        start_period_ns=said.start_period_ns or image.start_period_ns,
        retries=said.retries or image.retries,
    )


def plan_of(check: HealthRequest | None, shell: tuple[str, ...]) -> Plan | None:
    """What is to be carried out, if anything is."""
    kind, *words = check.test if check is not None and check.test else ("NONE",)
    if check is None or kind not in {"CMD", "CMD-SHELL"} or not words:
        return None
    return Plan(
        command=tuple(words) if kind == "CMD" else (*(shell or DEFAULT_SHELL), words[0]),
        interval_ns=check.interval_ns or INTERVAL_NS,
        timeout_ns=check.timeout_ns or TIMEOUT_NS,
        start_period_ns=check.start_period_ns,
        retries=check.retries if check.retries > 0 else RETRIES,
    )


def begun(before: HealthState | None) -> HealthState:
    """A run begins; what earlier ones answered is still told."""
    return HealthState(log=before.log if before else ())


def after_probe(
    plan: Plan, health: HealthState, result: ProbeResult, started_ns: int
) -> HealthState:
    """How the container is after one more probe. ``started_ns`` is when its run began."""
    log = (*health.log, result)[-LOG_ENTRIES_MAX:]
    if result.exit_code == 0:
        return HealthState(Health.HEALTHY, 0, log)
    lenient = health.status is Health.STARTING
    if lenient and result.start_ns - started_ns < plan.start_period_ns:
        return attrs.evolve(health, log=log)
    streak = health.failing_streak + 1
    status = Health.UNHEALTHY if streak >= plan.retries else health.status
    return HealthState(status, streak, log)


def output_text(output: bytes, *, cut: bool) -> str:
    """A probe's output as it is kept; ``cut`` when there was more."""
    return output.decode(errors="replace") + (CUT_SHORT if cut else "")


def took_too_long(timeout_ns: int) -> str:
    """What is kept of a probe that was killed; Docker's wording."""
    return f"Health check exceeded timeout ({go_duration(timeout_ns)})"


def go_duration(time_ns: int) -> str:
    """A length of time as Go writes it: ``1m30s``, ``500ms``."""
    if time_ns < NANOSECONDS_PER_SECOND:
        return f"{time_ns / 1_000_000:g}ms"
    text = ""
    for unit_ns, name in _UNITS:
        number, time_ns = divmod(time_ns, unit_ns)
        text += f"{number}{name}" if number or text else ""
    return f"{text}{time_ns / NANOSECONDS_PER_SECOND:g}s"

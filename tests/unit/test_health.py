"""What probes' answers make of a container's health."""

from __future__ import annotations

import pytest

from supervisor.access.requests import HealthRequest
from supervisor.oci.image import HealthCheck
from supervisor.runtime.health import (
    INTERVAL_NS,
    RETRIES,
    TIMEOUT_NS,
    HealthState,
    Plan,
    ProbeResult,
    after_probe,
    begun,
    go_duration,
    merged,
    output_text,
    plan_of,
    took_too_long,
)

SECOND = 1_000_000_000
STARTED = 1_700_000_000 * SECOND


def told(plan: Plan, *answers: tuple[float, int]) -> list[str]:
    """How the container is after each of (seconds since the start, exit code)."""
    health, words = HealthState(), []
    for seconds, code in answers:
        time_ns = STARTED + int(seconds * SECOND)
        health = after_probe(plan, health, ProbeResult(time_ns, time_ns, code, ""), STARTED)
        words.append(f"{health.status} {health.failing_streak}")
    return words


@pytest.mark.parametrize(
    ("plan", "answers", "words"),
    [
        (Plan(("x",)), [(1, 0), (2, 1), (3, 0)], ["healthy 0", "healthy 1", "healthy 0"]),
        (
            Plan(("x",), retries=2),
            [(1, 1), (2, -1), (3, 1), (4, 0)],
            ["starting 1", "unhealthy 2", "unhealthy 3", "healthy 0"],
        ),
        (
            Plan(("x",), retries=1, start_period_ns=10 * SECOND),
            [(1, 1), (9.9, 1), (10, 1)],
            ["starting 0", "starting 0", "unhealthy 1"],
        ),
        (
            Plan(("x",), retries=1, start_period_ns=10 * SECOND),
            [(1, 0), (2, 1)],
            ["healthy 0", "unhealthy 1"],
        ),
    ],
)
def test_answers(plan: Plan, answers: list[tuple[float, int]], words: list[str]) -> None:
    assert told(plan, *answers) == words


def test_the_last_five_answers_are_kept_also_over_a_restart() -> None:
    health = HealthState()
    for number in range(7):
        health = after_probe(Plan(("x",)), health, ProbeResult(number, number, 1, ""), 0)
    assert [probe.start_ns for probe in health.log] == [2, 3, 4, 5, 6]
    assert begun(health) == HealthState(log=health.log)
    assert begun(None) == HealthState()


@pytest.mark.parametrize(
    ("test", "shell", "command"),
    [
        ((), (), None),
        (("NONE",), (), None),
        (("CMD",), (), None),
        (("CMD", "curl", "-f"), (), ("curl", "-f")),
        (("CMD-SHELL", "curl -f || exit 1"), (), ("/bin/sh", "-c", "curl -f || exit 1")),
        (("CMD-SHELL", "x"), ("/bin/bash", "-ec"), ("/bin/bash", "-ec", "x")),
        (("SOMETHING", "x"), (), None),
    ],
)
def test_plans(
    test: tuple[str, ...], shell: tuple[str, ...], command: tuple[str, ...] | None
) -> None:
    plan = plan_of(HealthRequest(test), shell)
    assert (plan and plan.command) == command
    if plan is not None:
        assert (plan.interval_ns, plan.timeout_ns, plan.retries) == (
            INTERVAL_NS,
            TIMEOUT_NS,
            RETRIES,
        )


def test_what_is_not_asked_for_is_the_images() -> None:
    image = HealthCheck(("CMD", "probe"), 1, 2, 3, 4)
    assert merged(None, None) is None
    assert merged(None, image) == HealthRequest(("CMD", "probe"), 1, 2, 3, 4)
    assert merged(HealthRequest(interval_ns=9), image) == HealthRequest(
        ("CMD", "probe"), 9, 2, 3, 4
    )
    off = merged(HealthRequest(("NONE",)), image)
    assert plan_of(off, ()) is None


def test_words() -> None:
    assert output_text(b"a" * 3, cut=True) == "aaa..."
    assert output_text(b"\xff", cut=False) == "�"
    assert took_too_long(90 * SECOND) == "Health check exceeded timeout (1m30s)"
    shown = [go_duration(ns) for ns in (1_000_000, 500_000_000, SECOND, 3_600 * SECOND)]
    assert shown == ["1ms", "500ms", "1s", "1h0m0s"]

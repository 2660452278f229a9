"""The verdict: what raises it, what lowers it, and that it does not flutter."""

from __future__ import annotations

from supervisor.config import MonitorConfig
from supervisor.monitor.detect import CALM, Figures, Level, Verdict, judge

CONFIG = MonitorConfig()


def play(values: list[Figures]) -> list[Verdict]:
    """The verdicts after each of the figures."""
    series: list[Figures] = []
    verdict, told = CALM, []
    for figures in values:
        series.append(figures)
        verdict = judge(series, verdict, CONFIG)
        told.append(verdict)
    return told


def memory(*percents: float) -> list[Figures]:
    return [Figures(second, value, 0.0, 0.0) for second, value in enumerate(percents)]


def levels(verdicts: list[Verdict]) -> str:
    return "".join(".tx"[verdict.level] for verdict in verdicts)


def test_nothing_is_calm() -> None:
    assert judge([], CALM, CONFIG) == CALM
    assert levels(play(memory(0, 5, 19))) == "..."


def test_it_rises_at_once_with_its_reason() -> None:
    told = play(memory(0, 25))
    assert levels(told) == ".t"
    assert told[1].reason == "work waited for memory 25 % of the last 10 s (mark: 20 %)"


def test_it_falls_when_it_has_been_well_below_for_a_while() -> None:
    assert levels(play(memory(25, 15, 15, 15, 15, 15, 15, 15))) == "tttttttt"
    assert levels(play(memory(25, 5, 5, 5, 5, 5, 5, 5))) == "tttttt.."


def test_it_does_not_flutter_around_the_mark() -> None:
    told = play(memory(*[21, 19] * 20))
    assert levels(told) == "t" * 40
    assert told[7].reason.startswith("easing: ")


def test_all_waiting_for_memory_is_critical_and_eases_by_steps() -> None:
    bad = [Figures(second, 60.0, 40.0, 0.0) for second in range(2)]
    fair = [Figures(second, 30.0, 0.0, 0.0) for second in range(2, 10)]
    good = [Figures(second, 0.0, 0.0, 0.0) for second in range(10, 18)]
    assert levels(play(bad + fair + good)) == "xx" + "x" * 5 + "t" * 3 + "t" * 5 + "." * 3


def test_disks_make_it_tight_only() -> None:
    verdict = judge([Figures(0, 0.0, 0.0, 100.0)], CALM, CONFIG)
    assert verdict.level is Level.TIGHT
    assert "disks" in verdict.reason


def test_scarce_memory_counts_only_where_the_kernel_tells_no_pressure() -> None:
    assert judge([Figures(0, memory_available_percent=1.0)], CALM, CONFIG).level is Level.CRITICAL
    assert judge([Figures(0, memory_available_percent=3.0)], CALM, CONFIG).level is Level.TIGHT
    assert judge([Figures(0, 0.0, 0.0, 0.0, memory_available_percent=1.0)], CALM, CONFIG) == CALM


def test_the_processor_is_no_figure() -> None:
    assert not any("cpu" in name for name in Figures.__annotations__)

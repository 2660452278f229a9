"""What the doctor says of a host; pure.

Words: a *finding* is one line; its *standing* says how bad it is. *Unseen* is what this caller cannot look at.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import asdict, dataclass

SERVES, DOES_NOT_SERVE = 0, 1


class Standing(enum.StrEnum):
    """How it is, from the best to the worst."""

    OK = "ok"
    UNSEEN = "unseen"
    DEGRADED = "degraded"
    BROKEN = "broken"


_WORST_LAST = tuple(Standing)


@dataclass(frozen=True)
class Finding:
    """One line.

    Attributes:
        subject: What was looked at.
        standing: How it is.
        said: What was found.
        advice: What to do about it; empty where there is nothing to be done.
    """

    subject: str
    standing: Standing
    said: str
    advice: str = ""


Findings = tuple[Finding, ...]


def ok(subject: str, said: str) -> Finding:
    """All is well."""
    return Finding(subject, Standing.OK, said)


def degraded(subject: str, said: str, advice: str = "") -> Finding:
    """Containers run, something about them does not."""
    return Finding(subject, Standing.DEGRADED, said, advice)


def broken(subject: str, said: str, advice: str) -> Finding:
    """Containers do not run."""
    return Finding(subject, Standing.BROKEN, said, advice)


def unseen(subject: str, said: str, advice: str = "") -> Finding:
    """It could not be looked at."""
    return Finding(subject, Standing.UNSEEN, said, advice)


def overall(findings: Iterable[Finding]) -> Standing:
    """The worst there is; what was not seen is no fault."""
    standings = [one.standing for one in findings if one.standing is not Standing.UNSEEN]
    return max(standings, key=_WORST_LAST.index, default=Standing.OK)


def exit_status(findings: Iterable[Finding], *, strict: bool = False) -> int:
    """0 when this host can serve, 1 when something is broken; with ``strict`` also when something is degraded."""
    bad = {Standing.BROKEN, Standing.DEGRADED} if strict else {Standing.BROKEN}
    return DOES_NOT_SERVE if overall(findings) in bad else SERVES


def as_table(findings: Iterable[Finding]) -> dict[str, object]:
    """For JSON: ``{"standing": …, "findings": [{"subject", "standing", "said", "advice"}, …]}``."""
    listed = list(findings)
    return {"standing": overall(listed).value, "findings": [asdict(one) for one in listed]}


def plain(findings: Iterable[Finding]) -> str:
    """Text for pipes and dumb terminals: a line for each finding, its advice below it."""
    lines: list[str] = []
    for one in findings:
        lines.append(f"{one.standing.value:<9} {one.subject:<13} {printable(one.said)}")
        if one.advice:
            lines.append(f"{'':<24}-> {printable(one.advice)}")
    return "".join(f"{line}\n" for line in lines)


def printable(text: str) -> str:
    """The text without anything a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)

"""Black-box cases written down as text: what somebody types, and what is then to be read.

A file holds cases; a case has a name, and steps. A step is a command of the shell, then what it prints::

    ## run: the exit code is the command's            a case
    @ admin                                           only as an administrator (otherwise as a user too)
    $ docker run --rm busybox sh -c 'echo a; exit 3'  a command; a line that ends in \\ goes on in the next
    a                                                 its whole output, line for line
    ~ [a-z]+                                          ... a line that matches all of this
    ...                                               ... any lines
    ! text                                            its errors have this in them
    [3]                                               its exit code, where that is not 0; [3|4] one of these
    % docker logs x                                   a command that is tried again until all is as it says

Where no output is written down, any will do. ``$N`` begins every name that a case gives, so that many may run at once
and be cleared away; ``$P0`` to ``$P9`` are ports of its own, and ``$W`` is a directory of the user's; ``$S`` is the engine's
socket.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path

import attrs

from tests.support.accounts import User, credentials

AGAIN_SECONDS = 20.0
STEP_SECONDS = "25"
ANY_LINES = "..."


class Audience(Enum):
    """Who may do what a case does."""

    EVERYBODY = "everybody"
    ADMIN = "admin"


@attrs.frozen
class Step:
    """A command and what is expected of it; ``printed`` of None is anything."""

    command: str
    again: bool
    printed: tuple[str, ...] | None = None
    errors: tuple[str, ...] = ()
    codes: tuple[int, ...] = (0,)

    def differs(self, done: subprocess.CompletedProcess[str]) -> str:
        """What is not as it was expected; empty where all is."""
        if done.returncode not in self.codes:
            return f"ended with {done.returncode}, not with {self.codes}"
        if missing := [text for text in self.errors if text not in done.stderr]:
            return f"did not complain of {missing}"
        if self.printed is not None and not _matches(self.printed, done.stdout.splitlines()):
            return "printed something else than\n" + "\n".join(f"    {p}" for p in self.printed)
        return ""


@attrs.frozen
class Case:
    """A named row of the table."""

    name: str
    audience: Audience
    steps: tuple[Step, ...]


def _matches(expected: Sequence[str], lines: Sequence[str]) -> bool:
    if not expected:
        return not lines
    first, *rest = expected
    if first == ANY_LINES:
        return any(_matches(rest, lines[skip:]) for skip in range(len(lines) + 1))
    return bool(lines) and _is(first, lines[0]) and _matches(rest, lines[1:])


def _is(expected: str, line: str) -> bool:
    if expected.startswith("~"):
        return re.fullmatch(expected[1:].strip(), line) is not None
    return expected == line.rstrip()


def read(text: str) -> Iterator[Case]:
    """The cases of a file, in order."""
    for part in re.split(r"^## ", text.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
        name, *lines = part.splitlines()
        audience, steps = Audience.EVERYBODY, list[Step]()
        for line in lines:
            if line.startswith("@ "):
                audience = Audience(line[2:].strip())
            elif line.startswith(("$ ", "% ")):
                steps.append(Step(line[2:].strip(), again=line[0] == "%"))
            elif line:
                steps[-1] = _with_line(steps[-1], line)
        yield Case(name.strip(), audience, tuple(steps))


def _with_line(step: Step, line: str) -> Step:
    if line.startswith("! "):
        return attrs.evolve(step, errors=(*step.errors, line[2:]))
    if re.fullmatch(r"\[[\d|]+\]", line):
        return attrs.evolve(step, codes=tuple(map(int, line[1:-1].split("|"))))
    printed = () if line == "(nothing)" else (line,)
    return attrs.evolve(step, printed=(*(step.printed or ()), *printed))


def play(case: Case, user: User | None, environment: Mapping[str, str], directory: Path) -> str:
    """Do what a case says, to its end or the first step that differs; what differed, empty where nothing did."""
    for step in case.steps:
        until = time.monotonic() + (AGAIN_SECONDS if step.again else 0)
        while True:
            done = _run(step.command, user, environment, directory)
            differs = step.differs(done)
            if not differs or time.monotonic() > until:
                break
            time.sleep(0.1)
        if differs:
            return f"{case.name}\n$ {step.command}\n{differs}\n{done.stdout}{done.stderr}"
    return ""


def _run(
    command: str, user: User | None, environment: Mapping[str, str], directory: Path
) -> subprocess.CompletedProcess[str]:
    """As a shell of theirs would; what takes too long is ended as ``timeout`` does, with 124."""
    return subprocess.run(
        ["timeout", STEP_SECONDS, "sh", "-c", command],
        env=environment,
        cwd=directory,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **credentials(user),
    )

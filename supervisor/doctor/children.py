"""Programs and trials the doctor starts: each in a process of its own, which is waited for and bounded. Standard library only.

A trial may change itself as it likes, namespaces and all; whatever it mounted or made ends with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from supervisor.doctor.facts import Tried
from supervisor.doctor.place import PROGRAM_PATHS

TRIAL_SECONDS = 120.0
PROGRAM_SECONDS = 30.0
ENVIRONMENT = {"PATH": PROGRAM_PATHS, "LC_ALL": "C.UTF-8"}
TREE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """What came of a program: its exit status (127 when it is not there, 124 when it did not end), and its words."""

    status: int
    said: str
    complained: str = ""


def run(*words: str) -> Ended:
    """Run a program of the host's and wait for it."""
    return _run(words, PROGRAM_SECONDS)


def attempt(name: str, *arguments: str) -> Tried:
    """Carry out a trial of :mod:`supervisor.doctor.trials` in a child."""
    start = (
        f"import sys; sys.path.insert(0, {str(TREE)!r})\n"
        "from supervisor.doctor.trials import main\n"
        "main(*sys.argv[1:])"
    )
    ended = _run((sys.executable, "-I", "-c", start, name, *arguments), TRIAL_SECONDS)
    try:
        told = json.loads(ended.said)
    except ValueError:
        return Tried(
            worked=False, said=_last_line(ended.complained) or f"it ended with {ended.status}"
        )
    return Tried(worked=bool(told["worked"]), said=str(told["said"]))


def _run(words: tuple[str, ...], seconds: float) -> Ended:
    try:
        done = subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            env={**ENVIRONMENT, "HOME": os.environ.get("HOME", "/")},
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Ended(124, "", f"it did not end within {seconds:.0f} s")
    except OSError as error:
        return Ended(127, "", error.strerror or str(error))
    return Ended(
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""

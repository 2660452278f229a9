"""The checks that read the source instead of running it, beside the tests: linter, formatter, types, import contracts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import attrs

REPOSITORY = Path(__file__).parents[2]
CHECKS = (
    ("ruff", "check"),
    ("ruff", "format", "--check"),
    ("mypy",),
    ("lint-imports",),
)
NICENESS = 5
"""They take the time that tests leave, which wait for processes more than they compute."""


@attrs.define
class Check:
    """One of them, in a process of its own."""

    name: str
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def failure(self) -> str:
        """What it says against the source, once it has ended; empty when it agrees."""
        code = self.process.wait()
        self.output.seek(0)
        told = self.output.read().decode(errors="replace")
        self.output.close()
        return f"{told}{self.name} ended with {code}" if code else ""

    def end(self) -> None:
        """Wait for it no longer."""
        self.process.kill()
        self.process.wait()
        self.output.close()


def begin() -> list[Check]:
    """Start all of them."""
    return [_begin(argv) for argv in CHECKS]


def _begin(argv: Sequence[str]) -> Check:
    output = tempfile.TemporaryFile()  # noqa: SIM115  # closed by who waits
    program = Path(sys.prefix) / "bin" / argv[0]
    process = subprocess.Popen(
        ["nice", "-n", str(NICENESS), program, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=REPOSITORY,
    )
    return Check(" ".join(argv), process, output)

"""Dockerfiles and what is read from them, as text. ``BAKEHOUSE_GOLDEN=write`` writes the answers anew."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from supervisor.build.dockerfile.instruction import Argument, Command, Instruction
from supervisor.build.dockerfile.recognise import load
from supervisor.errors import InvalidArgument
from tests.support import golden

CASES = sorted((Path(__file__).parent / "dockerfile").glob("*.txt"))
CUT = "\n---- is read as\n"


def shown(value: object) -> str:
    match value:
        case Argument():
            return value.value
        case Command():
            return f"{'sh' if value.shell_form else 'exec'}{list(value.words)}"
        case tuple():
            return "(" + ", ".join(shown(item) for item in value) + ")"
        case _:
            return repr(value) if isinstance(value, str) else str(value)


def line(instruction: Instruction) -> str:
    fields = [
        f"{field.name}={shown(value)}"
        for field in attrs.fields(type(instruction))
        if field.name != "text"
        and (value := getattr(instruction, field.name)) not in (None, "", (), False, 0)
    ]
    return f"{instruction.line}: {type(instruction).__name__} {' '.join(fields)}"


def answer(text: str) -> str:
    try:
        file = load(text.encode(), "Dockerfile")
    except InvalidArgument as error:
        return error.text()
    lines = [line(each) for each in file.arguments]
    for stage in file.stages:
        lines += [f"stage {stage.index} {stage.title}", "  " + line(stage.start)]
        lines += ["  " + line(each) for each in stage.instructions]
    return "\n".join([*lines, *(f"warning: {warning}" for warning in file.warnings)])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_reads_as_written_down(path: Path) -> None:
    golden.check(path, CUT, answer)

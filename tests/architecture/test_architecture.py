"""What ``docs/architecture.md`` draws and lists is so: ``python -m tests.architecture.test_architecture`` prints it anew."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from supervisor.runtime.status import diagram

ROOT = Path(__file__).parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
TRACE_LINE = re.compile(r"^- `(?P<module>[\w.]+):(?P<name>[\w.]+)` \S", re.MULTILINE)


def drawn_floors() -> str:
    """The floors of the import contract, as they are drawn."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return "\n".join(layers).replace("(", "").replace(")", "")


def block(marker: str) -> str:
    """The text of the fenced block below a marker."""
    after = DOCUMENT.read_text().partition(f"<!-- {marker} -->")[2]
    return after.split("```")[1].partition("\n")[2].strip("\n")


def traces() -> list[list[tuple[str, str]]]:
    """Every trace: (module, name) of its lines."""
    parts = DOCUMENT.read_text().split("<!-- trace -->")[1:]
    return [TRACE_LINE.findall(part.partition("\n## ")[0]) for part in parts]


def source_of(module: str, name: str) -> str:
    """The source of a function, with that of its module: helpers of a room belong to it."""
    found: object = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    assert callable(found), f"{module}:{name} is no function"
    return inspect.getsource(importlib.import_module(module))


def test_the_floors_are_those_that_are_enforced() -> None:
    assert block("floors") == drawn_floors()


def test_the_diagram_is_printed_from_the_table() -> None:
    assert block("diagram") == diagram()


def test_there_are_two_traces() -> None:
    assert [len(trace) > 15 for trace in traces()] == [True, True]


@pytest.mark.parametrize("trace", traces(), ids=["docker run", "docker image build"])
def test_a_trace_names_functions_that_call_one_another(trace: Sequence[tuple[str, str]]) -> None:
    above = source_of(*trace[0])
    for module, name in trace[1:]:
        own = source_of(module, name)
        called = name.rpartition(".")[2]
        reached = (
            re.search(rf"\b{called}\b", above) or f"{module.rpartition('.')[2]}.{called}" in above
        )
        assert reached, f"nothing above names {module}:{name}"
        above += own


def print_anew() -> None:
    """Put what is generated into the document."""
    text = DOCUMENT.read_text()
    for marker, content in (("floors", drawn_floors()), ("diagram", diagram())):
        pattern = re.compile(rf"(<!-- {marker} -->\n```\w+\n).*?(```)", re.DOTALL)
        head, tail = pattern.findall(text)[0]
        text = pattern.sub(lambda _: f"{head}{content}\n{tail}", text)  # noqa: B023  # used at once
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    print_anew()

"""The rules of the house, read from the source: walls, sizes, purity, shields, words."""

from __future__ import annotations

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted([*(ROOT / "supervisor").rglob("*.py"), *(ROOT / "protocol").rglob("*.py")])
NAMES = [str(path.relative_to(ROOT)) for path in SOURCES]

MODULE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60

PURE = (
    "protocol/codec.py",
    "protocol/errors.py",
    "protocol/events.py",
    "protocol/ids.py",
    "protocol/messages.py",
    "supervisor/access/checks.py",
    "supervisor/access/policy.py",
    "supervisor/access/ranges.py",
    "supervisor/access/requests.py",
    "supervisor/access/rules.py",
    "supervisor/access/served.py",
    "supervisor/build/dockerfile",
    "supervisor/build/graph.py",
    "supervisor/build/convert.py",
    "supervisor/doctor/facts.py",
    "supervisor/doctor/findings.py",
    "supervisor/doctor/judge.py",
    "supervisor/doctor/judge_store.py",
    "supervisor/linux/device_filter.py",
    "supervisor/linux/idmap.py",
    "supervisor/monitor/detect.py",
    "supervisor/monitor/relief.py",
    "supervisor/network/ruleset.py",
    "supervisor/oci",
    "supervisor/runtime/discards.py",
    "supervisor/runtime/sanity.py",
    "supervisor/runtime/spec.py",
    "supervisor/runtime/status.py",
)
"""Decisions: values in, values out. A folder stands for all in it."""

IMPURE = {
    "ctypes",
    "os",
    "select",
    "shutil",
    "signal",
    "socket",
    "sqlite3",
    "subprocess",
    "threading",
    "time",
    "trio",
}

# A checkout right below / may well be called as a directory of an example is.
CHECKOUT = rf"{re.escape(str(ROOT))}\b|" if len(ROOT.parts) > 2 else ""
MACHINE = re.compile(rf"{CHECKOUT}/root/\.|/home/(?!app)\w+/\.")
"""Paths of one developer's machine: where the checkout lies, and what is in somebody's home."""

BLIND_WITH_REASON = re.compile(r"# noqa: BLE001 +# \w")

SHIPPED = (
    "supervisor",
    "protocol",
    "tests",
    "deploy",
    "docs",
    "examples",
    ".ci",
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def imported(tree: ast.Module) -> Iterator[str]:
    """What a module imports when it is run."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Its length without the docstring: words are not what makes a function long."""
    assert function.end_lineno is not None
    length = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function, clean=False) is not None and first.end_lineno is not None:
        length -= first.end_lineno - first.lineno + 1
    return length


@pytest.mark.slow
def test_imports_go_down_only() -> None:
    done = subprocess.run(
        [Path(sys.prefix) / "bin" / "lint-imports"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_modules_are_of_one_subject(name: str) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= MODULE_LINES_MAX


@pytest.mark.parametrize("name", NAMES)
def test_functions_fit_on_a_screen(name: str) -> None:
    long = {function.name: lines_of(function) for function in functions(parsed(ROOT / name))}
    assert {key: lines for key, lines in long.items() if lines > FUNCTION_LINES_MAX} == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_module_says_what_it_is_for(name: str) -> None:
    tree = parsed(ROOT / name)
    assert ast.get_docstring(tree)
    undocumented = [
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert undocumented == []


@pytest.mark.parametrize("name", PURE)
def test_decisions_are_pure(name: str) -> None:
    path = ROOT / name
    modules = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    assert modules
    assert all(module.exists() for module in modules), f"{name} has moved: follow it here"
    for module in modules:
        found = {name.partition(".")[0] for name in imported(parsed(module))}
        assert found & IMPURE == set(), module
        asynchronous = [
            node.name
            for node in functions(parsed(module))
            if isinstance(node, ast.AsyncFunctionDef)
        ]
        assert asynchronous == [], module


@pytest.mark.parametrize("name", [name for name in NAMES if name != "supervisor/tasks.py"])
def test_only_tasks_shields(name: str) -> None:
    for node in ast.walk(parsed(ROOT / name)):
        if isinstance(node, ast.keyword) and node.arg == "shield":
            assert isinstance(node.value, ast.Constant), f"line {node.value.lineno}"
            assert node.value.value is False, f"line {node.value.lineno}: use tasks.finish_within"
        if isinstance(node, ast.Attribute) and node.attr == "shield":
            assert not isinstance(node.ctx, ast.Store), (
                f"line {node.lineno}: use tasks.finish_within"
            )


@pytest.mark.parametrize("name", NAMES)
def test_no_blind_except(name: str) -> None:
    """What catches everything passes it on, or says on its line why it must not."""
    text = (ROOT / name).read_text()
    for node in ast.walk(parsed(ROOT / name)):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type else "everything"
        line = text.splitlines()[node.lineno - 1]
        if caught in {"everything", "Exception", "BaseException"} and not BLIND_WITH_REASON.search(
            line
        ):
            assert isinstance(node.body[-1], ast.Raise), f"line {node.lineno}: must raise again"


@pytest.mark.parametrize("name", NAMES)
def test_callers_own_time(name: str) -> None:
    """No function takes a timeout: callers use ``trio.fail_after``."""
    for function in functions(parsed(ROOT / name)):
        arguments = [*function.args.args, *function.args.kwonlyargs]
        assert not [
            argument.arg for argument in arguments if argument.arg in {"timeout", "timeout_seconds"}
        ], function.name


def shipped_texts() -> Iterator[tuple[Path, str]]:
    for name in SHIPPED:
        path = ROOT / name
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts and file != Path(__file__):
                yield file, file.read_text(errors="replace")


def test_nothing_shipped_names_one_machine() -> None:
    found = {
        f"{file.relative_to(ROOT)}:{number}"
        for file, text in shipped_texts()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE.search(line)
    }
    assert found == set()


def test_test_modules_have_names_of_their_own() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []

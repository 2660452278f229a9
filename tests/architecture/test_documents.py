"""Documents that must be true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.documents import POLICY, ROOT, policy

TEXTS = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "docs/policy.md",
    "docs/attacks.md",
    "docs/administration.md",
]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")


def test_the_policy_is_printed_from_the_table() -> None:
    assert POLICY.read_text() == policy(), "print it anew: python -m tests.support.documents"


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    text = ROOT / name
    missing = [link for link in LINK.findall(text.read_text()) if not (text.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_commands_that_are_named_are_there(name: str) -> None:
    scripts = set(re.findall(r"\b(deploy/[a-z]+|\.ci/run)\b", (ROOT / name).read_text()))
    assert scripts
    for script in scripts:
        assert Path(ROOT, script).stat().st_mode & 0o111, script


ATTACK = re.compile(r"`(test_\w+):(test_\w+)`")


def test_attacks_that_are_told_are_made() -> None:
    told = ATTACK.findall((ROOT / "docs" / "attacks.md").read_text())
    modules = {
        path.stem: path.read_text() for path in (ROOT / "tests" / "attack").glob("test_*.py")
    }
    missing = [
        f"{module}:{name}" for module, name in told if f"def {name}(" not in modules.get(module, "")
    ]
    assert missing == []
    assert set(modules) == {module for module, _ in told}, (
        "an attack that docs/attacks.md does not tell"
    )

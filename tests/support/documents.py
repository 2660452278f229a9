"""Documents that are printed from the source: ``python -m tests.support.documents`` writes them anew."""

from __future__ import annotations

from pathlib import Path

from supervisor.access.rules import as_markdown

ROOT = Path(__file__).parents[2]
POLICY = ROOT / "docs" / "policy.md"
MARK = "<!-- the table begins; do not edit -->\n\n"


def policy() -> str:
    """The policy's document as it should stand: its own words, and the table."""
    return POLICY.read_text().partition(MARK)[0] + MARK + as_markdown()


if __name__ == "__main__":
    POLICY.write_text(policy())

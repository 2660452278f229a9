"""Texts with the answer to them below: ``BAKEHOUSE_GOLDEN=write`` writes the answers anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path


def check(path: Path, cut: str, answer: Callable[[str], str]) -> None:
    """What stands below ``cut`` in a file is the answer to what stands above it."""
    text, _, wanted = path.read_text().partition(cut)
    found = answer(text) + "\n"
    if os.environ.get("BAKEHOUSE_GOLDEN") == "write":
        path.write_text(text + cut + found)
    else:
        assert found == wanted

"""Waiting for what comes to be at a moment of its own: longer than any host should need, and no longer than it takes."""

from __future__ import annotations

import time
from collections.abc import Callable

PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.02


def until(holds: Callable[[], object], story: Callable[[], object] | str = "") -> None:
    """Wait until ``holds`` says so; ``story`` tells what it means that it never does."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > deadline:
            message = story() if callable(story) else story
            raise AssertionError(message or "it did not come to be")
        time.sleep(POLL_SECONDS)

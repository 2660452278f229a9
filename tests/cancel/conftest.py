"""An engine of real parts for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def root() -> Iterator[Path]:
    """Where other users may look; short, because a socket's path is."""
    place = Path(tempfile.mkdtemp(prefix="bh-", dir="/var/tmp"))
    place.chmod(0o755)
    yield place
    shutil.rmtree(place)

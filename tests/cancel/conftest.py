"""A place for an engine of real parts, for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engines import fresh_root


@pytest.fixture
def root() -> Iterator[Path]:
    with fresh_root() as place:
        yield place

"""A real spawner for a test, in a mount namespace of its own that is gone afterwards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from supervisor.linux.mounts import release_mounts
from supervisor.linux.spawner import Spawner, open_spawner, start_spawner


@asynccontextmanager
async def spawner_in(run_root: Path, *roots: Path) -> AsyncIterator[Spawner]:
    """Start one; at the end everything below ``run_root`` and ``roots`` is unmounted, and the host holds nothing."""
    run_root.mkdir(parents=True, exist_ok=True)
    seed = start_spawner(run_root, "bakehouse-test")
    async with open_spawner(seed) as spawner:
        try:
            yield spawner
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await release_mounts(spawner, roots)
    assert str(run_root) not in Path("/proc/self/mountinfo").read_text()
    assert seed.helper.returncode == 0

"""Where large trees go to be removed: renamed here at once, emptied by one task in its own time.

Rules: what is in the trash belongs to nobody; a restart goes on emptying it; nothing is ever taken out.
"""

from __future__ import annotations

import logging
import secrets
from pathlib import Path

import attrs
import trio

from supervisor.store import trees
from supervisor.tasks import in_thread

DIRECTORY_MODE = 0o700
LOG = logging.getLogger(__name__)


@attrs.define(eq=False)
class Trash:
    """The trash of one store."""

    root: Path
    _filled: trio.Event = attrs.field(factory=trio.Event)
    _token: trio.lowlevel.TrioToken = attrs.field(factory=trio.lowlevel.current_trio_token)

    def open(self) -> None:
        """Make its directory."""
        self.root.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)

    def take(self, path: Path) -> None:
        """Move ``path`` (on the same file system) here. Blocks briefly; from any thread. Gone already is success.

        Raises:
            OSError: It cannot be moved.
        """
        place = self.root / secrets.token_hex(12)
        try:
            path.rename(place)
        except FileNotFoundError:
            return
        self._token.run_sync_soon(self._wake, idempotent=True)

    async def empty_for_ever(self) -> None:
        """Remove what comes in, until cancelled."""
        while True:
            self._filled = trio.Event()
            for name in sorted(
                path.name for path in await in_thread(lambda: list(self.root.iterdir()))
            ):
                await in_thread(lambda name=name: self._remove(name))  # type: ignore[misc]
            await self._filled.wait()

    def _remove(self, name: str) -> None:
        """Remove one tree; what a process that is just ending still writes to is left for the next time."""
        try:
            trees.remove(self.root / name)
        except OSError as error:
            LOG.warning("cannot empty the trash of %s yet: %s", name, error)

    def _wake(self) -> None:
        self._filled.set()

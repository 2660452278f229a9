"""A way for others to a directory of a test's own; pytest's are for who runs it alone, and workers nest them deeper."""

from __future__ import annotations

import stat
from pathlib import Path


def open_way(to: Path) -> None:
    """Let everybody through to ``to``; what is beside the way stays closed."""
    for directory in (to, *to.parents):
        mode = stat.S_IMODE(directory.stat().st_mode)
        if not mode & stat.S_IXOTH:
            directory.chmod(mode | stat.S_IXOTH | stat.S_IXGRP)

"""What overlayfs or the runtime leaves of the init layer in a snapshot: it is no part of an image. Blocks: call it in a thread."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path

from supervisor.store import trees
from supervisor.store.layers import INIT_DIRECTORIES, INIT_FILES


def clean_init_copies(upper: Path) -> None:
    """Drop the empty files and directories that are copies of the init layer's, and marks of their removal."""
    root = trees.open_directory(upper)
    try:
        for name in (*INIT_FILES, *reversed(INIT_DIRECTORIES)):
            _clean(root, name.split("/"))
    finally:
        os.close(root)


def _clean(root: int, parts: Sequence[str]) -> None:
    opened: list[int] = []
    try:
        for part in parts[:-1]:
            opened.append(os.open(part, trees.DIRECTORY, dir_fd=[root, *opened][-1]))
        _drop_if_empty([root, *opened][-1], parts[-1])
    except (FileNotFoundError, NotADirectoryError):
        return  # an image may have anything there; then it is no copy
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _drop_if_empty(parent: int, name: str) -> None:
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    whiteout = stat.S_ISCHR(status.st_mode) and status.st_rdev == 0
    if whiteout or (stat.S_ISREG(status.st_mode) and status.st_size == 0):
        os.unlink(name, dir_fd=parent)
    elif stat.S_ISDIR(status.st_mode) and name in {"dev", "proc", "sys", "pts", "shm"}:
        descriptor = os.open(name, trees.DIRECTORY, dir_fd=parent)
        try:
            empty = not os.listdir(descriptor)  # noqa: PTH208
        finally:
            os.close(descriptor)
        if empty:
            os.rmdir(name, dir_fd=parent)

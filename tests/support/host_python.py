"""Python in a container of busybox: the host's own, for what a shell cannot say."""

from __future__ import annotations

from pathlib import Path

MOUNTS = tuple(
    word
    for path in ("/usr", "/lib", "/lib64")
    if Path(path).exists()
    for word in ("-v", f"{path}:{path}:ro")
)
PYTHON = ("/usr/bin/python3", "-I", "-S", "-c")

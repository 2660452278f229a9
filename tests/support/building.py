"""Builds by the docker command that somebody interrupts, and what is to be found of builds."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator

from tests.support.daemon import Daemon


def begin_build(daemon: Daemon, context: bytes) -> subprocess.Popen[bytes]:
    """``docker build`` that has been given its context, as root."""
    process = subprocess.Popen(
        ["docker", "build", "--no-cache", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=daemon.environment(),
    )
    assert process.stdin is not None
    process.stdin.write(context)
    process.stdin.close()
    return process


def build_cgroups(daemon: Daemon) -> Iterator[str]:
    """The cgroups of a daemon's build steps."""
    for path, _, _ in os.walk("/sys/fs/cgroup"):
        if f"/{daemon.config.instance}/" in path and "/builds/" in path:
            yield path

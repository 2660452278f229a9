"""A home on a file system that refuses root, as network file systems with squashed root do: FUSE without ``allow_other``."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.accounts import User

DETACH = 2  # MNT_DETACH, umount2(2)
READY_SECONDS = 20.0
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def squashed(at: Path, source: Path, user: User) -> Iterator[None]:
    """``source`` shown at ``at`` by a process of ``user``, and to them alone: root cannot even look at it."""
    program = shutil.which("bindfs")
    if program is None or not os.access("/dev/fuse", os.F_OK):
        pytest.skip("needs bindfs and /dev/fuse")
    # It mounts by itself: fusermount would need a /dev/fuse that everybody may open.
    capabilities = "+sys_admin,+dac_override"
    become = ["setpriv", "--reuid", str(user.uid), "--regid", str(user.gid)]
    become += ["--groups", ",".join(map(str, user.groups))]
    become += ["--inh-caps", capabilities, "--ambient-caps", capabilities]
    server = subprocess.Popen([*become, program, "-f", "--no-allow-other", str(source), str(at)])
    try:
        until = time.monotonic() + READY_SECONDS
        while not _is_fuse(at):
            assert server.poll() is None, "bindfs ended"
            assert time.monotonic() < until, "bindfs does not mount"
            time.sleep(0.02)
        yield
    finally:
        _LIBC.umount2(os.fsencode(at), DETACH)
        server.terminate()
        server.wait()


def _is_fuse(at: Path) -> bool:
    return f" {at} fuse " in Path("/proc/mounts").read_text()

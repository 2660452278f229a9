"""A file system that never answers, as a person may have one: whoever looks into it waits until it is given up."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.accounts import User

DETACH = 2  # MNT_DETACH, umount2(2)
_LIBC = ctypes.CDLL(None, use_errno=True)


@contextmanager
def hung(at: Path, user: User) -> Iterator[None]:
    """Mounted for a while, as FUSE mounts for its user; those who wait get an error at the end."""
    try:
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"needs /dev/fuse: {error.strerror}")
    told = f"fd={device},rootmode=40000,user_id={user.uid},group_id={user.gid}"
    try:
        if _LIBC.mount(b"hung", os.fsencode(at), b"fuse", 0, told.encode()):
            pytest.skip(f"cannot mount FUSE: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            os.close(device)
            device = -1
            _LIBC.umount2(os.fsencode(at), DETACH)
    finally:
        if device >= 0:
            os.close(device)

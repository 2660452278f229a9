"""``--init``: a small program before the container's own, which hands signals on and reaps what nobody waits for.

It is the distribution's ``tini``, linked statically, so that it runs in any image. Containers see a copy in the run
directory, read-only, at Docker's place for it: never a directory of the host's.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path

import attrs

from supervisor.errors import InvalidArgument, Unavailable
from supervisor.runtime.oci_runtime import ENVIRONMENT
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.spec import SpecMount, own_file

PROGRAMS = ("tini-static", "docker-init")
PLACE = "/sbin/docker-init"
SHARED_MODES = ("host", "container:")


def has_init(record: ContainerRecord) -> bool:
    """Whether the container's first process is an init: not beside somebody else's first process, as with Docker."""
    return record.request.init and not record.request.pid_mode.startswith(SHARED_MODES)


def with_init(args: Sequence[str]) -> tuple[str, ...]:
    """The command line as the init takes it."""
    return (PLACE, "--", *args)


def find_init(path: str = ENVIRONMENT["PATH"]) -> Path:
    """The host's init for containers.

    Raises:
        InvalidArgument: It has none.
    """
    found = next(filter(None, (shutil.which(name, path=path) for name in PROGRAMS)), None)
    if found is None:
        raise InvalidArgument(
            f"cannot serve --init: neither {' nor '.join(PROGRAMS)} is on this host",
            hint="an administrator can install the package tini",
        )
    return Path(found)


def place_init(run_root: Path) -> SpecMount:
    """The mount that shows the init in a container; its copy is made, or made anew when the host's is another.

    Raises:
        InvalidArgument: The host has none.
        Unavailable: It cannot be copied.
    """
    program, copy = find_init(), run_root / "init" / "docker-init"
    try:
        if not _same(program, copy):
            copy.parent.mkdir(mode=0o711, exist_ok=True)
            new = copy.with_name(f"docker-init.{secrets.token_hex(4)}")  # several may start at once
            shutil.copy2(program, new)
            new.chmod(0o755)
            new.replace(copy)
    except OSError as error:
        raise Unavailable(f"cannot copy {program} for containers: {error.strerror}") from error
    mount = own_file(PLACE, str(copy), read_only=True, executable=True)
    return attrs.evolve(mount, options=(*mount.options, _access_times(copy)))


def _access_times(path: Path) -> str:
    """How times of access are kept there: a user namespace may not change it, and runc says relatime where nothing is said.

    systemd's ``/run`` has strictatime.
    """
    flags = os.statvfs(path).f_flag
    if flags & os.ST_NOATIME:
        return "noatime"
    return "relatime" if flags & os.ST_RELATIME else "strictatime"


def _same(program: Path, copy: Path) -> bool:
    try:
        here, there = program.stat(), copy.stat()
    except FileNotFoundError:
        return False
    return (here.st_size, here.st_mtime_ns) == (there.st_size, there.st_mtime_ns)

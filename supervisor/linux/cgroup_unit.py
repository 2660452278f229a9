"""The control group of a systemd unit that was delegated to us, so that what lives there does not depend on us.

Words: a unit's group is named after it and lies below its slice's, which lies below no other units' than slices'. So it is
found by looking into slices alone, where nobody but root makes groups: in a user's own service manager, or in a group
that was delegated to somebody, a group of that name is not looked at.

See systemd's ``CGROUP_DELEGATION.md`` and systemd.resource-control(5).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from supervisor.errors import Unavailable
from supervisor.linux import cgroup_files as files
from supervisor.linux.cgroup_model import checked

DELEGATED = ("trusted.delegate", "user.delegate")
SLICE = ".slice"
LEAF = "holder"
"""Where a process of the unit's own goes, if it has any: none may be in a group whose children have controllers."""


def group_of(mount: Path, unit: str) -> Path:
    """The group of ``unit`` in the v2 tree at ``mount``.

    Raises:
        InvalidArgument: No unit can be called so.
        Unavailable: It does not run, or its group is not delegated.
    """
    checked(unit)
    found = next(_named(mount, unit), None)
    if found is None:
        raise Unavailable(
            f"cannot find the control group for containers: {unit} does not run",
            hint=f"systemctl start {unit}",
        )
    if not delegated(found):
        raise Unavailable(
            f"cannot use the control group of {unit}: it is not delegated",
            hint=f"Delegate=yes in {unit}",
        )
    return found


def delegated(directory: Path) -> bool:
    """Whether the service manager leaves all below this group to others."""
    for name in DELEGATED:
        with contextlib.suppress(OSError):
            if os.getxattr(directory, name) == b"1":
                return True
    return False


def _named(directory: Path, unit: str) -> Iterator[Path]:
    inside = files.below(directory)
    if unit in inside:
        yield directory / unit
    for name in inside:
        if name.endswith(SLICE) and not delegated(directory / name):
            yield from _named(directory / name, unit)

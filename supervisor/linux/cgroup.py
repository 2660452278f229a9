"""Control groups: v1, hybrid and v2 behind one interface.

Finds out which the host has; the interface and its values are in ``cgroup_model``, and are used from here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import attrs

from supervisor.errors import Unavailable
from supervisor.linux import cgroup_unit, cgroup_v1, cgroup_v2
from supervisor.linux.cgroup_model import (
    NO_LIMITS,
    UNLIMITED,
    Ability,
    CgroupLimits,
    CgroupPressure,
    Cgroups,
    CgroupSample,
    Room,
    checked,
    weight_of_shares,
)

__all__ = [
    "NO_LIMITS",
    "UNLIMITED",
    "Ability",
    "CgroupLimits",
    "CgroupPressure",
    "CgroupSample",
    "Cgroups",
    "Mounted",
    "Room",
    "detect",
    "mounted",
    "weight_of_shares",
]


@attrs.frozen
class Mounted:
    """Where the host's cgroups are mounted.

    Attributes:
        v1: The mount of each v1 controller we use.
        v2: The mount of the v2 tree.
        named: The mounts of v1 hierarchies without a controller (systemd's), where runtimes make groups too.
    """

    v1: Mapping[str, Path]
    v2: Path | None
    named: tuple[Path, ...] = ()


def detect(root_name: str, unit: str = "") -> Cgroups:
    """The host's cgroups, with a tree of our own called ``root_name`` (nothing is made yet).

    Args:
        root_name: Of our tree.
        unit: The systemd unit in whose group it is to grow, apart from our own; ours or the topmost if empty.

    Raises:
        InvalidArgument: The name is not one for a group.
        Unavailable: The host has no cgroups mounted, or the unit has none.
    """
    checked(root_name)
    found = mounted(Path("/proc/self/mountinfo").read_text())
    if found.v1:
        return _v1(found, root_name, unit)
    if found.v2 is None:
        raise Unavailable(
            "cannot find cgroups: none are mounted", hint="mount -t cgroup2 none /sys/fs/cgroup"
        )
    if unit:
        trunk = cgroup_unit.group_of(found.v2, unit)
        return at_trunk(found.v2, trunk, root_name, cgroup_unit.LEAF)
    return at_trunk(found.v2, cgroup_v2.trunk_of(found.v2, _own_group()), root_name)


def _v1(found: Mounted, root_name: str, unit: str) -> Cgroups:
    """Where v1 has the controllers. Its groups cannot be a unit's, but must be out of the daemon's own all the same."""
    tree = cgroup_v2.Tree(found.v2 / root_name) if found.v2 else None
    lacks = cgroup_v1.missing(found.v1, tree)
    if not unit:
        return cgroup_v1.CgroupsV1(found.v1, root_name, lacks, tree, found.named)
    hierarchies = {**found.v1, **{str(place): place for place in found.named}}
    told = f"containers in the group of {unit}: only cgroup v2 can; they do not end with it"
    return cgroup_v1.CgroupsV1(hierarchies, root_name, (*lacks, told), tree)


def at_trunk(
    mount: Path, trunk: Path, root_name: str, leaf: str = cgroup_v2.DAEMON_LEAF
) -> Cgroups:
    """A v2 tree called ``root_name`` below ``trunk``, whose own processes go to ``leaf``."""
    root = str((trunk / root_name).relative_to(mount))
    return cgroup_v2.CgroupsV2(
        trunk, cgroup_v2.Tree(trunk / root_name), root, cgroup_v2.missing(trunk), leaf
    )


def mounted(mountinfo: str) -> Mounted:
    """Where cgroups are mounted, from the text of ``/proc/self/mountinfo``; the first of several places is taken."""
    v1: dict[str, Path] = {}
    v2: list[Path] = []
    named: list[Path] = []
    for place, kind, options in _cgroup_mounts(mountinfo):
        if kind == "cgroup2":
            v2.append(place)
        if kind == "cgroup" and any(option.startswith("name=") for option in options):
            named.append(place)
        for controller in options:
            if kind == "cgroup" and controller in cgroup_v1.CONTROLLERS:
                v1.setdefault(controller, place)
    return Mounted(
        {name: v1[name] for name in cgroup_v1.CONTROLLERS if name in v1},
        v2[0] if v2 else None,
        tuple(named),
    )


def _cgroup_mounts(mountinfo: str) -> Iterator[tuple[Path, str, list[str]]]:
    """Mount point, type and super block options; proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ")[:3] if right.count(" ") > 1 else ("", "", "")
        if kind in {"cgroup", "cgroup2"}:
            point = left.split(" ")[4]
            yield Path(_unescaped(point)), kind, options.split(",")


def _unescaped(text: str) -> str:
    for code, character in ((r"\040", " "), (r"\011", "\t"), (r"\012", "\n"), (r"\134", "\\")):
        text = text.replace(code, character)
    return text


def _own_group() -> str:
    """Our place in the v2 tree."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"

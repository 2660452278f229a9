"""What the kernel knows of a container's process: all that makes it more than a user's container may be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.support.accounts import User

NAMESPACES = ("ipc", "mnt", "net", "pid", "user", "uts")
"""All but the one of control groups: that shows names only, and is the host's on version 1, as with dockerd."""
CAPABILITIES_MAX = 0xA80425FB
"""The fourteen of Docker's default set; here they count in the owner's user namespace alone."""
HOST_IDS_END = 1 << 24
"""The ids of the host's own people are below it, the daemon's ranges above."""
OWN_KINDS = frozenset(
    {"overlay", "proc", "tmpfs", "devpts", "sysfs", "mqueue", "cgroup", "cgroup2"}
)
DEVICES = frozenset({"/null", "/zero", "/full", "/tty", "/random", "/urandom"})
IDENTITY_FILES = frozenset({"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"})


def beyond(pid: int, owner: User) -> list[str]:
    """In words, what a user's container should not be; empty when all is well."""
    place = Path(f"/proc/{pid}")
    text = (place / "status").read_text()
    status = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    return [told for look in _LOOKS for told in look(place, status, owner)]


Status = Mapping[str, str]


def _shared_namespaces(place: Path, _status: Status, _owner: User) -> Iterator[str]:
    for name in NAMESPACES:
        if (place / "ns" / name).readlink() == Path("/proc/self/ns", name).readlink():
            yield f"it is in the host's {name} namespace"


def _ids(place: Path, status: Status, owner: User) -> Iterator[str]:
    uids = {int(number) for number in status["Uid"].split()}
    if {number for number in uids if number < HOST_IDS_END} - {owner.uid}:
        yield f"it has the host's ids {uids}"
    for line in (place / "uid_map").read_text().splitlines():
        inside, outside, _ = map(int, line.split())
        if outside < HOST_IDS_END and (inside, outside) != (0, owner.uid):
            yield f"it maps ids of the host's: {line}"
    groups = {int(number) for number in (status["Gid"] + " " + status["Groups"]).split()}
    if {number for number in groups if number < HOST_IDS_END} - set(owner.groups):
        yield f"it is in the host's groups {groups}"


def _powers(place: Path, status: Status, _owner: User) -> Iterator[str]:
    if int(status["CapBnd"], 16) & ~CAPABILITIES_MAX:
        yield f"its capabilities are {status['CapBnd']}"
    if status["Seccomp"] != "2":
        yield "nothing filters its system calls"
    if int((place / "oom_score_adj").read_text()) < int(
        Path("/proc/self/oom_score_adj").read_text()
    ):
        yield "it is spared when memory is short"


def _groups(place: Path, _status: Status, owner: User) -> Iterator[str]:
    lines = (place / "cgroup").read_text().splitlines()
    kept = [line for line in lines if f"/u{owner.uid}/" in line]
    if not kept:
        yield f"it is in none of its owner's control groups: {lines}"


def _mounts(place: Path, _status: Status, _owner: User) -> Iterator[str]:
    for line in (place / "mountinfo").read_text().splitlines():
        fields, _, more = line.partition(" - ")
        _, _, _, root, target, options, *_ = fields.split()
        flags, kind = options.split(","), more.split()[0]
        own = kind in OWN_KINDS and (kind != "tmpfs" or root == "/")
        if own or root in DEVICES or target in IDENTITY_FILES:
            continue
        if "nosuid" not in flags or "nodev" not in flags:
            yield f"programs and devices of the host count at {target}: {root}, {options}"


def _files(place: Path, _status: Status, _owner: User) -> Iterator[str]:
    for path in (
        "host/etc/shadow",
        "x/shadow",
        "x/kcore",
        "x/.ssh",
        "dev/k",
        "dev/kmsg",
        "dev/sda",
    ):
        if os.path.lexists(place / "root" / path):
            yield f"it has /{path}"


_LOOKS: tuple[Callable[[Path, Status, User], Iterator[str]], ...] = (
    _shared_namespaces,
    _ids,
    _powers,
    _groups,
    _mounts,
    _files,
)

"""What a run may leave behind: a picture of the host before and after.

Processes count when they are of ours: they carry the run's mark in their environment, are in a cgroup of a Bakehouse, or
run under an id of the pool. Of everything else every new one counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
import uuid
from pathlib import Path

import attrs

from supervisor.config import AccessConfig

MARK = "BAKEHOUSE_TEST_RUN"
SETTLE_SECONDS = 15.0
CGROUP_ROOT = Path("/sys/fs/cgroup")

_ACCESS = AccessConfig()
_POOL = range(
    _ACCESS.range_pool_first_id,
    _ACCESS.range_pool_first_id + _ACCESS.range_pool_owners_max * 65_536,
)


def mark_run() -> None:
    """Let every process started from here on carry this run's mark."""
    os.environ.setdefault(MARK, uuid.uuid4().hex)


@attrs.frozen
class Picture:
    """What was there at one moment; each as texts that a person can search for."""

    processes: frozenset[str]
    mounts: frozenset[str]
    links: frozenset[str]
    network_namespaces: frozenset[str]
    cgroups: frozenset[str]
    tables: frozenset[str]

    def beyond(self, before: Picture) -> list[str]:
        """What is here and was not there ``before``."""
        found: list[str] = []
        for field in attrs.fields(Picture):
            mine: frozenset[str] = getattr(self, field.name)
            found += [f"{field.name}: {new}" for new in sorted(mine - getattr(before, field.name))]
        return found


def take() -> Picture:
    """Look at the host now."""
    return Picture(_processes(), _mounts(), _links(), _network_namespaces(), _cgroups(), _tables())


def settled_beyond(before: Picture) -> list[str]:
    """What stays beyond ``before``, once what is ending has had time to end."""
    until = time.monotonic() + SETTLE_SECONDS
    while True:
        beyond = take().beyond(before)
        if not beyond or time.monotonic() > until:
            return beyond
        time.sleep(0.25)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def _processes() -> frozenset[str]:
    own = os.getpid()
    found: set[str] = set()
    for pid in _pids():
        command = _read(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
        if pid != own and command and _is_ours(pid):
            found.add(f"{pid} {command[:200]}")
    return frozenset(found)


def _is_ours(pid: int) -> bool:
    mark = os.environ.get(MARK)
    if mark and f"{MARK}={mark}" in _read(f"/proc/{pid}/environ"):
        return True
    status = _read(f"/proc/{pid}/status")
    uids = [
        int(uid)
        for line in status.splitlines()
        if line.startswith("Uid:")
        for uid in line.split()[1:]
    ]
    return any(uid in _POOL for uid in uids) or "/bakehouse" in _read(f"/proc/{pid}/cgroup")


def _mounts() -> frozenset[str]:
    lines = [line.split() for line in _read("/proc/self/mountinfo").splitlines()]
    return frozenset(f"{fields[4]} ({fields[fields.index('-') + 1]})" for fields in lines)


def _links() -> frozenset[str]:
    return frozenset(os.listdir("/sys/class/net"))


def _network_namespaces() -> frozenset[str]:
    """Those that a process of ours is in; a pinned one is a mount."""
    found: set[str] = set()
    for pid in _pids():
        with contextlib.suppress(OSError):
            if _is_ours(pid):
                found.add(os.readlink(f"/proc/{pid}/ns/net"))
    with contextlib.suppress(OSError):
        found.update(f"/run/netns/{name}" for name in os.listdir("/run/netns"))
    return frozenset(found)


def _cgroups() -> frozenset[str]:
    return frozenset(path for path, _, _ in os.walk(CGROUP_ROOT) if "bakehouse" in path)


def _tables() -> frozenset[str]:
    """nftables' tables that are ours by name; none where there is no nft to ask."""
    with contextlib.suppress(OSError):
        asked = subprocess.run(["nft", "-j", "list", "tables"], capture_output=True, check=False)
        if asked.returncode == 0:
            tables = [
                item["table"] for item in json.loads(asked.stdout)["nftables"] if "table" in item
            ]
            return frozenset(
                f"{table['family']} {table['name']}"
                for table in tables
                if "bakehouse" in table["name"]
            )
    return frozenset()

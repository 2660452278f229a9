"""What a running daemon holds, seen from outside: told by itself, held against the kernel, and counted.

:func:`disagreements` compares what the daemon says with what there is; :func:`holdings` counts all there is, so that two
moments can be compared: nothing of a container that is gone may be left.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import docker

from tests.support.daemon import Daemon

SETTLE_SECONDS = 20.0
AT_REST = frozenset({"created", "running", "paused", "exited", "restarting"})
TOLD = frozenset({"event", "event_share", "sqlite_sequence", "sqlite_stat1"})
"""Tables that grow with history."""


def settled(look: Callable[[], list[str]]) -> list[str]:
    """What stays of it, once what is under way has had time to end."""
    until = time.monotonic() + SETTLE_SECONDS
    while (told := look()) and time.monotonic() < until:
        time.sleep(0.05)
    return told


def disagreements(daemon: Daemon) -> list[str]:
    """What the daemon says of its containers held against the kernel; empty when they agree."""
    with contextlib.closing(daemon.client()) as client:
        containers = client.api.containers(all=True)
        try:
            inspected = [client.api.inspect_container(one["Id"]) for one in containers]
        except docker.errors.NotFound:
            return ["a container goes just now"]
    # What waits for its policy is said to run, as dockerd says it, and has nothing of a run.
    running = [
        one for one in inspected if one["State"]["Running"] and not one["State"]["Restarting"]
    ]
    alive = {one["Id"]: one["State"]["Pid"] for one in running}
    told = [
        f"{one['Id'][:12]} is {one['State']['Status']}"
        for one in inspected
        if one["State"]["Status"] not in AT_REST
    ]
    told += [
        f"process {pid} of {name[:12]} is gone" for name, pid in alive.items() if not _lives(pid)
    ]
    there = mounts(daemon)
    told += _compare("cgroups", set(_container_groups(daemon)), set(alive))
    told += _compare("conmons", set(_conmons(daemon)), set(alive))
    told += _compare(
        "root file systems", set(_below(there, daemon.run_root / "rootfs")), set(alive)
    )
    told += _compare("sessions", _names(daemon.run_root, "containers/u*/*"), set(alive))
    told += _compare("the runtime's", _names(daemon.run_root, "crun/*", "runc/*"), set(alive))
    namespaces = _names(daemon.run_root, "ns/net/*")
    told += [f"network namespaces: {name[:20]} is left" for name in namespaces - set(alive)]
    published = sum(
        len(bound or ())
        for one in running
        for bound in (one["NetworkSettings"]["Ports"] or {}).values()
    )
    told += _unequal("published ports", sum(_mapped(daemon).values()), published)
    seats = [
        (one["Id"], name)
        for one in running
        for name in one["NetworkSettings"]["Networks"]
        if name not in {"none", "host"}
    ]
    return told + _unequal("links", len(_links(daemon, "bv")), len(seats))


def _unequal(what: str, found: int, wanted: int) -> list[str]:
    return [] if found == wanted else [f"{what}: {found} for {wanted}"]


def _compare(what: str, found: set[str], wanted: set[str]) -> list[str]:
    return [
        *(f"{what}: {name[:20]} is left" for name in sorted(found - wanted)),
        *(f"{what}: {name[:20]} is missing" for name in sorted(wanted - found)),
    ]


def holdings(daemon: Daemon) -> Counter[str]:
    """Everything of the daemon's that is there, as texts, and how often."""
    held: Counter[str] = Counter()
    held.update(f"mount {point} ({kind})" for point, kind in mounts(daemon))
    held.update(
        f"path {path}" for path in (*_paths(daemon.run_root, RUN), *_paths(daemon.data_root, DATA))
    )
    held.update(f"cgroup {path}" for path in _groups(daemon))
    held.update(f"link {name}" for name in _links(daemon, "bh", "bv"))
    held.update({f"elements of {name}": count for name, count in _elements(daemon).items()})
    held.update(f"process {command}" for command in _processes(daemon))
    held.update(_rows(daemon.data_root / "database.sqlite"))
    return +held


def beyond(now: Counter[str], before: Counter[str]) -> list[str]:
    """What is here and was not ``before``."""
    return sorted((now - before).elements())


RUN = ("containers/*", "containers/u*/*", "ns/*/*", "rootfs/*/*", "crun/*", "runc/*")
DATA = ("containers/*", "snapshots/*/*", "volumes/*/*", "layers/*", "trash/*")


def mounts(daemon: Daemon) -> list[tuple[str, str]]:
    """The mounts in the daemon's mount namespace below its roots: where, and of which kind."""
    table = subprocess.run(
        ["nsenter", f"--mount={daemon.run_root}/pins/mnt", "cat", "/proc/self/mountinfo"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = []
    for line in table.splitlines():
        words = line.split()
        if words[4].startswith(f"{daemon.root}/"):
            found.append((words[4], words[words.index("-") + 1]))
    return found


def _below(there: list[tuple[str, str]], directory: Path) -> Iterator[str]:
    """The containers whose overlay is mounted below a directory."""
    for point, kind in there:
        if kind == "overlay" and Path(point).is_relative_to(directory):
            yield Path(point).parent.name


def _lives(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _names(root: Path, *patterns: str) -> set[str]:
    return {path.name for path in _paths(root, patterns)}


def _paths(root: Path, patterns: tuple[str, ...]) -> list[Path]:
    return [path for pattern in patterns for path in root.glob(pattern)]


def _groups(daemon: Daemon) -> list[Path]:
    roots = list(Path("/sys/fs/cgroup").glob(daemon.config.instance))
    roots += Path("/sys/fs/cgroup").glob(f"*/{daemon.config.instance}")
    return [Path(path) for root in roots for path, _, _ in os.walk(root)]


def _container_groups(daemon: Daemon) -> Iterator[str]:
    """The groups below owners' of containers and of builds' steps; that of all an owner's builds stays with its owner."""
    for path in _groups(daemon):
        below = path.parts[path.parts.index(daemon.config.instance) + 1 :]
        if len(below) < 2 or not below[0].startswith("u"):
            continue
        if len(below) == 2 and below[1] not in {"monitors", "builds"}:
            yield below[1]
        elif len(below) == 3 and below[1] == "builds":
            yield "/".join(below[1:])


def _commands(daemon: Daemon) -> Iterator[list[str]]:
    """The command lines of processes that speak of the daemon's run directory, but its own and its spawner's."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().decode(errors="replace").split("\0")
            if str(daemon.run_root) in "\0".join(words) and "supervisor" not in "".join(words[:4]):
                yield words


def _conmons(daemon: Daemon) -> Iterator[str]:
    for words in _commands(daemon):
        if words[0].endswith("conmon") and "--exec" not in words:
            yield words[words.index("-c") + 1]


def _processes(daemon: Daemon) -> Iterator[str]:
    for words in _commands(daemon):
        yield " ".join(words[:8])


def _links(daemon: Daemon, *kinds: str) -> list[str]:
    ours = tuple(f"{kind}{daemon.config.instance_tag}" for kind in kinds)
    return [name for name in os.listdir("/sys/class/net") if name.startswith(ours)]


def _elements(daemon: Daemon) -> Counter[str]:
    """How many elements each set and map of the daemon's table has."""
    listed = subprocess.run(
        ["nft", "-j", "list", "table", "inet", daemon.config.instance],
        capture_output=True,
        check=False,
    )
    counts: Counter[str] = Counter()
    if listed.returncode == 0:
        for item in json.loads(listed.stdout)["nftables"]:
            for kind in ("set", "map"):
                if kind in item:
                    counts[f"{kind} {item[kind]['name']}"] = len(item[kind].get("elem", ()))
    return counts


def _mapped(daemon: Daemon) -> Counter[str]:
    """The elements that map published ports."""
    return Counter(
        {
            name: count
            for name, count in _elements(daemon).items()
            if re.match("map published", name)
        }
    )


def _rows(path: Path) -> Counter[str]:
    counts: Counter[str] = Counter()
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            if table not in TOLD:
                rows = connection.execute(f'SELECT count(*) FROM "{table}"')
                counts[f"row of {table}"] = rows.fetchone()[0]
    return counts

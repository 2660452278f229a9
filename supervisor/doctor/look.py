"""Looking at the host: what stands in its files and tables, nothing changed. Standard library only."""

from __future__ import annotations

import contextlib
import grp
import json
import os
import platform
import pwd
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from supervisor.doctor import runtime_trial
from supervisor.doctor.children import attempt, run
from supervisor.doctor.facts import (
    CgroupMounts,
    Disk,
    Forwarding,
    Ids,
    Kernel,
    Program,
    Tried,
    Units,
)
from supervisor.doctor.judge import HELPERS, UNITS
from supervisor.doctor.place import PROGRAM_PATHS, Place
from supervisor.linux import capabilities

ENGINES = ("dockerd", "podman", "containerd", "buildkitd", "crio", "lxd", "incusd")
SUBORDINATE = (Path("/etc/subuid"), Path("/etc/subgid"))
_SUBORDINATE_LINE = re.compile(r"^[^:#]*:(\d+):(\d+)\s*$", re.MULTILINE)
_OWN_TABLE = "bakehouse"


def kernel(place: Place) -> Kernel:
    """uname(2), and the capabilities that can be handed on."""
    held = None
    if place.root:
        held = frozenset(name.removeprefix("CAP_") for name in capabilities.bounding_set())
    return Kernel(platform.release(), platform.machine(), held)


def cgroups(place: Place) -> CgroupMounts:
    """Where they are mounted, and whether root can make one."""
    v1: set[str] = set()
    v2 = ""
    for point, kind, options in _mounts():
        if kind == "cgroup":
            v1.update(options & {"cpu", "memory", "pids", "blkio", "cpuset"})
        if kind == "cgroup2" and not v2:
            v2 = point
    controllers = frozenset[str]()
    with contextlib.suppress(OSError):
        controllers = frozenset(Path(v2, "cgroup.controllers").read_text().split() if v2 else ())
    made = None
    if place.root:
        tops = [Path(point) for point, kind, _ in _mounts() if kind in {"cgroup", "cgroup2"}]
        made = all(_makes_a_group(top) for top in tops[:1])
    return CgroupMounts(frozenset(v1), v2, controllers, made)


def _makes_a_group(top: Path) -> bool:
    group = top / f"{runtime_trial.NAME}-{os.getpid()}"
    try:
        group.mkdir()
    except OSError:
        return False
    group.rmdir()
    return True


def pressure(_: Place) -> frozenset[str]:
    """Of what the kernel tells pressure; its files may be there and refuse to be read."""
    told: set[str] = set()
    for name in ("cpu", "memory", "io"):
        with contextlib.suppress(OSError):
            if Path("/proc/pressure", name).read_text():
                told.add(name)
    return frozenset(told)


def runtimes(place: Place) -> tuple[Program, ...]:
    """Each runtime, tried with a container where we are root."""
    return tuple(_runtime(name, place) for name in place.runtimes)


def _runtime(name: str, place: Place) -> Program:
    found = _program(name)
    if not found.path or not place.root:
        return found
    with tempfile.TemporaryDirectory(prefix="bakehouse-doctor-", dir="/run") as bundle:
        try:
            tried = attempt("runtime", found.path, bundle)
        finally:
            runtime_trial.clear_groups(Path(bundle).name)
    return Program(
        name, found.path, found.version, tried.worked, "" if tried.worked else tried.said
    )


def conmon(place: Place) -> Program:
    """conmon, and whether it starts."""
    found = _program(place.conmon)
    if not found.path:
        return found
    return Program("conmon", found.path, found.version, bool(found.version), found.complaint)


def helpers(_: Place) -> tuple[Program, ...]:
    """What single commands need."""
    return tuple(Program(name, shutil.which(name, path=PROGRAM_PATHS) or "") for name in HELPERS)


def _program(name: str) -> Program:
    path = shutil.which(name, path=PROGRAM_PATHS)
    if path is None:
        return Program(name, "")
    ended = run(path, "--version")
    version = ended.said.partition("\n")[0].rpartition(" ")[2] if ended.status == 0 else ""
    return Program(name, path, version, complaint=ended.complained.strip())


def disk(place: Place) -> Disk:
    """The file system the store lies or will lie on."""
    directory = place.existing(place.data_root)
    told = os.statvfs(directory)
    kind, options = _file_system_of(directory)
    return Disk(
        directory=str(directory),
        kind=kind,
        options=options,
        read_only=bool(told.f_flag & os.ST_RDONLY),
        bytes=told.f_blocks * told.f_frsize,
        bytes_free=told.f_bavail * told.f_frsize,
        inodes=told.f_files,
        inodes_free=told.f_favail,
    )


def overlay(place: Place) -> Tried | None:
    """The overlay tried on that file system, where we are root."""
    if not place.root:
        return None
    directory = place.existing(place.data_root)
    try:
        with tempfile.TemporaryDirectory(prefix=".bakehouse-doctor-", dir=directory) as folder:
            Path(folder).chmod(0o711)
            return attempt("overlay", folder, str(place.pool_first_id))
    except OSError as error:
        return Tried(worked=False, said=error.strerror or str(error))


def ids(place: Place) -> Ids:
    """Who has ids in or near the pool."""
    accounts = {entry.pw_uid for entry in pwd.getpwall()} | {
        entry.pw_gid for entry in pwd.getpwall()
    }
    accounts |= {entry.gr_gid for entry in grp.getgrall()}
    subordinate: set[tuple[int, int]] = set()
    for path in SUBORDINATE:
        with contextlib.suppress(OSError):
            text = path.read_text(errors="replace")
            subordinate |= {
                (int(first), int(count)) for first, count in _SUBORDINATE_LINE.findall(text)
            }
    namespaces = None
    with contextlib.suppress(OSError):
        namespaces = int(Path("/proc/sys/user/max_user_namespaces").read_text())
    ours = sum(int(line.split()[2]) for line in Path("/proc/self/uid_map").read_text().splitlines())
    return Ids(
        place.pool_first_id,
        place.pool_owners,
        frozenset(accounts),
        tuple(sorted(subordinate)),
        namespaces,
        ours,
    )


def tried(name: str, *arguments: str, place: Place) -> Tried | None:
    """A trial, where we are root."""
    return attempt(name, *arguments) if place.root else None


def forwarding(place: Place) -> Forwarding:
    """The kernel's switches, and others' chains."""
    switch = Path("/proc/sys/net/ipv4/ip_forward")
    bridges = False
    with contextlib.suppress(OSError):
        bridges = Path("/proc/sys/net/bridge/bridge-nf-call-iptables").read_text().strip() == "1"
    chains = list(_chains()) if place.root else []
    dropping = tuple(
        f"{chain['family']} {chain['table']} {chain['name']}"
        for chain in chains
        if chain.get("hook") == "forward" and chain.get("policy") == "drop"
    )
    return Forwarding(
        ipv4=switch.read_text().strip() == "1",
        changeable=not place.root or os.access(switch, os.W_OK),
        bridges_filtered=bridges,
        dropping=dropping if place.root else None,
        docker_user=any(chain.get("name") == "DOCKER-USER" for chain in chains),
    )


def _chains() -> Iterator[dict[str, object]]:
    """The host's chains that are not ours; those of old iptables, which nft does not list, too."""
    told = attempt("forward_chains")
    if told.worked and told.said:
        for item in json.loads(told.said)["nftables"]:
            chain = item.get("chain")
            if chain is not None and not str(chain["table"]).startswith(_OWN_TABLE):
                yield chain
    names = Path("/proc/net/ip_tables_names")  # whoever asks iptables-legacy for a table makes it
    if names.exists() and "filter" in names.read_text().split():
        for line in run("iptables-legacy", "-w", "2", "-S").said.splitlines():
            words = line.split()
            if words[:2] == ["-P", "FORWARD"]:
                policy = words[2].lower()
                yield {
                    "family": "legacy",
                    "table": "filter",
                    "name": "FORWARD",
                    "hook": "forward",
                    "policy": policy,
                }
            elif words[0] == "-N":
                yield {"family": "legacy", "table": "filter", "name": words[1]}


def engines(_: Place) -> tuple[str, ...]:
    """Other engines' processes."""
    running: set[str] = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                running.add((process / "comm").read_text().strip())
    return tuple(name for name in ENGINES if name in running)


def groups(place: Place) -> tuple[tuple[str, bool], ...]:
    """The two groups, and whether they are there."""
    return tuple((name, _is_group(name)) for name in (place.user_group, place.admin_group))


def _is_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def units(_: Place) -> Units:
    """Our units, as systemd knows them."""
    if not Path("/run/systemd/system").is_dir():
        return Units(running=False, states={})
    ended = run("systemctl", "show", "--property=Id,LoadState,ActiveState", *UNITS)
    states: dict[str, str] = {}
    for part in ended.said.split("\n\n"):
        fields = dict(line.split("=", 1) for line in part.splitlines() if "=" in line)
        if fields.get("LoadState") == "loaded":
            states[fields["Id"]] = fields["ActiveState"]
    return Units(running=True, states=states)


def _mounts() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Mount point, type and super block options; proc_pid_mountinfo(5)."""
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        words = right.split(" ")
        yield left.split(" ")[4], words[0], frozenset(words[-1].split(","))


def _file_system_of(directory: Path) -> tuple[str, frozenset[str]]:
    """Of the mount that the directory lies on: the last of the longest."""
    real = str(directory.resolve())
    kind, options, longest = "unknown", frozenset[str](), -1
    for point, name, told in _mounts():
        below = point in {"/", real} or real.startswith(point + "/")
        if below and len(point) >= longest:
            kind, options, longest = name, told, len(point)
    return kind, options

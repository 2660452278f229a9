"""What the doctor has seen of a host, as values: whoever judges looks at nothing else. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Kernel:
    """The kernel and what we may do.

    Attributes:
        release: As uname(2) has it.
        architecture: Likewise.
        capabilities: Names of those this process could hand on, without ``CAP_``; None where we are not root.
    """

    release: str
    architecture: str
    capabilities: frozenset[str] | None


@dataclass(frozen=True)
class CgroupMounts:
    """How cgroups are mounted.

    Attributes:
        v1: Controllers that are mounted as v1.
        v2: Where the v2 tree is mounted; empty when it is not.
        controllers: Those the v2 tree has.
        made: Whether a group could be made and removed; None where we may not.
    """

    v1: frozenset[str]
    v2: str
    controllers: frozenset[str]
    made: bool | None


@dataclass(frozen=True)
class Program:
    """A program of the host's: where it is, which version it says it is, and whether it did its work.

    Attributes:
        path: Empty when it is not installed.
        worked: None where it was not tried.
        complaint: Why it did not.
    """

    name: str
    path: str
    version: str = ""
    worked: bool | None = None
    complaint: str = ""


@dataclass(frozen=True)
class Tried:
    """What came of a trial.

    Attributes:
        worked: It did what it tried.
        said: What it found out, or where it failed.
    """

    worked: bool
    said: str = ""


@dataclass(frozen=True)
class Disk:
    """The file system below a directory.

    Attributes:
        directory: The nearest one that is there.
        kind: ``ext4``, …
        options: Of its super block.
        read_only: It cannot be written to.
        inodes: In all; 0 where they are made as needed.
    """

    directory: str
    kind: str
    options: frozenset[str]
    read_only: bool
    bytes: int
    bytes_free: int
    inodes: int
    inodes_free: int


@dataclass(frozen=True)
class Ids:
    """Who has which ids.

    Attributes:
        pool_first_id: See ``Place``.
        pool_owners: See ``Place``.
        accounts: Uids and gids of the host's accounts and groups as far as they can be listed.
        subordinate: Ranges of subuid(5) and subgid(5): (first, count).
        namespaces_max: How many user namespaces the kernel gives; None where it does not say.
        ours: This process's own map has this many ids: fewer than all where we are ourselves in a user namespace.
    """

    pool_first_id: int
    pool_owners: int
    accounts: frozenset[int]
    subordinate: tuple[tuple[int, int], ...]
    namespaces_max: int | None
    ours: int


@dataclass(frozen=True)
class Forwarding:
    """How packets pass through this host.

    Attributes:
        ipv4: They are forwarded.
        changeable: The switch can be written, as far as file modes tell.
        bridges_filtered: Packets within a bridge pass iptables, too.
        dropping: Chains at the forward hook whose policy drops, as ``family table chain``; None where we may not look.
        docker_user: There is a DOCKER-USER chain, where our bridges are let through.
    """

    ipv4: bool
    changeable: bool
    bridges_filtered: bool
    dropping: tuple[str, ...] | None
    docker_user: bool


@dataclass(frozen=True)
class Units:
    """What systemd knows of us.

    Attributes:
        running: systemd is this host's init.
        states: ``active``, ``inactive``, ``failed``, … by unit, of those that are installed.
    """

    running: bool
    states: Mapping[str, str]


@dataclass(frozen=True)
class DaemonSeen:
    """What the daemon said.

    Attributes:
        socket: Where it was asked.
        answers: It did.
        complaint: Why not.
        refused: It, or its socket, does not let this caller in.
        listening: There is something at that place.
        version: Its own.
        client_version: This command's.
    """

    socket: str
    answers: bool
    complaint: str = ""
    refused: bool = False
    listening: bool = False
    version: str = ""
    client_version: str = ""

"""Namespaces that a container shares with another: ``--pid``, ``--ipc`` and ``--network container:…``, among its owner's own.

Words: a *partner* is the container whose namespaces are joined.

Rules: partners are found for the identity that asks, so that another owner's cannot be told from one that does not exist,
and kept by id. They must be of the same owner and in the same user namespace: that is where all three are owned. A
network namespace is pinned; each of the others is opened while the partner's first process is known to live, and handed to
the runtime open: no pid that means somebody else by then can be joined.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs

from supervisor.access.requests import ContainerRequest
from supervisor.errors import Conflict, InvalidArgument, NotFound
from supervisor.runtime.connections import check_shared
from supervisor.runtime.parts import Parts
from supervisor.runtime.processes import identify
from supervisor.runtime.records import ContainerRecord, ContainerState, ProcessIdentity
from supervisor.runtime.shared_memory import SHAREABLE, shared_memory_place
from supervisor.runtime.spec import NO_NAMESPACES, SharedNamespaces
from supervisor.runtime.status import ALIVE, Status

PREFIX = "container:"
PID, IPC = "pid", "ipc"

Partner = tuple[ContainerRecord, ContainerState]
Find = Callable[[str], Partner]
"""The container with this reference.

Raises:
    NotFound: None that may be known of.
"""


@attrs.frozen
class Joined:
    """What is shared with partners during a start.

    Attributes:
        namespaces: Paths the runtime joins, by kind.
        shared_memory: The partner's ``/dev/shm`` in M.
    """

    namespaces: SharedNamespaces = NO_NAMESPACES
    shared_memory: Path | None = None


def partner_of(mode: str) -> str:
    """Whose namespace a mode asks for; empty for none's."""
    return mode.removeprefix(PREFIX) if mode.startswith(PREFIX) else ""


def with_partners(
    request: ContainerRequest, owner: int, find: Find, *, remapped: bool
) -> ContainerRequest:
    """The request with its partners named by their ids.

    Raises:
        InvalidArgument: There is no such container for who asks, or it cannot be joined; Docker's wording.
    """
    modes = {"PID": request.pid_mode, "IPC": request.ipc_mode, "network": request.network_mode}
    if partner_of(request.network_mode):
        check_shared(request)
    for what, mode in modes.items():
        if not mode.startswith(PREFIX):
            continue
        if not (reference := partner_of(mode)):
            raise InvalidArgument(
                f'can\'t join {what} of container : invalid name or ID supplied: ""'
            )
        try:
            partner, _ = find(reference)
        except NotFound as error:  # as dockerd has it: clients would take 404 for a missing image
            raise InvalidArgument(error.message) from error
        _check(what, partner, owner, remapped=remapped)
        if what == "network":  # its /etc/hosts and names are shared, and so is what it is called
            domain = partner.request.domainname
            request = attrs.evolve(request, hostname=partner.hostname, domainname=domain)
        modes[what] = f"{PREFIX}{partner.id}"
    return attrs.evolve(
        request, pid_mode=modes["PID"], ipc_mode=modes["IPC"], network_mode=modes["network"]
    )


def _check(what: str, partner: ContainerRecord, owner: int, *, remapped: bool) -> None:
    if (partner.owner, partner.remapped) != (owner, remapped):
        raise InvalidArgument(
            f"cannot join {what} of container {partner.id}: it has another user namespace"
        )
    if what == "IPC" and partner.request.ipc_mode not in {SHAREABLE, "host"}:
        raise InvalidArgument(
            f"can't join IPC of container {partner.id}: "
            "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
        )


@contextmanager
def joined(parts: Parts, record: ContainerRecord, find: Find) -> Iterator[Joined]:
    """What the container shares, held open while the block starts it.

    Raises:
        Conflict: A partner does not run; Docker's wording.
    """
    request = record.request
    with ExitStack() as held:
        namespaces, memory = {}, None
        for kind, mode in ((PID, request.pid_mode), (IPC, request.ipc_mode)):
            if not (container_id := partner_of(mode)):
                continue
            partner, process = _running(kind, container_id, find)
            namespaces[kind] = _open(parts, kind, process, container_id, held)
            if kind == IPC and partner.request.ipc_mode == SHAREABLE:
                memory = shared_memory_place(parts.run_root, partner)
        yield Joined(namespaces, memory)


def _running(kind: str, container_id: str, find: Find) -> tuple[ContainerRecord, ProcessIdentity]:
    try:
        partner, state = find(container_id)
    except NotFound as error:
        raise Conflict(
            f"cannot join {kind.upper()} of a removed container: {container_id}"
        ) from error
    if state.status is Status.RESTARTING:
        raise Conflict(
            f"Container {container_id} is restarting, wait until the container is running"
        )
    if state.status not in ALIVE or state.process is None:
        raise _not_running(kind, container_id)
    return partner, state.process


def _open(
    parts: Parts, kind: str, process: ProcessIdentity, container_id: str, held: ExitStack
) -> str:
    """A path to the namespace that holds as long as ``held`` does."""
    try:
        fd = os.open(f"/proc/{process.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise _not_running(kind, container_id) from error
    held.callback(os.close, fd)
    if identify(process.pid, parts.boot_id) != process:  # it is somebody else's
        raise _not_running(kind, container_id)
    return f"/proc/{os.getpid()}/fd/{fd}"


def _not_running(kind: str, container_id: str) -> Conflict:
    return Conflict(
        f"cannot join {kind.upper()} of container {container_id}: container {container_id} is not running"
    )

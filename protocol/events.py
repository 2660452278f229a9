"""Everything that can happen: one class per kind, and the envelope they travel in.

Words: *data* is what one kind says beyond who and when; the *envelope* (:class:`Event`) is CloudEvents' shape plus
``seq`` (the place in the journal), ``owner`` (a host uid) and ``actor`` (Docker's: an id and attributes).

Rules: a kind is never renamed and a field never changes its meaning; a new field has a default, so that old journals
still read. ``docker`` is what Docker's ``/events`` calls it: (Type, Action), both empty where it has no such event.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs
from typing_extensions import override

SPEC_VERSION = "1.0"


@attrs.frozen
class EventData:
    """What all kinds have in common."""

    type: ClassVar[str] = ""
    docker: ClassVar[tuple[str, str]] = ("", "")

    def docker_action(self) -> tuple[str, str] | None:
        """Docker's (Type, Action); a few kinds say more in the action than their name."""
        return self.docker if self.docker[0] else None


@attrs.frozen
class UnknownEvent(EventData):
    """A kind this version does not know, kept as it came: old clients survive new daemons."""

    kind: str
    fields: Mapping[str, object] = attrs.field(factory=dict)


# --- containers; the subject is the container's id ---------------------------------------------------------------


@attrs.frozen
class ContainerCreate(EventData):
    """A container exists, and has never run."""

    type = "container.create"
    docker = ("container", "create")


@attrs.frozen
class ContainerStart(EventData):
    """Its first process runs. ``pid`` is the host's."""

    type = "container.start"
    docker = ("container", "start")
    pid: int = 0


@attrs.frozen
class ContainerRestart(EventData):
    """It was stopped and started again on request."""

    type = "container.restart"
    docker = ("container", "restart")


@attrs.frozen
class ContainerDie(EventData):
    """Its first process ended.

    Attributes:
        exit_code: As Docker counts: 128 + signal when killed; 255 when nobody saw the end.
        reason: Why, where the code alone does not say (``out of memory``, ``the monitor was lost``).
        oom: The kernel ended a process of it for want of memory.
    """

    type = "container.die"
    docker = ("container", "die")
    exit_code: int
    reason: str = ""
    oom: bool = False


@attrs.frozen
class ContainerOom(EventData):
    """The kernel ended a process of it for want of memory; the container may live on."""

    type = "container.oom"
    docker = ("container", "oom")


@attrs.frozen
class ContainerKill(EventData):
    """A signal was sent to it on request. ``signal`` is the number."""

    type = "container.kill"
    docker = ("container", "kill")
    signal: int


@attrs.frozen
class ContainerStop(EventData):
    """A stop that was asked for is done."""

    type = "container.stop"
    docker = ("container", "stop")


@attrs.frozen
class ContainerPause(EventData):
    """All its processes are frozen."""

    type = "container.pause"
    docker = ("container", "pause")


@attrs.frozen
class ContainerUnpause(EventData):
    """They run again."""

    type = "container.unpause"
    docker = ("container", "unpause")


@attrs.frozen
class ContainerDestroy(EventData):
    """It is gone, with all it held."""

    type = "container.destroy"
    docker = ("container", "destroy")


@attrs.frozen
class ContainerRename(EventData):
    """It has another name."""

    type = "container.rename"
    docker = ("container", "rename")
    old_name: str
    new_name: str


@attrs.frozen
class ContainerUpdate(EventData):
    """Its limits were changed."""

    type = "container.update"
    docker = ("container", "update")


@attrs.frozen
class ContainerAttach(EventData):
    """Somebody is attached to its output or input."""

    type = "container.attach"
    docker = ("container", "attach")


@attrs.frozen
class ContainerDetach(EventData):
    """Somebody left by the detach keys."""

    type = "container.detach"
    docker = ("container", "detach")


@attrs.frozen
class ContainerResize(EventData):
    """Its terminal has another size, in characters."""

    type = "container.resize"
    docker = ("container", "resize")
    height: int
    width: int


@attrs.frozen
class ContainerTop(EventData):
    """Its processes were listed."""

    type = "container.top"
    docker = ("container", "top")


@attrs.frozen
class ContainerArchive(EventData):
    """Files were copied out of it (``archive-path``) or into it (``extract-to-dir``)."""

    type = "container.archive"
    action: str
    path: str = ""

    @override
    def docker_action(self) -> tuple[str, str] | None:
        return ("container", self.action)


@attrs.frozen
class ContainerCommit(EventData):
    """An image was made of it."""

    type = "container.commit"
    docker = ("container", "commit")
    image: str = ""


@attrs.frozen
class ContainerAdopt(EventData):
    """A new daemon found it running and took it on."""

    type = "container.adopt"
    pid: int = 0


@attrs.frozen
class ContainerHealth(EventData):
    """Its health check's answer changed: ``starting``, ``healthy`` or ``unhealthy``."""

    type = "container.health"
    status: str
    output: str = ""

    @override
    def docker_action(self) -> tuple[str, str] | None:
        return ("container", f"health_status: {self.status}")


# --- exec sessions; the subject is the container's id ---------------------------------------------------------------


@attrs.frozen
class ExecCreate(EventData):
    """A further process was asked for. ``command`` is one line, for people."""

    type = "exec.create"
    exec_id: str
    command: str = ""

    @override
    def docker_action(self) -> tuple[str, str] | None:
        return ("container", f"exec_create: {self.command}")


@attrs.frozen
class ExecStart(EventData):
    """It runs."""

    type = "exec.start"
    exec_id: str
    command: str = ""

    @override
    def docker_action(self) -> tuple[str, str] | None:
        return ("container", f"exec_start: {self.command}")


@attrs.frozen
class ExecDie(EventData):
    """It ended."""

    type = "exec.die"
    docker = ("container", "exec_die")
    exec_id: str
    exit_code: int


@attrs.frozen
class ExecDetach(EventData):
    """Somebody left it by the detach keys."""

    type = "exec.detach"
    docker = ("container", "exec_detach")
    exec_id: str


# --- images; the subject is the image's id --------------------------------------------------------------------------


@attrs.frozen
class ImageTag(EventData):
    """The image has a further name of the owner's."""

    type = "image.tag"
    docker = ("image", "tag")
    reference: str = ""


@attrs.frozen
class ImageUntag(EventData):
    """The image has lost a name of the owner's."""

    type = "image.untag"
    docker = ("image", "untag")
    reference: str = ""


@attrs.frozen
class ImageDelete(EventData):
    """The owner has no name for it any more."""

    type = "image.delete"
    docker = ("image", "delete")


@attrs.frozen
class ImageLoad(EventData):
    """It came out of an archive."""

    type = "image.load"
    docker = ("image", "load")
    reference: str = ""


@attrs.frozen
class ImageImport(EventData):
    """It was made of a file system's tar."""

    type = "image.import"
    docker = ("image", "import")
    reference: str = ""


@attrs.frozen
class ImageSave(EventData):
    """It was written into an archive."""

    type = "image.save"
    docker = ("image", "save")


@attrs.frozen
class ImagePull(EventData):
    """It came from a registry."""

    type = "image.pull"
    docker = ("image", "pull")
    reference: str = ""


@attrs.frozen
class ImagePush(EventData):
    """It went to a registry."""

    type = "image.push"
    docker = ("image", "push")
    reference: str = ""


@attrs.frozen
class ImagePrune(EventData):
    """Images nobody names were removed."""

    type = "image.prune"
    docker = ("image", "prune")
    reclaimed_bytes: int = 0


@attrs.frozen
class ImagePublish(EventData):
    """An admin gave it a name that everybody on the host may use."""

    type = "image.publish"
    reference: str = ""


# --- builds; the subject is the build's id --------------------------------------------------------------------------


@attrs.frozen
class BuildStart(EventData):
    """A build began."""

    type = "build.start"
    build_id: str
    tags: tuple[str, ...] = ()


@attrs.frozen
class StepStart(EventData):
    """A step of it runs. ``vertex`` is the step's key; ``name`` is for people."""

    type = "step.start"
    build_id: str
    vertex: str
    name: str = ""


@attrs.frozen
class StepDone(EventData):
    """A step of it ended; ``error`` is empty when it went well."""

    type = "step.done"
    build_id: str
    vertex: str
    name: str = ""
    cached: bool = False
    seconds: float = 0.0
    error: str = ""


@attrs.frozen
class BuildDone(EventData):
    """It made ``image``."""

    type = "build.done"
    docker = ("builder", "build")
    build_id: str
    image: str = ""


@attrs.frozen
class BuildFail(EventData):
    """It failed, and says why."""

    type = "build.fail"
    build_id: str
    message: str = ""


@attrs.frozen
class BuildCancel(EventData):
    """Nobody wanted it any more."""

    type = "build.cancel"
    build_id: str


@attrs.frozen
class BuildPrune(EventData):
    """Cached steps were removed."""

    type = "build.prune"
    docker = ("builder", "prune")
    reclaimed_bytes: int = 0


# --- networks (the subject is the network's id) and volumes (the volume's name) --------------------------------------


@attrs.frozen
class NetworkCreate(EventData):
    """A network exists."""

    type = "network.create"
    docker = ("network", "create")


@attrs.frozen
class NetworkConnect(EventData):
    """A container is on it."""

    type = "network.connect"
    docker = ("network", "connect")
    container: str = ""
    address: str = ""


@attrs.frozen
class NetworkDisconnect(EventData):
    """A container has left it."""

    type = "network.disconnect"
    docker = ("network", "disconnect")
    container: str = ""


@attrs.frozen
class NetworkDestroy(EventData):
    """It is gone."""

    type = "network.destroy"
    docker = ("network", "destroy")


@attrs.frozen
class NetworkPrune(EventData):
    """Networks nobody uses were removed."""

    type = "network.prune"
    docker = ("network", "prune")


@attrs.frozen
class VolumeCreate(EventData):
    """A volume exists."""

    type = "volume.create"
    docker = ("volume", "create")


@attrs.frozen
class VolumeMount(EventData):
    """A container uses it."""

    type = "volume.mount"
    docker = ("volume", "mount")
    container: str = ""
    destination: str = ""
    read_only: bool = False


@attrs.frozen
class VolumeUnmount(EventData):
    """A container uses it no more."""

    type = "volume.unmount"
    docker = ("volume", "unmount")
    container: str = ""


@attrs.frozen
class VolumeDestroy(EventData):
    """It is gone, with its files."""

    type = "volume.destroy"
    docker = ("volume", "destroy")


@attrs.frozen
class VolumePrune(EventData):
    """Volumes nobody uses were removed."""

    type = "volume.prune"
    docker = ("volume", "prune")
    reclaimed_bytes: int = 0


# --- the host and its people -----------------------------------------------------------------------------------------


@attrs.frozen
class DaemonStart(EventData):
    """A daemon took over, and says what it works with.

    Attributes:
        runtime: The OCI runtime it chose, ``name version``; ``runtime_reason`` says why.
        cgroups: ``v1``, ``hybrid`` or ``v2``.
        lacks: What this host cannot do, in words.
    """

    type = "daemon.start"
    version: str = ""
    runtime: str = ""
    runtime_reason: str = ""
    cgroups: str = ""
    lacks: tuple[str, ...] = ()


@attrs.frozen
class DaemonStop(EventData):
    """The daemon ends; containers live on."""

    type = "daemon.stop"
    reason: str = ""


@attrs.frozen
class AccessRefuse(EventData):
    """Policy refused something. ``count`` is how many like it this event stands for."""

    type = "access.refuse"
    action: str
    rule: str
    message: str = ""
    count: int = 1


@attrs.frozen
class OwnerAllot(EventData):
    """An owner has a range of host ids: ``range_first`` and the 65,534 after it."""

    type = "owner.allot"
    range_first: int
    range_count: int = 65_535


@attrs.frozen
class AdmissionWait(EventData):
    """Work had to wait for its turn."""

    type = "admission.wait"
    what: str = ""
    seconds: float = 0.0
    reason: str = ""


@attrs.frozen
class MonitorVerdict(EventData):
    """What the monitor thinks of the host changed: ``calm``, ``tight`` or ``critical``, and why."""

    type = "monitor.verdict"
    verdict: str
    reason: str = ""


def _kinds() -> dict[str, type[EventData]]:
    known = [kind for kind in globals().values() if isinstance(kind, type)]
    return {kind.type: kind for kind in known if issubclass(kind, EventData) and kind.type}


EVENT_TYPES: Mapping[str, type[EventData]] = _kinds()
"""Every kind by its name on the wire."""


# --- the envelope ----------------------------------------------------------------------------------------------------


@attrs.frozen
class Actor:
    """Docker's Actor: the thing's id, and what is good to know about it (name, image, labels, exitCode, …)."""

    id: str
    attributes: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen
class Event:
    """One entry of the journal.

    Attributes:
        seq: Its place: counted from 1 without gaps, in the order of commit.
        id: The cursor ``epoch:seq``; unique among all journals.
        source: The journal it comes from, ``/bakehouse/<epoch>``.
        type: The kind, as in :data:`EVENT_TYPES`.
        subject: What it happened to: a full container, image, build or network id, or a volume's name.
        time_ns: When, in nanoseconds since 1970; ``time`` in RFC 3339 on the wire.
        owner: The host uid whose thing it is; 0 for the daemon's own.
    """

    seq: int
    id: str
    source: str
    type: str
    subject: str
    time_ns: int
    owner: int
    actor: Actor
    data: EventData
    specversion: str = SPEC_VERSION

"""Everything that can happen: one class per kind, and the envelope they travel in.

Words: *data* is what one kind says beyond who and when; the *envelope* (:class:`Event`) is CloudEvents' shape plus
``seq`` (the place in the journal), ``owner`` (a host uid) and ``actor`` (Docker's: an id and attributes).

Rules: a kind is never renamed and a field never changes its meaning; a new field has a default, so that old journals
still read. ``docker`` is what Docker's ``/events`` calls it: (Type, Action), both empty where it has no such event.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from protocol.container_events import (
    ContainerAdopt,
    ContainerArchive,
    ContainerAttach,
    ContainerCommit,
    ContainerCreate,
    ContainerDestroy,
    ContainerDetach,
    ContainerDie,
    ContainerExport,
    ContainerGiveUp,
    ContainerHealth,
    ContainerKill,
    ContainerOom,
    ContainerPause,
    ContainerPrune,
    ContainerRemove,
    ContainerRemoveFail,
    ContainerRename,
    ContainerResize,
    ContainerRestart,
    ContainerStart,
    ContainerStartFail,
    ContainerStarting,
    ContainerStop,
    ContainerTop,
    ContainerUnpause,
    ContainerUpdate,
    ExecCreate,
    ExecDetach,
    ExecDie,
    ExecStart,
)
from protocol.event_data import EventData, UnknownEvent
from protocol.host_events import (
    AccessRefuse,
    AdmissionWait,
    BuildCancel,
    BuildDone,
    BuildFail,
    BuildPrune,
    BuildStart,
    DaemonReload,
    DaemonStart,
    DaemonStop,
    ImageDelete,
    ImageImport,
    ImageLoad,
    ImagePrune,
    ImagePublish,
    ImagePull,
    ImagePush,
    ImageSave,
    ImageTag,
    ImageUntag,
    MonitorRelief,
    MonitorVerdict,
    NetworkConnect,
    NetworkCreate,
    NetworkDestroy,
    NetworkDisconnect,
    NetworkPrune,
    OwnerAllot,
    OwnerLimit,
    OwnerResume,
    OwnerSuspend,
    StepDone,
    StepStart,
    VolumeCreate,
    VolumeDestroy,
    VolumeMount,
    VolumePrune,
    VolumeUnmount,
)

__all__ = [
    "EVENT_TYPES",
    "SPEC_VERSION",
    "AccessRefuse",
    "Actor",
    "AdmissionWait",
    "BuildCancel",
    "BuildDone",
    "BuildFail",
    "BuildPrune",
    "BuildStart",
    "ContainerAdopt",
    "ContainerArchive",
    "ContainerAttach",
    "ContainerCommit",
    "ContainerCreate",
    "ContainerDestroy",
    "ContainerDetach",
    "ContainerDie",
    "ContainerExport",
    "ContainerGiveUp",
    "ContainerHealth",
    "ContainerKill",
    "ContainerOom",
    "ContainerPause",
    "ContainerPrune",
    "ContainerRemove",
    "ContainerRemoveFail",
    "ContainerRename",
    "ContainerResize",
    "ContainerRestart",
    "ContainerStart",
    "ContainerStartFail",
    "ContainerStarting",
    "ContainerStop",
    "ContainerTop",
    "ContainerUnpause",
    "ContainerUpdate",
    "DaemonReload",
    "DaemonStart",
    "DaemonStop",
    "Event",
    "EventData",
    "ExecCreate",
    "ExecDetach",
    "ExecDie",
    "ExecStart",
    "ImageDelete",
    "ImageImport",
    "ImageLoad",
    "ImagePrune",
    "ImagePublish",
    "ImagePull",
    "ImagePush",
    "ImageSave",
    "ImageTag",
    "ImageUntag",
    "MonitorRelief",
    "MonitorVerdict",
    "NetworkConnect",
    "NetworkCreate",
    "NetworkDestroy",
    "NetworkDisconnect",
    "NetworkPrune",
    "OwnerAllot",
    "OwnerLimit",
    "OwnerResume",
    "OwnerSuspend",
    "StepDone",
    "StepStart",
    "UnknownEvent",
    "VolumeCreate",
    "VolumeDestroy",
    "VolumeMount",
    "VolumePrune",
    "VolumeUnmount",
]

SPEC_VERSION = "1.0"


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

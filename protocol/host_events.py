"""What happens to images, builds, networks, volumes, and to the host and its people. See ``protocol.events``."""

from __future__ import annotations

import attrs

from protocol.event_data import EventData

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
class DaemonReload(EventData):
    """The settings were read again.

    Attributes:
        changed: Those that are others now, by ``table.key``.
        waiting: Those that will be after a restart.
    """

    type = "daemon.reload"
    docker = ("daemon", "reload")
    changed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()


@attrs.frozen
class AccessRefuse(EventData):
    """Policy refused something. ``count`` is how many like it this event stands for."""

    type = "access.refuse"
    action: str
    rule: str
    message: str = ""
    count: int = 1


@attrs.frozen
class OwnerSuspend(EventData):
    """An administrator lets nothing new of an owner's begin. The subject is the owner's uid, ``by`` is an attribute."""

    type = "owner.suspend"
    reason: str = ""


@attrs.frozen
class OwnerResume(EventData):
    """The owner may work again."""

    type = "owner.resume"


@attrs.frozen
class OwnerAllot(EventData):
    """An owner has a range of host ids: ``range_first`` and the 65,534 after it."""

    type = "owner.allot"
    range_first: int
    range_count: int = 65_535


@attrs.frozen
class OwnerLimit(EventData):
    """An administrator gave an owner another limit; 0 is none. The subject is the owner's uid.

    Attributes:
        name: A key of ``[owner]`` in the settings.
        own: Whether it is set for them alone; else it is the default again.
    """

    type = "owner.limit"
    name: str
    value: float = 0.0
    before: float = 0.0
    own: bool = True


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


@attrs.frozen
class MonitorRelief(EventData):
    """Something was done about pressure, or undone; the owner is whom it was done to, 0 for all.

    Attributes:
        step: ``hold builds``, ``lower weights``, ``reclaim``, ``freeze builds`` or ``end``.
        reason: With the numbers.
        what: The container or build step that was ended.
        amount_bytes: What the owner's memory is held to.
        undone: It was taken back: ``reason`` says how the host is now.
        dry_run: It was decided and not done.
    """

    type = "monitor.relief"
    step: str
    reason: str = ""
    what: str = ""
    amount_bytes: int = 0
    undone: bool = False
    dry_run: bool = False

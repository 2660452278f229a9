"""What happens to containers and to the exec sessions in them; the subject is the container's id. See ``protocol.events``."""

from __future__ import annotations

import attrs
from typing_extensions import override

from protocol.event_data import EventData


@attrs.frozen
class ContainerCreate(EventData):
    """A container exists, and has never run."""

    type = "container.create"
    docker = ("container", "create")


@attrs.frozen
class ContainerStarting(EventData):
    """It is being started: by somebody, or by its restart policy (``by_policy``)."""

    type = "container.starting"
    by_policy: bool = False


@attrs.frozen
class ContainerStartFail(EventData):
    """It could not be started, and nothing of the attempt is left.

    Attributes:
        exit_code: As Docker counts: 127 no such command, 126 it cannot be executed, 128 anything else.
    """

    type = "container.start-fail"
    reason: str = ""
    exit_code: int = 0


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
        ended_ns: When, wall time: the daemon may have been down, and the event been told later.
        restart_after_ns: How long its restart policy waits before it starts it again; 0 when it does not.
    """

    type = "container.die"
    docker = ("container", "die")
    exit_code: int
    reason: str = ""
    oom: bool = False
    ended_ns: int = 0
    restart_after_ns: int = 0


@attrs.frozen
class ContainerGiveUp(EventData):
    """It was to be started again by its restart policy, and is not: somebody stopped it, or changed the policy."""

    type = "container.give-up"


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
class ContainerRemove(EventData):
    """It is being removed."""

    type = "container.remove"


@attrs.frozen
class ContainerRemoveFail(EventData):
    """It could not be removed wholly; it is dead, and can be removed again."""

    type = "container.remove-fail"
    reason: str = ""


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
class ContainerExport(EventData):
    """Its root file system was copied out as a whole."""

    type = "container.export"
    docker = ("container", "export")


@attrs.frozen
class ContainerCommit(EventData):
    """An image was made of it."""

    type = "container.commit"
    docker = ("container", "commit")
    image: str = ""
    reference: str = ""
    comment: str = ""


@attrs.frozen
class ContainerPrune(EventData):
    """Containers that did not run were removed."""

    type = "container.prune"
    docker = ("container", "prune")
    reclaimed_bytes: int = 0


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

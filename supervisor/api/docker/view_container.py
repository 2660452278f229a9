"""Our records of containers and execs as Docker's JSON. Pure.

Fields that mean nothing here are there all the same, with the value dockerd gives them when they are not used: clients
are written against those.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from supervisor.access.requests import MountKind
from supervisor.api.docker.view_host import host_config
from supervisor.api.docker.view_networks import endpoint_settings, listed_ports, network_settings
from supervisor.api.http import JsonObject
from supervisor.clock import NANOSECONDS_PER_SECOND, rfc3339
from supervisor.runtime.health import Health
from supervisor.runtime.status import ACTIVE, ALIVE, Status

if TYPE_CHECKING:
    from supervisor.network.endpoints import Sandbox
    from supervisor.runtime.health import HealthState
    from supervisor.runtime.records import ContainerRecord, ContainerState, ExecRecord, MountRecord

MINUTE, HOUR, DAY = 60, 3_600, 86_400
WEEK, MONTH, YEAR = 7 * DAY, 30 * DAY, 365 * DAY
SPOKEN = {Status.CREATING: Status.CREATED, Status.REMOVED: Status.REMOVING}
"""Statuses Docker has no word for, by those it has."""


@attrs.frozen
class Seen:
    """What is shown of one container.

    Attributes:
        volume_path: Where a volume, named, lies on the host.
        exec_ids: Of execs that run or may yet be started.
        size_bytes: What the container has written, and all its files; None when not asked for.
        run_directory: Of its own files in ``/etc``, while it runs.
        runtime: What it is run with where nobody asked for one by name.
    """

    record: ContainerRecord
    state: ContainerState
    sandbox: Sandbox | None
    volume_path: Callable[[str], Path | str]
    log_path: str = ""
    exec_ids: tuple[str, ...] = ()
    size_bytes: tuple[int, int] | None = None
    run_directory: Path | None = None
    runtime: str = ""

    def file_path(self, name: str) -> str:
        """Where one of the run's own files is; empty when it does not run."""
        return str(self.run_directory / name) if self.run_directory else ""


def inspect(seen: Seen) -> JsonObject:
    """``GET /containers/{id}/json``."""
    record = seen.record
    whole: JsonObject = {
        "Id": record.id,
        "Created": rfc3339(record.created_ns),
        "Path": record.args[0] if record.args else "",
        "Args": list(record.args[1:]),
        "State": state(seen.state),
        "Image": record.image_id,
        "ResolvConfPath": seen.file_path("resolv.conf"),
        "HostnamePath": seen.file_path("hostname"),
        "HostsPath": seen.file_path("hosts"),
        "LogPath": seen.log_path,
        "Name": f"/{record.name}",
        "RestartCount": seen.state.backoff.count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": list(seen.exec_ids) or None,
        "HostConfig": host_config(record.request)
        | {"Runtime": record.request.runtime or seen.runtime},
        "GraphDriver": {"Data": None, "Name": "overlay2"},
        "Mounts": [mount(each, seen.volume_path) for each in record.mounts],
        "Config": config(record),
        "NetworkSettings": network_settings(record, seen.sandbox),
    }
    if seen.size_bytes is not None:
        whole |= {"SizeRw": seen.size_bytes[0], "SizeRootFs": seen.size_bytes[1]}
    return whole


def state(state: ContainerState) -> JsonObject:
    """``State`` of an inspected container."""
    alive = state.status in ALIVE
    whole: JsonObject = {
        "Status": spoken(state).value,
        "Running": state.status in ACTIVE,
        "Paused": state.status is Status.PAUSED,
        "Restarting": state.status is Status.RESTARTING,
        "OOMKilled": state.oom_killed,
        "Dead": state.status is Status.DEAD,
        "Pid": state.process.pid if alive and state.process else 0,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": rfc3339(state.started_ns),
        "FinishedAt": rfc3339(state.finished_ns),
    }
    if state.health is not None:
        whole["Health"] = health(state.health)
    return whole


def health(health: HealthState) -> JsonObject:
    """``State.Health``."""
    return {
        "Status": health.status.value,
        "FailingStreak": health.failing_streak,
        "Log": [
            {
                "Start": rfc3339(probe.start_ns),
                "End": rfc3339(probe.end_ns),
                "ExitCode": probe.exit_code,
                "Output": probe.output,
            }
            for probe in health.log
        ],
    }


def spoken(state: ContainerState) -> Status:
    """The status in Docker's words: what is being started is still what it was."""
    if state.status is not Status.STARTING:
        return SPOKEN.get(state.status, state.status)
    if state.backoff.count:
        return Status.RESTARTING
    return Status.EXITED if state.started_ns else Status.CREATED


def config(record: ContainerRecord) -> JsonObject:
    """``Config``: the request over the image's defaults, as it was settled."""
    request = record.request
    whole: JsonObject = {
        "Hostname": record.hostname,
        "Domainname": request.domainname,
        "User": record.user,
        "AttachStdin": request.attach_stdin,
        "AttachStdout": request.attach_stdout,
        "AttachStderr": request.attach_stderr,
        "ExposedPorts": {port: {} for port in record.exposed_ports},
        "Tty": request.tty,
        "OpenStdin": request.open_stdin,
        "StdinOnce": request.stdin_once,
        "Env": list(record.env),
        "Cmd": _list(record.command),
        "Image": record.image_reference,
        "Volumes": {each.target: {} for each in record.mounts if each.anonymous} or None,
        "WorkingDir": record.working_dir,
        "Entrypoint": _list(record.entrypoint),
        "OnBuild": None,
        "Labels": dict(record.labels),
        "StopSignal": record.stop_signal,
    }
    if request.stop_seconds is not None:
        whole["StopTimeout"] = request.stop_seconds
    if record.health is not None:
        health = record.health
        whole["Healthcheck"] = {
            "Test": list(health.test),
            "Interval": health.interval_ns,
            "Timeout": health.timeout_ns,
            "StartPeriod": health.start_period_ns,
            "Retries": health.retries,
        }
    return whole


def mount(mount: MountRecord, volume_path: Callable[[str], Path | str]) -> JsonObject:
    """One of ``Mounts``."""
    whole: JsonObject = {
        "Type": mount.kind.value,
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": mount.mode,
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if mount.kind is MountKind.BIND else ""),
    }
    if mount.kind is MountKind.VOLUME:
        whole |= {"Name": mount.source, "Source": str(volume_path(mount.source)), "Driver": "local"}
    return whole


def listed(seen: Seen, now_ns: int) -> JsonObject:
    """One of ``GET /containers/json``."""
    record = seen.record
    whole: JsonObject = {
        "Id": record.id,
        "Names": [f"/{record.name}"],
        "Image": record.image_reference,
        "ImageID": record.image_id,
        "Command": " ".join(_quoted(word) for word in record.args),
        "Created": record.created_ns // NANOSECONDS_PER_SECOND,
        "Ports": listed_ports(record, seen.sandbox),
        "Labels": dict(record.labels),
        "State": spoken(seen.state).value,
        "Status": status_line(seen.state, now_ns),
        "HostConfig": {"NetworkMode": record.request.network_mode},
        "NetworkSettings": {"Networks": endpoint_settings(record, seen.sandbox)},
        "Mounts": [mount(each, seen.volume_path) for each in record.mounts],
    }
    if seen.size_bytes is not None:
        whole |= {"SizeRw": seen.size_bytes[0], "SizeRootFs": seen.size_bytes[1]}
    return whole


def status_line(state: ContainerState, now_ns: int) -> str:
    """``Up 5 minutes``, ``Exited (0) 2 hours ago``, as ``docker ps`` shows it."""
    status = spoken(state)
    up, ago = (duration(now_ns - since) for since in (state.started_ns, state.finished_ns))
    table = {
        Status.RUNNING: f"Up {up}{_health_word(state.health)}",
        Status.PAUSED: f"Up {up} (Paused)",
        Status.RESTARTING: f"Restarting ({state.exit_code}) {ago} ago",
        Status.EXITED: f"Exited ({state.exit_code}) {ago} ago",
        Status.DEAD: "Dead",
        Status.REMOVING: "Removal In Progress",
        Status.CREATED: "Created",
    }
    return table[status]


def _health_word(health: HealthState | None) -> str:
    if health is None:
        return ""
    return " (health: starting)" if health.status is Health.STARTING else f" ({health.status})"


def duration(time_ns: int) -> str:
    """A length of time in words, as Docker's clients have it (go-units HumanDuration)."""
    seconds = max(time_ns, 0) // NANOSECONDS_PER_SECOND
    hours = round(seconds / HOUR)
    days = hours // 24
    table: Sequence[tuple[bool, str]] = (
        (seconds < 1, "Less than a second"),
        (seconds == 1, "1 second"),
        (seconds < MINUTE, f"{seconds} seconds"),
        (seconds < 2 * MINUTE, "About a minute"),
        (seconds < HOUR, f"{seconds // MINUTE} minutes"),
        (hours <= 1, "About an hour"),
        (hours * HOUR < 2 * DAY, f"{hours} hours"),
        (days * DAY < 2 * WEEK, f"{days} days"),
        (days * DAY < 2 * MONTH, f"{days // 7} weeks"),
        (days * DAY < 2 * YEAR, f"{days // 30} months"),
    )
    return next((words for holds, words in table if holds), f"{days // 365} years")


def exec_inspect(record: ExecRecord) -> JsonObject:
    """``GET /exec/{id}/json``."""
    request = record.request
    return {
        "ID": record.id,
        "ContainerID": record.container_id,
        "Running": record.running,
        "ExitCode": record.exit_code,
        "ProcessConfig": {
            "tty": request.tty,
            "entrypoint": request.command[0],
            "arguments": list(request.command[1:]),
            "privileged": request.privileged,
            **({"user": request.user} if request.user else {}),
        },
        "OpenStdin": request.attach_stdin,
        "OpenStdout": request.attach_stdout,
        "OpenStderr": request.attach_stderr,
        "CanRemove": False,
        "DetachKeys": request.detach_keys,
        "Pid": record.process.pid if record.process and record.running else 0,
    }


def _list(words: Sequence[str] | None) -> list[str] | None:
    return None if words is None else list(words)


def _quoted(word: str) -> str:
    return f"'{word}'" if " " in word else word

"""Our records in Docker's words."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.events import Actor, ContainerDie, Event
from supervisor.access.requests import ContainerRequest, MountKind, MountRequest, PortRequest
from supervisor.api.docker.shape_container import container_request
from supervisor.api.docker.shape_mounts import parse_bind, parse_tmpfs
from supervisor.api.docker.times import parse_time
from supervisor.api.docker.view_container import (
    Seen,
    duration,
    inspect,
    listed,
    status_line,
)
from supervisor.api.docker.view_event import message
from supervisor.api.docker.view_host import host_config
from supervisor.api.docker.view_stats import stats
from supervisor.api.http import Query
from supervisor.errors import InvalidArgument
from supervisor.network.endpoints import Endpoint, Sandbox
from supervisor.network.publishing import BoundPort
from supervisor.runtime.records import ContainerRecord, ContainerState, MountRecord
from supervisor.runtime.status import Status

SECOND = 1_000_000_000
REQUEST = ContainerRequest(
    image="web",
    mounts=(
        parse_bind("/src:/b:ro"),
        parse_bind("data:/v:nocopy"),
        parse_tmpfs("/t", "size=4k,mode=1777,noexec"),
        MountRequest(MountKind.BIND, "/c", "/src", propagation="rslave", recursive=False),
        MountRequest(MountKind.VOLUME, "/w", "data", subpath="a", labels={"a": "b"}),
        MountRequest(MountKind.TMPFS, "/u", size_bytes=4096, mode=0o1777),
    ),
    ports=(PortRequest(80, "tcp", "127.0.0.1", 8080), PortRequest(80, "tcp")),
)
RECORD = ContainerRecord(
    id="ab" * 32, owner=1000, name="web", created_ns=5 * SECOND, request=REQUEST, image_id="sha256:" + "c" * 64,
    image_reference="web", layers=(), args=("sh", "-c", "echo hi"), entrypoint=None, command=("sh", "-c", "echo hi"),
    env=("A=b",), working_dir="/", user="", labels={"k": "v"}, hostname="h", stop_signal="SIGTERM",
    exposed_ports=("80/tcp", "53/udp"), mounts=(MountRecord(MountKind.VOLUME, "/v", "data"),), remapped=True,
)  # fmt: skip
ENDPOINT = Endpoint(
    network_id="d" * 64, network_name="bridge", address="10.208.0.2", prefix_length=24, gateway="10.208.0.1",
    mac="02:00:00:00:00:01", interface="eth0", endpoint_id="e" * 64,
)  # fmt: skip
SANDBOX = Sandbox(None, (ENDPOINT,), ENDPOINT, (BoundPort(80, "tcp", "127.0.0.1", 8080),))


def seen(state: ContainerState, sandbox: Sandbox | None = None) -> Seen:
    return Seen(RECORD, state, sandbox, lambda name: f"/volumes/{name}")


def test_what_was_asked_reads_back_as_the_same_request() -> None:
    """Compose compares these; a copied HostConfig makes the same container."""
    again = container_request({"Image": "web", "HostConfig": host_config(REQUEST)}, Query())
    assert sorted(again.mounts, key=str) == sorted(REQUEST.mounts, key=str)
    assert set(again.ports) == set(REQUEST.ports)
    assert attrs.evolve(again, mounts=(), ports=(), log=REQUEST.log, ipc_mode="") == attrs.evolve(
        REQUEST, mounts=(), ports=()
    )


def test_inspect_names_the_runtime_that_runs_it() -> None:
    shown = inspect(attrs.evolve(seen(ContainerState(Status.CREATED)), runtime="crun"))
    assert isinstance(shown["HostConfig"], dict)
    assert shown["HostConfig"]["Runtime"] == "crun"


def test_inspect_a_running_container() -> None:
    shown = inspect(seen(ContainerState(Status.RUNNING, started_ns=SECOND), SANDBOX))
    assert (shown["Name"], shown["Path"], shown["Args"]) == ("/web", "sh", ["-c", "echo hi"])
    settings = shown["NetworkSettings"]
    assert isinstance(settings, dict)
    assert settings["Ports"] == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}],
        "53/udp": None,
    }
    assert settings["IPAddress"] == settings["Networks"]["bridge"]["IPAddress"] == "10.208.0.2"
    assert shown["Mounts"] == [
        {
            "Type": "volume", "Source": "/volumes/data", "Destination": "/v", "Mode": "", "RW": True, "Propagation": "",
            "Name": "data", "Driver": "local",
        }
    ]  # fmt: skip


def test_inspect_one_that_never_ran() -> None:
    shown = inspect(seen(ContainerState(Status.CREATED)))
    state = shown["State"]
    assert isinstance(state, dict)
    assert (state["Status"], state["Running"], state["StartedAt"]) == (
        "created",
        False,
        "0001-01-01T00:00:00Z",
    )
    settings = shown["NetworkSettings"]
    assert isinstance(settings, dict)
    assert (settings["Ports"], settings["IPAddress"]) == ({}, "")


def test_list() -> None:
    shown = listed(
        seen(ContainerState(Status.EXITED, exit_code=3, finished_ns=SECOND), None), 121 * SECOND
    )
    assert shown["Status"] == "Exited (3) 2 minutes ago"
    assert shown["Command"] == "sh -c 'echo hi'"
    assert shown["Created"] == 5
    assert shown["Ports"] == []


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (119, "About a minute"),
        (120, "2 minutes"), (3_599, "59 minutes"), (3_600, "About an hour"), (7_200, "2 hours"), (172_799, "2 days"),
        (86_400 * 3, "3 days"), (86_400 * 15, "2 weeks"), (86_400 * 70, "2 months"), (86_400 * 800, "2 years"),
    ],
)  # fmt: skip
def test_durations(seconds: int, words: str) -> None:
    assert duration(seconds * SECOND) == words


@given(st.sampled_from(list(Status)), st.integers(0, 10**20))
def test_every_status_has_its_line(status: Status, now: int) -> None:
    assert status_line(ContainerState(status), now)


def test_event() -> None:
    event = Event(
        7, "e:7", "/bakehouse/e", "container.die", RECORD.id, 1_700_000_000_123_456_789, 1000,
        Actor(RECORD.id, {"name": "web", "image": "busybox", "exitCode": "1"}), ContainerDie(exit_code=1),
    )  # fmt: skip
    shown = message(event)
    assert (shown["Type"], shown["Action"], shown["status"], shown["from"]) == (
        "container",
        "die",
        "die",
        "busybox",
    )
    assert (shown["time"], shown["timeNano"]) == (1_700_000_000, 1_700_000_000_123_456_789)


def test_stats_of_one_that_does_not_run_have_all_fields_clients_read() -> None:
    shown = stats("id", "web", None, None, {})
    for field in (
        "read",
        "preread",
        "cpu_stats",
        "precpu_stats",
        "memory_stats",
        "pids_stats",
        "blkio_stats",
    ):
        assert field in shown


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("", None),
        ("5", 5 * SECOND),
        ("5.25", 5_250_000_000),
        ("5.000000001", 5_000_000_001),
        ("1970-01-01T00:00:02Z", 2 * SECOND),
    ],
)
def test_times(text: str, time_ns: int | None) -> None:
    assert parse_time("since", text) == time_ns


@given(st.text(max_size=30))
def test_any_time_is_read_or_refused(text: str) -> None:
    try:
        parse_time("since", text)
    except InvalidArgument:
        return

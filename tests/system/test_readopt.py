"""The daemon killed and started again, as clients see it: containers, execs, logs, exit codes, events."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path

import pytest

from tests.support.daemon import Daemon
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

COUNT = (
    "i=0; while [ $i -lt 40 ]; do [ $i -lt 20 ] || until [ -e /go ]; do sleep 0.05; done;"
    " echo line$i; i=$((i+1)); sleep 0.05; done; exit 7"
)
WAIT = "until [ -e /go ]; do sleep 0.05; done; exit 5"


@pytest.fixture
def engine(daemon: Daemon) -> Iterator[Daemon]:
    """The daemon with an image, and without containers."""
    if not daemon.docker("images", "--quiet", "busybox").stdout:
        daemon.import_busybox()
    yield daemon
    with closing(daemon.client()) as client:
        for container in client.containers.list(all=True):
            container.remove(force=True)


def inspected(daemon: Daemon, name: str) -> dict[str, object]:
    state = json.loads(daemon.docker("inspect", "--format", "{{json .State}}", name).stdout)
    assert isinstance(state, dict)
    return state


def events_of(daemon: Daemon, name: str) -> list[str]:
    told = daemon.bakehouse("events", "--from", "oldest", "--json").stdout.splitlines()
    return [
        str(event["type"])
        for event in map(json.loads, told)
        if event["actor"]["attributes"].get("name") == name
    ]


def test_a_running_container_is_taken_over(engine: Daemon) -> None:
    engine.docker("run", "-d", "--name", "counter", "-p", "127.0.0.1::80", "busybox", "sh", "-c", COUNT)  # fmt: skip
    before = inspected(engine, "counter")
    ports = engine.docker("port", "counter").stdout
    engine.kill()
    time.sleep(0.3)
    engine.start()
    after = inspected(engine, "counter")
    assert (after["Status"], after["Pid"], after["StartedAt"]) == (
        "running",
        before["Pid"],
        before["StartedAt"],
    )
    assert engine.docker("port", "counter").stdout == ports
    reached = engine.docker("exec", "counter", "sh", "-c", "touch /go; echo reached").stdout
    assert reached == "reached\n"
    followed = engine.docker("logs", "--follow", "counter").stdout
    assert followed.split() == [f"line{number}" for number in range(40)], "no line lost or doubled"
    assert engine.docker("wait", "counter").stdout == "7\n"
    told = events_of(engine, "counter")
    assert told.count("container.start") == told.count("container.die") == 1


def test_clients_who_waited_ask_again_and_are_told(engine: Daemon) -> None:
    engine.docker("run", "-d", "--name", "sleeper", "busybox", "sh", "-c", "sleep 1; exit 9")
    waiting = subprocess.Popen(
        ["docker", "wait", "sleeper"], env=engine.environment(), stderr=subprocess.DEVNULL
    )
    time.sleep(0.2)
    engine.kill()
    assert waiting.wait(10) != 0, "a lost connection is told"
    engine.start()
    assert engine.docker("wait", "sleeper").stdout == "9\n"


def test_what_ended_meanwhile_has_its_true_code_and_time(engine: Daemon) -> None:
    engine.docker("run", "-d", "--name", "brief", "busybox", "sh", "-c", "sleep 0.5; echo bye; exit 42")  # fmt: skip
    pid = inspected(engine, "brief")["Pid"]
    engine.kill()
    until(lambda: not Path(f"/proc/{pid}").exists())
    ended = time.time()
    time.sleep(1.2)
    engine.start()
    state = inspected(engine, "brief")
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("exited", 42, "")
    finished = datetime.fromisoformat(str(state["FinishedAt"])[:26] + "+00:00").timestamp()
    assert abs(finished - ended) < 0.5, "when it ended, not when the daemon came back"
    assert engine.docker("logs", "brief").stdout == "bye\n"
    assert events_of(engine, "brief")[-1] == "container.die"
    assert engine.docker("start", "--attach", "brief", check=False).returncode == 42


def test_what_was_to_be_removed_at_its_end_is_gone(engine: Daemon) -> None:
    engine.docker("run", "-d", "--rm", "--name", "gone", "busybox", "sleep", "0.3")
    engine.kill()
    time.sleep(0.5)
    engine.start()
    until(lambda: engine.docker("ps", "--all", "--quiet").stdout == "")
    assert events_of(engine, "gone")[-3:] == [
        "container.die",
        "container.remove",
        "container.destroy",
    ]


def test_a_running_exec_is_taken_over(engine: Daemon) -> None:
    engine.docker("run", "-d", "--name", "host", "busybox", "sleep", "100")
    with closing(engine.client()) as client:
        long = client.api.exec_create("host", ["sh", "-c", WAIT])["Id"]
        brief = client.api.exec_create("host", ["sh", "-c", "sleep 0.2; exit 6"])["Id"]
        for one in (long, brief):
            client.api.exec_start(one, detach=True)
    engine.kill()
    time.sleep(0.5)
    engine.start()
    with closing(engine.client()) as client:
        assert client.api.exec_inspect(long)["Running"]
        engine.docker("exec", "host", "touch", "/go")
        until(lambda: client.api.exec_inspect(brief)["ExitCode"] == 6)
        until(lambda: client.api.exec_inspect(long)["ExitCode"] == 5)
        assert not client.api.exec_inspect(long)["Running"]
    assert events_of(engine, "host").count("exec.die") == 3


def test_a_paused_container_stays_paused(engine: Daemon) -> None:
    engine.docker("run", "-d", "--name", "still", "busybox", "sleep", "100")
    engine.docker("pause", "still")
    engine.kill()
    engine.start()
    assert inspected(engine, "still")["Status"] == "paused"
    engine.docker("unpause", "still")
    engine.docker("stop", "-t", "0", "still")
    assert inspected(engine, "still")["Status"] == "exited"


def test_told_to_stop_it_leaves_containers_alone(engine: Daemon) -> None:
    engine.docker("run", "-d", "--name", "on", "busybox", "sleep", "100")
    pid = inspected(engine, "on")["Pid"]
    assert engine.stop() == 0
    assert Path(f"/proc/{pid}").exists()
    engine.start()
    assert inspected(engine, "on")["Pid"] == pid
    assert engine.docker("kill", "on").stdout == "on\n"

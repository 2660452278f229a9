"""The daemon under a service manager: a stand-in for systemd that speaks its real protocol."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.support.accounts import People
from tests.support.daemon import REPOSITORY, Daemon, new_daemon

pytestmark = pytest.mark.root

HEAR_SECONDS = 20.0
WATCHDOG_SECONDS = 4.0
ACTIVATOR = REPOSITORY / "tests/support/activator.py"


@attrs.define(eq=False)
class Service:
    """A daemon, and what its service manager has heard of it."""

    daemon: Daemon
    said: list[dict[str, str]] = attrs.field(factory=list)

    def hear(self, heard: socket.socket) -> None:
        """In a thread, until the socket is shut."""
        while message := heard.recv(65_536).decode():
            self.said.append(dict(line.split("=", 1) for line in message.splitlines()))

    def until(self, name: str, value: str) -> list[dict[str, str]]:
        """Listen until it says that; everything it has said."""
        until = time.monotonic() + HEAR_SECONDS
        while not any(words.get(name, "").startswith(value) for words in self.said):
            assert time.monotonic() < until, f"{name}={value} was not said, but {self.said}"
            time.sleep(0.02)
        return list(self.said)

    def statuses(self) -> list[str]:
        return [words["STATUS"] for words in self.said if "STATUS" in words]


@pytest.fixture(scope="module")
def service(two_users: People) -> Iterator[Service]:
    """A daemon that was activated, with a unit's strict mask, and is heard at an abstract socket."""
    daemon = new_daemon(two_users.group)
    address = f"bakehouse-test-{daemon.root.name}"
    daemon.root.mkdir()
    strict = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    activator = (sys.executable, "-I", str(ACTIVATOR), str(daemon.socket), f"@{address}")
    daemon.before = (*strict, *activator)
    daemon.variables = {"WATCHDOG_USEC": str(int(WATCHDOG_SECONDS * 1_000_000))}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{address}")
        made = Service(daemon)
        hearing = threading.Thread(target=made.hear, args=[heard])
        hearing.start()
        try:
            daemon.start()
            yield made
            daemon.close()
        finally:
            daemon.clear()
            heard.shutdown(socket.SHUT_RD)
            hearing.join()


def spawner_of(daemon: Daemon) -> int:
    """The pid of its helper."""
    assert daemon.process is not None
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text()
    [pid] = children.split()
    return int(pid)


def named(text: str) -> set[int]:
    """Processes whose command line says that."""
    found = set()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdecimal() and text.encode() in (entry / "cmdline").read_bytes():
                found.add(int(entry.name))
    return found


def test_its_start_is_told_step_by_step(service: Service) -> None:
    service.until("READY", "1")
    told = service.statuses()
    assert told[0] == "opening the spawner"
    assert "recovering 0 containers: 0 done" in told
    assert told[-1] == "ready: nothing runs"
    assert [words for words in service.said if "READY" in words] == [
        {"READY": "1", "STATUS": "ready: nothing runs"}
    ]
    ready = [index for index, words in enumerate(service.said) if "READY" in words]
    assert all("EXTEND_TIMEOUT_USEC" in words for words in service.said[: ready[0]])


def test_it_serves_the_socket_it_was_given_and_whoever_may_connect_is_asked_who_they_are(
    service: Service, two_users: People
) -> None:
    # The unit's mode lets everybody in here, and still only members are served.
    inode = service.daemon.socket.stat().st_ino
    service.daemon.import_busybox(user=two_users.ada)
    assert "busybox" in service.daemon.docker("image", "ls", user=two_users.ada).stdout
    refused = service.daemon.docker("image", "ls", user=two_users.eve, check=False)
    assert refused.returncode != 0
    assert service.daemon.socket.stat().st_ino == inode


def test_nothing_of_it_reaches_the_spawner_or_what_it_starts(
    service: Service, two_users: People
) -> None:
    service.daemon.docker(
        "run", "-d", "--name", "one", "busybox", "sleep", "60", user=two_users.ada
    )
    assert service.daemon.process is not None
    pids = named(str(service.daemon.run_root)) - {service.daemon.process.pid}
    assert spawner_of(service.daemon) in pids
    assert len(pids) >= 2, "a conmon, too"
    for pid in pids:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert b"LISTEN_" not in environment
        assert b"NOTIFY_SOCKET" not in environment
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            assert os.readlink(fd) != os.readlink(f"/proc/{service.daemon.process.pid}/fd/3")


def test_the_status_tells_what_runs(service: Service, two_users: People) -> None:
    service.until("STATUS", "ready: 1 container of 1 person")
    service.daemon.docker("rm", "-f", "one", user=two_users.ada)
    service.said.clear()
    service.until("STATUS", "ready: nothing runs")


def settings(daemon: Daemon, further: str) -> None:
    (daemon.root / "config.toml").write_text(
        f'[access]\nuser_group = "{daemon.user_group}"\n{further}\n'
    )


def test_settings_are_read_again_at_sighup(service: Service) -> None:
    daemon = service.daemon
    assert daemon.process is not None
    settings(daemon, "[owner]\ncontainers_max = 0\nbuilds_max = 3\n[network]\nport_first = 2000")
    service.said.clear()
    daemon.process.send_signal(signal.SIGHUP)
    service.until("READY", "1")
    assert [int(words["RELOADING"]) for words in service.said if "RELOADING" in words] == [1]
    [event] = reloads(daemon)
    assert event["changed"] == ["network.port_first", "owner.containers_max", "owner.builds_max"]


def test_an_administrator_reads_them_again_and_is_told(service: Service, two_users: People) -> None:
    daemon = service.daemon
    refused = daemon.bakehouse("reload", user=two_users.ada, check=False)
    assert (refused.returncode, "for administrators" in refused.stderr) == (1, True)
    settings(daemon, '[owner]\ncontainers_max = 1\n[network]\npool = "10.99.0.0/16"')
    told = json.loads(daemon.bakehouse("reload", "--json").stdout)
    assert told["waiting"] == ["network.pool"]
    assert "owner.containers_max" in told["changed"]
    # It holds at once.
    for name, served in (("two", True), ("three", False)):
        done = daemon.docker(
            "create", "--name", name, "busybox", "true", user=two_users.ada, check=False
        )
        assert (done.returncode == 0) is served, done.stderr
    daemon.docker("rm", "two", user=two_users.ada)


def test_a_faulty_file_changes_nothing_and_tells_all_that_is_wrong(service: Service) -> None:
    daemon = service.daemon
    before = len(reloads(daemon))
    settings(daemon, '[owner]\nbuilds_max = "x"\ncontainer_max = 5')
    refused = daemon.bakehouse("reload", check=False)
    assert refused.returncode == 1
    assert "owner.builds_max" in refused.stderr
    assert "did you mean containers_max" in refused.stderr
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGHUP)
    service.until("STATUS", "ready: nothing runs; settings not read again: cannot use the settings")
    settings(daemon, "[owner]\ncpu_weight = 0")
    assert "cpu_weight" in daemon.bakehouse("reload", check=False).stderr
    assert len(reloads(daemon)) == before
    settings(daemon, "")


def reloads(daemon: Daemon) -> list[dict[str, object]]:
    told = daemon.bakehouse("events", "--from", "oldest", "--json").stdout.splitlines()
    events = [json.loads(line) for line in told]
    return [event["data"] for event in events if event["type"] == "daemon.reload"]


def test_the_watchdog_hears_of_a_helper_that_hangs(service: Service) -> None:
    service.until("WATCHDOG", "1")
    spawner = spawner_of(service.daemon)
    os.kill(spawner, signal.SIGSTOP)
    try:
        until = time.monotonic() + HEAR_SECONDS
        while "no answer from the spawner" not in service.daemon.log_tail():
            assert time.monotonic() < until
            time.sleep(0.05)
        service.said.clear()
        time.sleep(WATCHDOG_SECONDS)
        assert not any("WATCHDOG" in words for words in service.said)
    finally:
        os.kill(spawner, signal.SIGCONT)
    service.until("WATCHDOG", "1")


def test_a_build_that_is_cut_short_is_told_so(service: Service, two_users: People) -> None:
    daemon = service.daemon
    recipe = b"FROM busybox\nRUN echo begun; sleep 600\n"
    building = subprocess.Popen(
        ["docker", "build", "-"],
        env=daemon.environment(two_users.ada),
        user=two_users.ada.uid,
        group=two_users.ada.gid,
        extra_groups=two_users.ada.groups,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert building.stdin is not None
    building.stdin.write(recipe)
    building.stdin.close()
    building.stdin = None
    service.until("STATUS", "ready: 1 build of 1 person")
    assert daemon.process is not None
    daemon.process.send_signal(signal.SIGTERM)
    _, told = building.communicate(timeout=HEAR_SECONDS)
    assert building.returncode == 1
    assert b"the daemon is stopping" in told
    assert daemon.process.wait(HEAR_SECONDS) == 0
    daemon.socket.unlink()
    service.said.clear()
    daemon.start()
    service.until("READY", "1")
    ended = daemon.bakehouse("events", "--from", "oldest", "--json").stdout.splitlines()
    assert [e["type"] for e in map(json.loads, ended) if e["type"].startswith("build.")] == [
        "build.start",
        "build.cancel",
    ]


def test_its_end_is_told_and_the_socket_is_left_to_the_next(service: Service) -> None:
    assert service.daemon.process is not None
    service.said.clear()
    service.daemon.process.send_signal(signal.SIGTERM)
    service.until("STATUS", "stopping: waiting for the spawner")
    assert service.said[0]["STOPPING"] == "1"
    assert "stopping: waiting for the containers" in service.statuses()
    assert service.daemon.process.wait(20) == 0
    assert service.daemon.socket.exists()
    service.daemon.socket.unlink()
    service.said.clear()
    service.daemon.start()
    service.until("READY", "1")

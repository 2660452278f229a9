"""What is stuck holds up its own container alone: a file system that does not answer, a runtime that stands still, a client
who never reads, a name that is being made. Everybody else starts, executes, stops and removes as ever.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from supervisor.linux.cgroup import detect
from tests.support.accounts import People, User
from tests.support.asking import ask
from tests.support.daemon import Daemon
from tests.support.holdings import beyond, disagreements, holdings, settled
from tests.support.hung import hung
from tests.support.operations import BUSYBOX, Subject, execute, remove, run, stop

pytestmark = [pytest.mark.root, pytest.mark.slow]

STUCK = 2 * (os.cpu_count() or 1) + 2
"""More than may start at once."""
NORMAL_FACTOR, NORMAL_SECONDS = 4.0, 3.0
"""What may come on top of what a life took when nothing was stuck: this host is shared."""
LAPSE_SECONDS = 8.0
"""After which a start that does not come to its end takes nobody's turn any more."""
PATIENCE_SECONDS = 30.0


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    for person in (two_users.ada, two_users.bob):
        daemon.import_busybox(user=person)
        lived(daemon, person, "warm")
    return daemon


def lived(daemon: Daemon, person: User, name: str) -> float:
    """The seconds that a container's life takes: created, started, executed in, stopped, removed."""
    subject = Subject(daemon, person, name)
    began = time.monotonic()
    run(subject)
    execute(subject)
    stop(subject)
    remove(subject)
    seconds = time.monotonic() - began
    subject.call("DELETE", f"/volumes/{name}-data", fine={204})
    return seconds


@attrs.define
class Aside:
    """Requests of a person who waits for their answers while others go on."""

    daemon: Daemon
    person: User
    statuses: list[int] = attrs.field(factory=list)
    _threads: list[threading.Thread] = attrs.field(factory=list)

    def ask(self, method: str, path: str, body: object = b"") -> None:
        def wait() -> None:
            answer = ask(self.daemon, method, f"/v1.41{path}", body, user=self.person, seconds=120)
            self.statuses.append(answer.status)

        thread = threading.Thread(target=wait)
        thread.start()
        self._threads.append(thread)

    @property
    def waiting(self) -> int:
        return sum(thread.is_alive() for thread in self._threads)

    def until_all_are_answered(self) -> None:
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)
        assert not self.waiting


@contextlib.contextmanager
def nothing_left(daemon: Daemon) -> Iterator[None]:
    before = holdings(daemon)
    yield
    assert settled(lambda: disagreements(daemon)) == []
    assert settled(lambda: beyond(holdings(daemon), before)) == []


def binding(path: Path) -> dict[str, object]:
    return {
        "Image": BUSYBOX,
        "Cmd": ["true"],
        "HostConfig": {"NetworkMode": "none", "Binds": [f"{path}:/in"]},
    }


def others_live_as_ever(daemon: Daemon, people: People, usual: float) -> None:
    """Another person, and the same one with other containers."""
    bound = NORMAL_FACTOR * usual + NORMAL_SECONDS
    assert lived(daemon, people.bob, "other") < bound
    assert lived(daemon, people.ada, "own") < bound + LAPSE_SECONDS


def test_a_file_system_that_hangs_while_containers_are_made(
    ready: Daemon, two_users: People
) -> None:
    """The names they are to have are theirs, and nobody else's trouble."""
    ada = two_users.ada
    place = ada.home / "hung"
    place.mkdir(exist_ok=True)
    os.chown(place, ada.uid, ada.gid)
    usual = lived(ready, ada, "usual")
    with nothing_left(ready):
        aside = Aside(ready, ada)
        with hung(place, ada):
            for number in range(STUCK):
                aside.ask("POST", f"/containers/create?name=stuck-{number}", binding(place))
            others_live_as_ever(ready, two_users, usual)
            assert aside.waiting == STUCK
            taken = ask(
                ready, "POST", "/v1.41/containers/create?name=stuck-0", binding(place), user=ada
            )
            assert taken.status == 409
        aside.until_all_are_answered()
        assert not {201} & set(aside.statuses)
        for number in range(STUCK):
            assert Subject(ready, ada, f"stuck-{number}").status == "gone"


def test_a_file_system_that_hangs_while_containers_start(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    place = ada.home / "hangs-later"
    place.mkdir(exist_ok=True)
    os.chown(place, ada.uid, ada.gid)
    usual = lived(ready, ada, "usual")
    stuck = [Subject(ready, ada, f"stuck-{number}") for number in range(STUCK)]
    with nothing_left(ready):
        for subject in stuck:
            subject.call(
                "POST", f"/containers/create?name={subject.name}", binding(place), fine={201}
            )
        aside = Aside(ready, ada)
        with hung(place, ada):
            for subject in stuck:
                aside.ask("POST", f"/containers/{subject.name}/start")
            others_live_as_ever(ready, two_users, usual)
            assert aside.waiting == STUCK
            assert {subject.status for subject in stuck} <= {"created", "exited"}
        aside.until_all_are_answered()
        assert 204 not in aside.statuses
        for subject in stuck:
            remove(subject)


def test_a_runtime_that_stands_still(ready: Daemon, two_users: People) -> None:
    """Its container waits, and its start goes on when it does; those beside it do not notice."""
    ada = two_users.ada
    usual = lived(ready, ada, "usual")
    with nothing_left(ready):
        stuck, aside = Subject(ready, ada, "stuck"), Aside(ready, ada)
        body = {"Image": BUSYBOX, "Cmd": ["sleep", "60"], "HostConfig": {"NetworkMode": "none"}}
        stuck.call("POST", "/containers/create?name=stuck", body, fine={201})
        monitor = stopped_while_it_starts(ready, aside, stuck)
        try:
            others_live_as_ever(ready, two_users, usual)
            assert aside.waiting == 1
            aside.ask("POST", "/containers/stuck/stop?t=0")
        finally:
            os.kill(monitor, signal.SIGCONT)
        aside.until_all_are_answered()
        assert aside.statuses == [204, 204]
        assert stuck.status == "exited"
        remove(stuck)


def stopped_while_it_starts(daemon: Daemon, aside: Aside, subject: Subject) -> int:
    """Start it, and stop its monitor before the runtime has created it; the monitor's pid."""
    cgroups = detect(daemon.config.instance)
    group = f"u{subject.owner.uid}/monitors"
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        known = set(cgroups.pids(group))
        aside.ask("POST", f"/containers/{subject.name}/start")
        while not (found := set(cgroups.pids(group)) - known) and aside.waiting:
            pass
        for pid in found:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(0.5)
        if aside.waiting:
            (monitor,) = found
            return monitor
        for pid in found:
            os.kill(pid, signal.SIGCONT)
        subject.call("POST", f"/containers/{subject.name}/stop?t=0", fine={204, 304})
        aside.until_all_are_answered()
        aside.statuses.clear()
    pytest.fail("its monitor was never caught while it started")


def test_a_client_who_never_reads(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    usual = lived(ready, ada, "usual")
    loud = {
        "Image": BUSYBOX,
        "Cmd": [
            "sh",
            "-c",
            "while :; do echo a line that is long enough to fill what there is; done",
        ],
        "HostConfig": {"NetworkMode": "none", "LogConfig": {"Type": "none"}},
    }
    with nothing_left(ready), contextlib.ExitStack() as clients:
        subject = Subject(ready, ada, "loud")
        subject.call("POST", "/containers/create?name=loud", loud, fine={201})
        subject.call("POST", "/containers/loud/start", fine={204})
        for path in ("attach?stream=1&stdout=1", "logs?follow=1&stdout=1") * 2:
            clients.enter_context(silent(ready, "POST" if "attach" in path else "GET", path))
        with clients.pop_all():
            others_live_as_ever(ready, two_users, usual)
            began = time.monotonic()
            execute(subject)
            stop(subject)
            assert subject.state["ExitCode"] == 128 + signal.SIGKILL
            remove(subject)
            assert time.monotonic() - began < NORMAL_FACTOR * usual + NORMAL_SECONDS + 5


@contextlib.contextmanager
def silent(daemon: Daemon, method: str, path: str) -> Iterator[None]:
    """A client (root's: it may see it) who asks and takes no answer."""
    with socket.socket(socket.AF_UNIX) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(str(daemon.socket))
        client.sendall(
            f"{method} /v1.41/containers/loud/{path} HTTP/1.1\r\nHost: x\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n".encode()
        )
        time.sleep(0.3)
        yield

"""The daemon killed at random moments under load: records, kernel and journal agree after every restart.

Workers run, execute, build, stop and remove through docker-py while a subscriber follows by cursor. At each kill the daemon
gets SIGKILL; then it is started again, the workers pause, and what it says is held against the kernel: processes, mounts in
its mount namespace, cgroups, links. At the end every sequence number was seen once, in order, and every container's events
make a life.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator

import docker
import pytest
import requests
import urllib3

from tests.support.accounts import People
from tests.support.daemon import Daemon, new_daemon
from tests.support.holdings import SETTLE_SECONDS, disagreements, settled
from tests.support.lives import broken_lives, gaps

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    # docker-py leaves its sockets to the garbage collector when the daemon dies under it.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

KILLS = int(os.environ.get("BAKEHOUSE_KILLS", "12"))
BUSYBOX = "busybox:latest"
EXPECTED_FAILURES = (
    docker.errors.DockerException,
    requests.exceptions.RequestException,
    urllib3.exceptions.HTTPError,
    OSError,
)


class Workers:
    """Threads that use the daemon until told to stop, and stand still when told to pause."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._over = threading.Event()
        self._go = threading.Event()
        self._go.set()
        self._busy = threading.Semaphore(0)
        self._resting = 0
        self._lock = threading.Lock()
        jobs: list[Callable[[docker.DockerClient, random.Random], None]] = [
            run,
            run,
            execute,
            build,
        ]
        self._threads = [
            threading.Thread(target=self._work, args=(job, number))
            for number, job in enumerate(jobs)
        ]
        self.done = 0

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._go.set()
        for thread in self._threads:
            thread.join()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Nobody asks for anything while the block runs."""
        self._go.clear()
        until = time.monotonic() + SETTLE_SECONDS
        while self._resting < len(self._threads):
            assert time.monotonic() < until, "a worker does not come to rest"
            time.sleep(0.01)
        yield
        self._go.set()

    def _work(self, job: Callable[[docker.DockerClient, random.Random], None], number: int) -> None:
        dice = random.Random(number)
        while not self._over.is_set():
            with self._lock:
                self._resting += 1
            self._go.wait()
            with self._lock:
                self._resting -= 1
            with (
                contextlib.suppress(*EXPECTED_FAILURES),
                contextlib.closing(_client(self._daemon)) as client,
            ):
                job(client, dice)
                self.done += 1


def _client(daemon: Daemon) -> docker.DockerClient:
    return docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.41", timeout=15)


def run(client: docker.DockerClient, dice: random.Random) -> None:
    network = dice.choice(["none", "bridge"])
    container = client.containers.run(
        BUSYBOX, ["sleep", str(dice.choice([0.05, 0.3, 30]))], network_mode=network, detach=True
    )
    if dice.random() < 0.5:
        container.wait(timeout=1)
    else:
        container.stop(timeout=0)
    container.remove(force=True)


def execute(client: docker.DockerClient, dice: random.Random) -> None:
    running = client.containers.list()
    if running:
        dice.choice(running).exec_run(["sh", "-c", f"sleep {dice.random() / 5}"])
    else:
        client.containers.run(BUSYBOX, ["sleep", "5"], detach=True, auto_remove=True)


def build(client: docker.DockerClient, dice: random.Random) -> None:
    text = f"FROM {BUSYBOX}\nRUN echo {dice.random()} > /a\nRUN sleep 0.1\n".encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    for _ in client.api.build(
        fileobj=io.BytesIO(buffer.getvalue()), custom_context=True, decode=True
    ):
        pass


class Subscriber:
    """Our own command, following by cursor through every crash."""

    def __init__(self, daemon: Daemon) -> None:
        self._process = subprocess.Popen(
            [
                *(f"{sys.prefix}/bin/bakehouse", "--socket", str(daemon.socket)),
                *("events", "--from", "oldest", "--follow", "--json"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, object]] = []
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as told:
            for line in told:
                self.events.append(json.loads(line))

    def until_it_follows(self) -> None:
        until = time.monotonic() + SETTLE_SECONDS
        while not self.events:
            assert time.monotonic() < until, "the subscriber sees nothing"
            time.sleep(0.02)

    def until(self, seq: int) -> None:
        until = time.monotonic() + SETTLE_SECONDS
        while not self.events or self.events[-1]["seq"] != seq:
            seen = self.events[-1]["seq"] if self.events else None
            assert time.monotonic() < until, f"the subscriber saw {seen} and not {seq}"
            assert self._process.poll() is None, "the subscriber ended"
            time.sleep(0.02)

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._thread.join()


def test_nothing_is_lost_doubled_or_leaked(two_users: People) -> None:
    dice = random.Random(2024)
    daemon = new_daemon(two_users.group)
    try:
        daemon.start()
        daemon.import_busybox()
        subscriber = Subscriber(daemon)
        try:
            subscriber.until_it_follows()
            with Workers(daemon) as workers:
                for number in range(KILLS):
                    time.sleep(dice.uniform(0.02, 0.7))
                    daemon.kill()
                    daemon.start()
                    with workers.paused():
                        assert settled(lambda: disagreements(daemon)) == [], f"after kill {number}"
            assert workers.done > KILLS / 4, "the workers hardly got anything done"
            with contextlib.closing(_client(daemon)) as client:
                for one in client.api.containers(all=True):
                    client.api.remove_container(one["Id"], force=True)
            assert settled(lambda: disagreements(daemon)) == []
            last = json.loads(
                daemon.bakehouse("events", "--from", "oldest", "--json").stdout.splitlines()[-1]
            )
            subscriber.until(last["seq"])
        finally:
            subscriber.close()
        assert gaps(subscriber.events) == []
        assert list(broken_lives(subscriber.events)) == []
        assert daemon.close() == []
    finally:
        daemon.clear()
        gc.collect()  # docker-py's, while their warnings are let pass

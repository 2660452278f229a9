"""Containers whose processes will not go: their first one stopped from outside, a herd of zombies, an exec that hears nothing.
They are stopped, killed, restarted and removed all the same, within the time that was asked for.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.support.accounts import People, User, credentials
from tests.support.daemon import Daemon
from tests.support.holdings import beyond, disagreements, holdings, settled

pytestmark = [pytest.mark.root, pytest.mark.slow]

SECONDS_MAX = 12.0
"""For a request that ends in a SIGKILL after a second's grace, on a host that others use too."""
HERD = 80
DEAF = "trap '' TERM INT HUP QUIT USR1 USR2; while :; do sleep 1; done"
HERDSMAN = f"i=0; while [ $i -lt {HERD} ]; do (true & exec sleep 600) & i=$((i+1)); done; sleep 600"
"""Children of a program that never waits for anybody: each leaves it a zombie."""
COUNT_DEAD = "grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l"
WAYS = (
    ("stop", "-t", "1"),
    ("kill",),
    ("rm", "-f"),
    ("restart", "-t", "1"),
)


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    daemon.import_busybox(user=two_users.ada)
    daemon.docker("run", "--rm", "busybox", "true", user=two_users.ada)
    return daemon


@contextlib.contextmanager
def running(daemon: Daemon, user: User, script: str) -> Iterator[int]:
    """A container called ``deaf``; its first process's pid. Afterwards nothing is left of it."""
    before = holdings(daemon)
    daemon.docker("run", "-d", "--name", "deaf", "busybox", "sh", "-c", script, user=user)
    try:
        yield int(daemon.docker("inspect", "-f", "{{.State.Pid}}", "deaf", user=user).stdout)
    finally:
        daemon.docker("rm", "-f", "deaf", user=user, check=False)
    assert settled(lambda: disagreements(daemon)) == []
    assert settled(lambda: beyond(holdings(daemon), before)) == []


def ends_in_time(daemon: Daemon, user: User, way: tuple[str, ...]) -> None:
    began = time.monotonic()
    daemon.docker(*way, "deaf", user=user)
    assert time.monotonic() - began < SECONDS_MAX
    seen = daemon.docker("inspect", "-f", "{{.State.Status}}", "deaf", user=user, check=False)
    wanted = {"stop": "exited\n", "kill": "exited\n", "rm": "\n", "restart": "running\n"}
    until = time.monotonic() + SECONDS_MAX
    while seen.stdout.lstrip("\n") != wanted[way[0]].lstrip("\n"):
        assert time.monotonic() < until, seen
        time.sleep(0.05)
        seen = daemon.docker("inspect", "-f", "{{.State.Status}}", "deaf", user=user, check=False)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[0])
def test_a_first_process_that_is_stopped(
    ready: Daemon, two_users: People, way: tuple[str, ...]
) -> None:
    """It is its owner's process, who may stop it from outside as any of their own."""
    ada = two_users.ada
    with running(ready, ada, "sleep 600 & wait") as pid:
        subprocess.run(
            ["kill", "-STOP", str(pid)], user=ada.uid, group=ada.gid, extra_groups=[], check=True
        )
        assert ready.docker("exec", "deaf", "echo", "on", user=ada).stdout == "on\n"
        ends_in_time(ready, ada, way)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[0])
def test_a_herd_of_zombies(ready: Daemon, two_users: People, way: tuple[str, ...]) -> None:
    ada = two_users.ada
    with running(ready, ada, HERDSMAN):
        until = time.monotonic() + SECONDS_MAX
        while True:
            dead = ready.docker("exec", "deaf", "sh", "-c", COUNT_DEAD, user=ada).stdout
            if int(dead) >= HERD // 2:
                break
            assert time.monotonic() < until, dead
            time.sleep(0.1)
        ends_in_time(ready, ada, way)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way[0])
def test_execs_that_hear_nothing(ready: Daemon, two_users: People, way: tuple[str, ...]) -> None:
    """Deaf to signals, stopped, and gone with a child of theirs left at their stdio."""
    ada = two_users.ada
    with running(ready, ada, DEAF) as pid, contextlib.ExitStack() as clients:
        ready.docker("exec", "-d", "deaf", "sh", "-c", DEAF, user=ada)
        ready.docker("exec", "-d", "deaf", "sh", "-c", "kill -STOP $$", user=ada)
        orphan = "sh -c \"trap '' TERM HUP; sleep 600\" & echo left"
        for script in (orphan, DEAF):
            client = subprocess.Popen(
                ["docker", "exec", "deaf", "sh", "-c", script],
                env=ready.environment(ada),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                **credentials(ada),
                cwd="/",
            )
            clients.enter_context(client)
            clients.callback(client.kill)
        time.sleep(0.5)
        ends_in_time(ready, ada, way)
        if way[0] != "restart":
            with pytest.raises(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

"""The stream, as ``bakehouse events`` shows it: every sequence number once and in order, whatever happens to the daemon."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.accounts import People, User
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

FOLLOW_SECONDS = 15.0


@pytest.fixture(autouse=True)
def image(daemon: Daemon, two_users: People) -> None:
    """Root and a member of the group have an image each."""
    for user in (None, two_users.ada):
        if not daemon.docker("images", "--quiet", "busybox", user=user).stdout:
            daemon.import_busybox(user=user)


def events(daemon: Daemon, *options: str, user: User | None = None) -> list[dict[str, object]]:
    """All there are, as somebody sees them."""
    told = daemon.bakehouse("events", "--json", *options, user=user).stdout
    return [json.loads(line) for line in told.splitlines()]


class Follower:
    """Our command, following."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.seen: list[dict[str, object]] = []

    def until(self, seq: object) -> list[object]:
        """All sequence numbers up to this one."""
        assert self._process.stdout is not None
        until = time.monotonic() + FOLLOW_SECONDS
        while not self.seen or self.seen[-1]["seq"] != seq:
            assert time.monotonic() < until
            self.seen.append(json.loads(self._process.stdout.readline()))
        return [event["seq"] for event in self.seen]


@contextmanager
def following(daemon: Daemon, *options: str) -> Iterator[Follower]:
    command = [f"{sys.prefix}/bin/bakehouse", "events", "--follow", "--json", *options]
    with subprocess.Popen(
        command, env=daemon.environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Follower(process)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                assert process.wait(10) == 130
            finally:
                process.kill()


def test_every_number_once_in_order_across_a_crash_and_a_stop(daemon: Daemon) -> None:
    with following(daemon, "--from", "oldest") as follower:
        follower.until(1)  # it is there before the daemon is not
        for end in (daemon.kill, daemon.stop):
            daemon.docker("run", "--rm", "busybox", "true")
            daemon.docker("run", "-d", "--rm", "busybox", "sleep", "0.2")
            end()
            time.sleep(0.4)
            daemon.start()
        daemon.docker("run", "--rm", "busybox", "true")
        last = events(daemon, "--from", "oldest")[-1]["seq"]
        assert isinstance(last, int)
        assert follower.until(last) == list(range(1, last + 1))
    kinds = [str(event["type"]) for event in follower.seen]
    assert kinds.count("daemon.start") == 3
    assert kinds.count("daemon.stop") == 1
    starts, dies = kinds.count("container.start"), kinds.count("container.die")
    assert starts == dies == kinds.count("container.destroy") == 5


def test_a_cursor_goes_on_where_it_was(daemon: Daemon) -> None:
    daemon.docker("run", "--rm", "busybox", "true")
    before = events(daemon, "--from", "oldest")
    cursor = str(before[-2]["id"])
    assert [event["seq"] for event in events(daemon, "--from", cursor)] == [before[-1]["seq"]]
    daemon.kill()
    daemon.start()
    after = events(daemon, "--from", cursor)
    assert [event["seq"] for event in after] == [before[-1]["seq"], int(str(before[-1]["seq"])) + 1]
    assert after[-1]["type"] == "daemon.start"


def test_now_is_only_what_comes(daemon: Daemon) -> None:
    with following(daemon, "--from", "now", "--type", "image.*") as follower:
        time.sleep(1)
        daemon.docker("tag", "busybox", "another:1")
        daemon.docker("run", "--rm", "busybox", "true")
        daemon.docker("rmi", "another:1")
        last = events(daemon, "--from", "oldest")[-1]["seq"]
        follower.until(last)
    assert [event["type"] for event in follower.seen] == ["image.tag", "image.untag"]


def test_people_see_their_own(daemon: Daemon, two_users: People) -> None:
    ada, bob = two_users.ada, two_users.bob
    daemon.docker("run", "--rm", "--name", "mine", "busybox", "true", user=ada)
    hers = events(daemon, "--from", "oldest", user=ada)
    assert {event["owner"] for event in hers} == {ada.uid}
    assert "container.die" in {event["type"] for event in hers}
    assert {event["owner"] for event in events(daemon, "--from", "oldest", user=bob)} <= {bob.uid}
    seen = {event["seq"] for event in events(daemon, "--from", "oldest")}
    assert {event["seq"] for event in hers} < seen, "an administrator sees them all"


@pytest.mark.parametrize(
    ("start", "told"),
    [("nonsense", "cannot follow events"), ("never:x", "cannot follow events")],
)
def test_places_that_are_none(daemon: Daemon, start: str, told: str) -> None:
    done = daemon.bakehouse("events", "--from", start, check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_a_cursor_of_another_journal_leads_to_the_oldest_and_says_so(daemon: Daemon) -> None:
    done = daemon.bakehouse("events", "--json", "--from", f"{'f' * 32}:7")
    assert json.loads(done.stdout.splitlines()[0])["seq"] == 1
    assert "no longer kept; going on from there" in done.stderr


def test_docker_tells_the_same(daemon: Daemon) -> None:
    began = time.time()
    daemon.docker("run", "--rm", "--name", "web", "--label", "a=b", "busybox", "true")
    ended = time.time()
    ours = [
        str(event["type"]).removeprefix("container.")
        for event in events(daemon, "--from", "oldest", "--type", "container.*")
        if dict(event["actor"])["attributes"].get("a") == "b"  # type: ignore[call-overload]  # JSON
    ]
    shown = daemon.docker(
        *("events", "--since", f"{began:.9f}", "--until", f"{ended:.9f}"),
        *("--filter", "type=container", "--format", "{{.Action}}"),
    ).stdout
    assert shown.split() == ["create", "attach", "start", "die", "destroy"]
    assert ours == ["create", "attach", "starting", "start", "die", "remove", "destroy"]

"""Quotas and people from outside: nobody sees another's figures, sets their own limits, or gets beyond them (attacks.md 22)."""

from __future__ import annotations

import concurrent.futures
import json
from collections.abc import Iterator

import pytest

from tests.support.accounts import People
from tests.support.asking import ask
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Iterator[Daemon]:
    for user in (two_users.ada, two_users.bob):
        daemon.import_busybox(user=user)
    daemon.docker("run", "-d", "--name", "secret", "busybox", "sleep", "600", user=two_users.bob)
    yield daemon
    daemon.docker("rm", "-f", "secret", user=two_users.bob, check=False)


def test_only_administrators_reach_owners(ready: Daemon, two_users: People) -> None:
    ada, bob = two_users.ada, two_users.bob
    for method, path in (
        ("GET", "/bakehouse/v1/owners"),
        ("GET", f"/bakehouse/v1/owners/{bob.uid}"),
        ("GET", f"/bakehouse/v1/owners/{ada.uid}"),
        ("POST", f"/bakehouse/v1/owners/{ada.uid}"),
        ("POST", f"/bakehouse/v1/owners/{bob.uid}/suspend"),
        ("POST", f"/bakehouse/v1/owners/{ada.uid}/resume"),
    ):
        body = {"limits": {"containers_max": 0}} if method == "POST" else b""
        answer = ask(ready, method, path, body, user=ada)
        assert answer.status == 403, path
        assert "rule administrators-only" in answer.message
        assert "containers_max" not in answer.message
    shown = json.loads(ready.bakehouse("owner", "show", ada.name, "--json").stdout)
    assert (shown["own_limits"], shown["suspended"]) == ({}, None)
    audit = ready.bakehouse("events", "--type", "access.*", "--json", user=ada).stdout
    assert audit.count('"rule":"administrators-only"') == 6
    assert (
        "administrators-only"
        not in ready.bakehouse("events", "--type", "access.*", user=bob).stdout
    )


def test_nobody_sees_anothers_figures(ready: Daemon, two_users: People) -> None:
    ada, bob = two_users.ada, two_users.bob
    for words in (
        ("whoami", "--json"),
        ("quota", "--json"),
        ("top", "--once", "--json"),
        ("doctor", "--json"),
    ):
        told = ready.bakehouse(*words, user=ada, check=False).stdout
        assert bob.name not in told, words
        assert f": {bob.uid}," not in told.replace(":", ": "), words
        assert "secret" not in told, words
    lines = {
        line["name"]: line["used"]
        for line in json.loads(ready.bakehouse("quota", "--json", user=ada).stdout)
    }
    assert (lines["containers"], lines["pids"]) == (0, 0)


def test_a_query_or_a_body_names_nobody_else(ready: Daemon, two_users: People) -> None:
    ada, bob = two_users.ada, two_users.bob
    for path in (f"/bakehouse/v1/quota?owner={bob.uid}", f"/bakehouse/v1/quota?uid={bob.uid}"):
        told = ask(ready, "GET", path, {"uid": bob.uid, "owner": bob.uid}, user=ada).json
        assert {line["name"]: line["used"] for line in told}["containers"] == 0  # type: ignore[attr-defined]


def test_a_quota_is_not_passed_by_asking_at_once_or_by_renaming(
    ready: Daemon, two_users: People
) -> None:
    ada = two_users.ada
    ready.bakehouse("owner", "set", ada.name, "containers_max=2", "execs_max=3", "volumes_max=1")

    def create(number: int) -> int:
        body = {"Image": "busybox", "Cmd": ["sleep", "600"]}
        answer = ask(ready, "POST", f"/containers/create?name=race-{number}", body, user=ada)
        if number % 2:
            ask(ready, "POST", f"/containers/race-{number}/rename?name=other-{number}", user=ada)
        return answer.status

    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        statuses = list(pool.map(create, range(12)))
    assert sorted(statuses) == [201] * 2 + [507] * 10
    have = ready.docker("ps", "-aq", user=ada).stdout.split()
    assert len(have) == 2
    ready.docker("start", have[0], user=ada)

    def execute(_: int) -> int:
        return ask(
            ready, "POST", f"/containers/{have[0]}/exec", {"Cmd": ["sleep", "9"]}, user=ada
        ).status

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(execute, range(8)))
    assert sorted(statuses) == [201] * 3 + [507] * 5

    def volume(number: int) -> int:
        return ask(ready, "POST", "/volumes/create", {"Name": f"race-{number}"}, user=ada).status

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(volume, range(8)))
    assert sorted(statuses) == [201] + [507] * 7
    ready.docker("rm", "-f", *have, user=ada)


def test_a_crash_neither_gives_nor_takes(ready: Daemon, two_users: People) -> None:
    """Killed while creates are at work, the next daemon counts what is there, and no more can be had."""
    ada = two_users.ada
    ready.bakehouse("owner", "set", ada.name, "containers_max=5", "volumes_max=5")

    def create(number: int) -> int:
        body = {
            "Image": "busybox",
            "Cmd": ["true"],
            "HostConfig": {"Binds": [f"crash-{number}:/v"]},
        }
        try:
            return ask(ready, "POST", "/containers/create", body, user=ada).status
        except (ConnectionError, AssertionError):
            return 0

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(create, number) for number in range(8)]
        next(concurrent.futures.as_completed(asked)).result()
        ready.kill()
    ready.start()
    lines = {
        line["name"]: line["used"]
        for line in json.loads(ready.bakehouse("quota", "--json", user=ada).stdout)
    }
    have = ready.docker("ps", "-aq", user=ada).stdout.split()
    volumes = ready.docker("volume", "ls", "-q", user=ada).stdout.split()
    assert lines["containers"] == len(have) <= 5
    assert lines["volumes"] == len(volumes) <= 5
    made = [create(number + 10) for number in range(6)]
    assert made.count(201) == min(5 - len(have), 5 - len(volumes))
    for one in ready.docker("ps", "-aq", user=ada).stdout.split():
        ready.docker("rm", "-fv", one, user=ada)
    ready.docker("volume", "prune", "-f", user=ada)
    ready.bakehouse(
        "owner",
        "set",
        ada.name,
        "containers_max=default",
        "volumes_max=default",
        "execs_max=default",
    )

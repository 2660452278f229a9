"""People, what they may use and what they use: whoami, quota and owner, over the command and the API, with real users.

Each counted quota is tried at its edge through the docker command, by one request after the other and by many at once.
"""

from __future__ import annotations

import concurrent.futures
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import People, User
from tests.support.asking import ask
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Iterator[Daemon]:
    for user in (two_users.ada, two_users.bob):
        daemon.import_busybox(user=user)
    yield daemon
    for user in (two_users.ada, two_users.bob):
        for one in daemon.docker("ps", "-aq", user=user).stdout.split():
            daemon.docker("rm", "-fv", one, user=user, check=False)


def lines_of(daemon: Daemon, user: User) -> dict[str, dict[str, Any]]:
    """The user's quotas by name."""
    told = json.loads(daemon.bakehouse("quota", "--json", user=user).stdout)
    return {line["name"]: line for line in told}


def owner_of(daemon: Daemon, user: User) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(daemon.bakehouse("owner", "show", user.name, "--json").stdout)
    return told


def set_limits(daemon: Daemon, user: User, *limits: str) -> None:
    daemon.bakehouse("owner", "set", user.name, *limits)


def at_once(
    daemon: Daemon, user: User, commands: list[list[str]]
) -> list[subprocess.CompletedProcess[str]]:
    with concurrent.futures.ThreadPoolExecutor(len(commands)) as pool:
        return list(pool.map(lambda words: daemon.docker(*words, user=user, check=False), commands))


def test_whoami_tells_role_groups_ids_limits_and_use(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    text = ready.bakehouse("whoami", user=ada).stdout
    assert f"{ada.name} (uid {ada.uid})" in text
    assert "role:    user" in text
    assert two_users.lab in text
    assert "1 to 65535 are" in text
    assert "containers" in text
    root = json.loads(ready.bakehouse("whoami", "--json").stdout)
    assert (root["role"], root["uid"], root["remapped"]) == ("admin", 0, False)


def test_use_is_what_there_is(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    before = lines_of(ready, ada)
    run = (
        "run",
        "-d",
        "--name",
        "used",
        "-p",
        "0:80",
        "-v",
        "used-volume:/v",
        "busybox",
        "sleep",
        "600",
    )
    ready.docker(*run, user=ada)
    ready.docker("network", "create", "used-network", user=ada)
    after = lines_of(ready, ada)
    for name in ("containers", "ports", "volumes", "networks"):
        assert after[name]["used"] == before[name]["used"] + 1, name
    assert after["pids"]["used"] >= 1
    assert after["memory"]["used"] > 0
    shown = owner_of(ready, ada)
    ports = next(line for line in shown["quotas"] if line["name"] == "ports")
    assert ports["used"] == after["ports"]["used"]
    ready.docker("rm", "-f", "used", user=ada)
    ready.docker("volume", "rm", "used-volume", user=ada)
    ready.docker("network", "rm", "used-network", user=ada)
    assert {
        name: lines_of(ready, ada)[name]["used"]
        for name in ("containers", "ports", "volumes", "networks")
    } == {name: before[name]["used"] for name in ("containers", "ports", "volumes", "networks")}


def test_containers_at_the_edge_also_when_many_ask_at_once(
    ready: Daemon, two_users: People
) -> None:
    ada = two_users.ada
    set_limits(ready, ada, "containers_max=3")
    answers = at_once(ready, ada, [["create", "busybox", "true"] for _ in range(8)])
    assert sorted(one.returncode == 0 for one in answers) == [False] * 5 + [True] * 3
    refused = next(one.stderr for one in answers if one.returncode)
    assert "cannot create a container: you have 3, and 3 are allowed" in refused
    afterwards = ready.docker("create", "busybox", "true", user=ada, check=False)
    assert "3 of them do not run: docker container prune" in afterwards.stderr
    assert lines_of(ready, ada)["containers"] == {
        "name": "containers",
        "unit": "count",
        "used": 3.0,
        "allowed": 3.0,
    }
    ready.docker("container", "prune", "-f", user=ada)
    ready.docker("run", "--rm", "busybox", "true", user=ada)
    set_limits(ready, ada, "containers_max=default")
    assert lines_of(ready, ada)["containers"]["allowed"] == 1_000


def test_volumes_at_the_edge_anonymous_ones_too(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    set_limits(ready, ada, "volumes_max=2")
    answers = at_once(ready, ada, [["volume", "create", f"edge-{number}"] for number in range(5)])
    assert sorted(one.returncode == 0 for one in answers) == [False] * 3 + [True] * 2
    made = ready.docker("volume", "ls", "-q", user=ada).stdout.split()
    assert len(made) == 2
    ready.docker("volume", "create", made[0], user=ada)  # it is there already
    over = ready.docker("run", "--rm", "-v", "/anonymous", "busybox", "true", user=ada, check=False)
    assert "cannot create a volume: you have 2, and 2 are allowed" in over.stderr
    assert ready.docker("ps", "-aq", user=ada).stdout == ""  # the container was undone
    places = [path.name for path in (ready.data_root / "volumes" / f"u{ada.uid}").iterdir()]
    assert sorted(places) == sorted(made)
    ready.docker("volume", "rm", *made, user=ada)
    set_limits(ready, ada, "volumes_max=default")


def test_ports_at_the_edge(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    set_limits(ready, ada, "ports_max=2")
    ready.docker("run", "-d", "--name", "ported", "-p", "0:80", "busybox", "sleep", "600", user=ada)
    two = ("run", "-d", "--name", "more", "-p", "0:80", "-p", "0:81", "busybox", "sleep", "600")
    over = ready.docker(*two, user=ada, check=False)
    assert over.returncode != 0
    assert "you have 1, and 2 are allowed" in over.stderr
    assert "container ported has 1" in over.stderr
    assert lines_of(ready, ada)["ports"]["used"] == 1
    ready.docker("rm", "-f", "more", user=ada)
    again = ("run", "-d", "--name", "more", "-p", "0:80", "busybox", "sleep", "600")
    ready.docker(*again, user=ada)
    ready.docker("rm", "-f", "ported", "more", user=ada)
    set_limits(ready, ada, "ports_max=default")
    assert lines_of(ready, ada)["ports"]["used"] == 0


def test_execs_at_the_edge(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    ready.docker("run", "-d", "--name", "execs", "busybox", "sleep", "600", user=ada)
    set_limits(ready, ada, "execs_max=2")
    path = "/containers/execs/exec"
    statuses = [
        ask(ready, "POST", path, {"Cmd": ["sleep", "600"]}, user=ada).status for _ in range(3)
    ]
    assert statuses == [201, 201, 507]
    told = ask(ready, "POST", path, {"Cmd": ["true"]}, user=ada).message
    assert "cannot execute in a container: you have 2, and 2 are allowed" in told
    ready.docker("rm", "-f", "execs", user=ada)
    assert lines_of(ready, ada)["execs"]["used"] == 0
    set_limits(ready, ada, "execs_max=default")


def test_networks_at_the_edge(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    set_limits(ready, ada, "networks_max=1")
    ready.docker("network", "create", "one", user=ada)
    over = ready.docker("network", "create", "two", user=ada, check=False)
    assert "cannot create a network: you have 1, and 1 are allowed" in over.stderr
    ready.docker("network", "rm", "one", user=ada)
    set_limits(ready, ada, "networks_max=default")


def test_a_suspended_owner_begins_nothing_and_loses_nothing(
    ready: Daemon, two_users: People, tmp_path: Path
) -> None:
    ada, bob = two_users.ada, two_users.bob
    ready.docker("run", "-d", "--name", "stays", "busybox", "sleep", "600", user=ada)
    ready.docker("create", "--name", "waits", "busybox", "sleep", "600", user=ada)
    ready.bakehouse("owner", "suspend", ada.name, "--reason", "mining")
    commands = (
        ("run", "busybox", "true"),
        ("start", "waits"),
        ("restart", "stays"),
        ("exec", "stays", "true"),
        ("volume", "create", "refused"),
        ("network", "create", "refused"),
        ("tag", "busybox", "refused"),
        ("import", "-", "refused"),
    )
    for words in commands:
        refused = ready.docker(*words, user=ada, check=False)
        assert refused.returncode != 0, words
        assert "refused by the rule suspended" in refused.stderr, words
        assert "mining" in refused.stderr
    assert ready.docker("ps", "--format", "{{.Names}}", user=ada).stdout.split() == ["stays"]
    assert "suspended:" in ready.bakehouse("whoami", user=ada).stdout
    assert "mining" in ready.bakehouse("owner", "list").stdout
    audit = ready.bakehouse("events", "--type", "access", user=ada).stdout
    assert "rule=suspended" in audit
    ready.docker("run", "--rm", "busybox", "true", user=bob)  # others are not meant
    ready.stop()
    ready.start()  # it is kept
    assert ready.docker("start", "waits", user=ada, check=False).returncode != 0
    ready.docker("stop", "-t", "0", "stays", user=ada)
    ready.docker("rm", "stays", user=ada)
    ready.bakehouse("owner", "resume", ada.name)
    ready.docker("start", "waits", user=ada)
    ready.docker("rm", "-f", "waits", user=ada)


def test_limits_set_survive_the_daemon_and_hold_at_once(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    ready.docker("run", "-d", "--name", "limited", "busybox", "sleep", "600", user=ada)
    set_limits(ready, ada, "pids_max=77", "cpu_weight=200", "memory_bytes_max=512m")
    pids = [
        path.read_text().strip()
        for path in Path("/sys/fs/cgroup").glob(f"**/{ready.config.instance}/u{ada.uid}/pids.max")
    ]
    assert pids == ["77"]
    ready.kill()
    ready.start()
    shown = owner_of(ready, ada)
    assert shown["own_limits"] == {"pids_max": 77, "cpu_weight": 200, "memory_bytes_max": 2**29}
    wrong = ready.bakehouse("owner", "set", ada.name, "containers_maxx=1", check=False)
    assert wrong.returncode == 1
    assert "containers_max" in wrong.stderr
    set_limits(ready, ada, "pids_max=default", "cpu_weight=default", "memory_bytes_max=default")
    assert owner_of(ready, ada)["own_limits"] == {}
    ready.docker("rm", "-f", "limited", user=ada)


def test_every_form_of_owner_and_its_faults(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    assert (
        ready.bakehouse("owner", "show", str(ada.uid)).stdout
        == ready.bakehouse("owner", "show", ada.name).stdout
    )
    assert "no such account" in ready.bakehouse("owner", "show", "nobody-here", check=False).stderr
    assert ask(ready, "GET", "/bakehouse/v1/owners/4294967295").status == 400
    assert ask(ready, "GET", "/bakehouse/v1/owners/3999999999").status == 404
    assert ask(ready, "POST", f"/bakehouse/v1/owners/{ada.uid}", {"limit": {}}).status == 400
    assert (
        ask(
            ready, "POST", f"/bakehouse/v1/owners/{ada.uid}", {"limits": {"pids_max": "many"}}
        ).status
        == 400
    )
    assert (
        ask(ready, "POST", f"/bakehouse/v1/owners/{ada.uid}/suspend", {"reason": 1}).status == 400
    )
    assert "suspended" not in ready.bakehouse("owner", "show", ada.name).stdout


def disk_of(daemon: Daemon, user: User) -> dict[str, int]:
    parts: dict[str, int] = lines_of(daemon, user)["disk"]["parts"]
    return parts


def test_the_disk_is_counted_and_held_at_the_next_allocation(
    ready: Daemon, two_users: People
) -> None:
    ada, bob = two_users.ada, two_users.bob
    before = disk_of(ready, ada)
    fill = "head -c 9000000 /dev/zero > /v/x; ln /v/x /v/y; head -c 3000000 /dev/zero > /z; head -c 200000 /dev/zero"
    ready.docker("run", "--name", "fills", "-v", "filled:/v", "busybox", "sh", "-c", fill, user=ada)
    after = disk_of(ready, ada)
    assert (
        9_000_000 <= after["volumes"] - before["volumes"] < 9_100_000
    )  # a hard link is no second file
    assert 3_000_000 <= after["containers"] - before["containers"] < 3_100_000
    assert after["logs"] > before["logs"]
    assert after["images"] > 0
    set_limits(ready, ada, "disk_bytes_max=8m")
    refused = ready.docker("run", "--rm", "busybox", "true", user=ada, check=False)
    assert "cannot put more on the disk" in refused.stderr
    assert "8,388,608 are allowed: volumes" in refused.stderr
    assert "docker volume prune" in refused.stderr
    assert ready.docker("volume", "create", "another", user=ada, check=False).returncode != 0
    ready.docker("run", "--rm", "busybox", "true", user=bob)
    ready.kill()
    ready.start()  # what was counted is known at once
    assert disk_of(ready, ada)["volumes"] == after["volumes"]
    ready.docker("rm", "fills", user=ada)
    ready.docker("volume", "rm", "filled", user=ada)
    gone = disk_of(ready, ada)
    assert (gone["volumes"], gone["containers"]) == (before["volumes"], before["containers"])
    ready.docker("run", "--rm", "busybox", "true", user=ada)
    set_limits(ready, ada, "disk_bytes_max=default")


def test_what_is_copied_into_a_container_that_does_not_run_counts(
    ready: Daemon, two_users: People
) -> None:
    ada = two_users.ada
    large = ada.home / "large"
    large.write_bytes(bytes(2_000_000))
    ready.docker("create", "--name", "copied", "busybox", "true", user=ada)
    before = disk_of(ready, ada)["containers"]
    ready.docker("cp", str(large), "copied:/large", user=ada)
    assert disk_of(ready, ada)["containers"] >= before + 2_000_000
    ready.docker("rm", "copied", user=ada)
    large.unlink()

"""What people look at: lists and their filters, stats, top, events, disk usage; as root, and as users who see their own."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import docker
import pytest
from docker.errors import APIError

from tests.support.accounts import People, User
from tests.support.asking import ask
from tests.support.daemon import Daemon
from tests.support.waiting import until

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def client(daemon: Daemon, two_users: People) -> Iterator[docker.DockerClient]:
    daemon.import_busybox("bb")
    for user in (two_users.ada, two_users.bob):
        daemon.import_busybox("bb", user=user)
    made = daemon.client()
    yield made
    made.close()


@pytest.fixture(scope="module")
def shop(daemon: Daemon, client: docker.DockerClient, two_users: People) -> Daemon:
    """A few containers of Ada's, and one of Bob's that is called and labelled as hers."""
    ada, bob = two_users.ada, two_users.bob
    web = ("-l", "tier=front", "-p", "18590:80", "-v", "data:/data", "--name", "web-1")
    daemon.docker("run", "-d", *web, "bb", "sleep", "300", user=ada)
    daemon.docker("run", "--name", "job", "bb", "sh", "-c", "exit 3", user=ada, check=False)
    daemon.docker("create", "--expose", "53/udp", "--name", "later", "bb", "true", user=ada)
    daemon.docker(
        "run", "-d", "-l", "tier=front", "--name", "web-1", "bb", "sleep", "300", user=bob
    )
    return daemon


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ([], ["web-1"]),
        (["status=exited"], ["job"]),
        (["status=created"], ["later"]),
        (["exited=3"], ["job"]),
        (["label=tier"], ["web-1"]),
        (["label=tier=back"], []),
        (["name=^/web-[0-9]$"], ["web-1"]),
        (["volume=data"], ["web-1"]),
        (["volume=/data"], ["web-1"]),
        (["publish=18590"], ["web-1"]),
        (["ancestor=bb"], ["web-1"]),
        (["ancestor=nope"], []),
        (["network=bridge"], ["web-1"]),
        (["before=later", "status=exited"], ["job"]),
        (["since=web-1", "status=created", "status=exited"], ["later", "job"]),
        (["health=none", "is-task=false"], ["web-1"]),
    ],
)
def test_filters_of_ps_find_ones_own(
    shop: Daemon, two_users: People, filters: list[str], names: list[str]
) -> None:
    words = [word for one in filters for word in ("--filter", one)]
    told = shop.docker("ps", "--format", "{{.Names}}", *words, user=two_users.ada)
    assert told.stdout.split() == names


def test_lists_are_bounded_sized_and_shown_with_their_parts(
    shop: Daemon, two_users: People
) -> None:
    ada = two_users.ada
    assert shop.docker("ps", "-n", "1", "--format", "{{.Names}}", user=ada).stdout == "later\n"
    row = shop.docker("ps", "-s", "--format", "{{.Ports}} {{.Mounts}} {{.Size}}", user=ada).stdout
    assert row.startswith("0.0.0.0:18590->80/tcp")
    assert "data" in row
    assert "virtual" in row
    for bad in ("status=well", "nope=1", "publish=x"):
        assert shop.docker("ps", "--filter", bad, user=ada, check=False).returncode == 1
    both = shop.docker("ps", "-a", "--filter", "name=web-1", "-q").stdout.split()
    assert len(both) == 2, "an administrator sees everybody's"


def test_an_image_that_lost_its_name_is_told_by_its_id(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    daemon.docker("tag", "bb", "renamed")
    container = client.containers.create("renamed", ["true"])
    entry = [one for one in client.api.containers(all=True) if one["Id"] == container.id]
    assert entry[0]["Image"] == "renamed"
    daemon.docker("rmi", "renamed")
    entry = [one for one in client.api.containers(all=True) if one["Id"] == container.id]
    assert entry[0]["Image"] == container.image.id if container.image else True
    container.remove()


def test_prune_keeps_what_its_filters_keep(daemon: Daemon, two_users: People) -> None:
    bob = two_users.bob
    for name, labels in (("p1", ()), ("p2", ("-l", "keep=1")), ("p3", ("-l", "old=1"))):
        daemon.docker("create", "--name", name, *labels, "bb", "true", user=bob)
    since = str(time.time())

    def prune(*filters: str) -> str:
        words = [word for one in filters for word in ("--filter", one)]
        return daemon.docker("container", "prune", "-f", *words, user=bob).stdout

    def left() -> set[str]:
        told = daemon.docker(
            "ps", "-a", "--filter", "name=^p[123]$", "--format", "{{.Names}}", user=bob
        )
        return set(told.stdout.split())

    prune("until=1h")
    assert left() == {"p1", "p2", "p3"}
    prune("label=old")
    assert left() == {"p1", "p2"}
    prune("label!=keep")
    assert left() == {"p2"}
    prune()
    assert left() == set()
    told = daemon.docker(
        *("events", "--since", since, "--until", str(time.time()), "--filter", "event=prune"),
        *("--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.reclaimed}}"),
        user=bob,
    )
    assert told.stdout.splitlines() == ["container prune 0"] * 4
    with pytest.raises(AssertionError, match="more than one until filter specified"):
        prune("until=1h", "until=2h")


def test_stats_of_many_at_once_and_of_one(daemon: Daemon, client: docker.DockerClient) -> None:
    busy = "while :; do :; done"
    many = [client.containers.run("bb", ["sleep", "100"], detach=True) for _ in range(8)]
    many.append(client.containers.run("bb", ["sh", "-c", busy], detach=True, mem_limit="64m"))
    told = daemon.docker(
        "stats", "--no-stream", "--format", "{{json .}}", *[one.id for one in many]
    )
    rows = [json.loads(line) for line in told.stdout.splitlines()]
    assert len(rows) == 9
    assert float(rows[-1]["CPUPerc"].rstrip("%")) > 10
    assert rows[-1]["MemUsage"].endswith("/ 64MiB")
    shown = many[-1].stats(stream=False)
    assert shown["networks"]["eth0"].keys() >= {"rx_bytes", "tx_dropped"}
    assert (
        shown["cpu_stats"]["cpu_usage"]["total_usage"]
        > shown["precpu_stats"]["cpu_usage"]["total_usage"]
    )
    assert shown["memory_stats"]["stats"].keys() & {"cache", "file"}
    assert shown["pids_stats"]["current"] == 1
    assert len(shown["blkio_stats"]) == 8
    for one in many:
        one.remove(force=True)
    with pytest.raises(APIError, match="cannot have stream=true and one-shot=true"):
        client.api._result(
            client.api._get(
                client.api._url("/containers/{0}/stats", client.containers.create("bb", "x").id),
                params={"one-shot": 1},
            ),
            json=True,
        )


def test_top_shows_as_ps_does(shop: Daemon, two_users: People) -> None:
    ada = two_users.ada
    shop.docker("exec", "-d", "web-1", "sh", "-c", "sleep 200; true", user=ada)

    def top(*words: str) -> list[list[str]]:
        told = shop.docker("top", "web-1", *words, user=ada).stdout
        return [line.split(maxsplit=1) for line in told.splitlines()]

    until(lambda: len(top()) == 4)
    assert len(top()) == len(top("aux")) == len(top("-o", "pid,args")) == 4
    forest = top("axf", "-o", "pid,cmd")
    assert [row[1].split()[-1] for row in forest[1:]].count("200") >= 1
    assert len(top("-eLf")) == 4
    sorted_ = [int(row[0]) for row in top("-o", "pid,comm", "--sort", "-pid")[1:]]
    assert sorted_ == sorted(sorted_, reverse=True)
    for words in (("-N",), ("-C", "init", "-o", "pid"), ("-o", "ppid=PID")):
        refused = shop.docker("top", "web-1", *words, user=ada, check=False)
        assert "ps: error" in refused.stderr


def test_events_by_every_filter_from_a_time_to_a_time(daemon: Daemon, two_users: People) -> None:
    ada = two_users.ada
    since = str(time.time())
    daemon.docker("volume", "create", "shelf", user=ada)
    options = ("-l", "tier=back", "-v", "shelf:/s", "--name", "told")
    daemon.docker("run", *options, "bb", "sh", "-c", "exit 2", user=ada, check=False)
    daemon.docker("rm", "told", user=ada)
    daemon.docker("volume", "rm", "shelf", user=ada)
    until = str(time.time())

    def told(*filters: str) -> list[str]:
        words = [word for one in filters for word in ("--filter", one)]
        span = ("--since", since, "--until", until, "--format", "{{.Type}} {{.Action}}")
        return daemon.docker("events", *span, *words, user=ada).stdout.splitlines()

    life = ["create", "attach", "start", "die", "destroy"]
    assert told("type=container") == [f"container {action}" for action in life]
    assert told("container=told") == told("label=tier=back") == told("type=container")
    assert told("container=tol", "event=die") == ["container die"]
    assert told("volume=shelf") == [
        f"volume {action}" for action in ("create", "mount", "unmount", "destroy")
    ]
    assert told("image=bb", "event=start", "event=die") == ["container start", "container die"]
    assert told("type=daemon") == []
    assert told("scope=swarm") == []
    assert told("scope=local") == told()
    wrong = daemon.docker("events", "--since", until, "--until", since, user=ada, check=False)
    assert "cannot be after `until` time" in wrong.stderr
    other = ("events", "--since", since, "--until", until, "--filter", "container=told")
    assert daemon.docker(*other, user=two_users.bob).stdout == ""


def test_disk_usage_and_the_daemon_itself(shop: Daemon, two_users: People) -> None:
    ada = two_users.ada
    shop.docker("exec", "web-1", "sh", "-c", "head -c 5000000 /dev/zero > /data/x", user=ada)
    table = shop.docker("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Size}}", user=ada)
    rows = dict(line.rsplit(" ", 2)[::2] for line in table.stdout.splitlines())
    assert rows["Local Volumes"] == "5MB" or rows["Local Volumes"].startswith("5.")
    described = shop.docker("system", "df", "-v", user=two_users.bob).stdout
    assert "data" not in described.split()
    info = shop.docker("info", "--format", "{{json .}}", user=ada).stdout
    assert json.loads(info)["Swarm"]["LocalNodeState"] == "inactive"
    assert json.loads(info)["ContainersRunning"] == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("node", "ls"), "This node is not a swarm manager."),
        (("service", "ls"), "This node is not a swarm manager."),
        (("secret", "ls"), "This node is not a swarm manager."),
        (("config", "ls"), "This node is not a swarm manager."),
        (("stack", "ls"), "This node is not a swarm manager."),
        (("swarm", "leave"), "This node is not part of a swarm"),
        (("swarm", "init"), "cannot make a swarm"),
        (("plugin", "inspect", "x"), "not found"),
        (("plugin", "disable", "x"), 'plugin "x" not found'),
    ],
)
def test_swarm_and_plugins_as_a_daemon_without_them(
    daemon: Daemon, client: docker.DockerClient, words: tuple[str, ...], told: str
) -> None:
    done = daemon.docker(*words, check=False)
    assert done.returncode == 1
    assert told in done.stderr
    assert daemon.docker("plugin", "ls", "-q").stdout == ""


def test_versions_that_are_spoken(daemon: Daemon, client: docker.DockerClient) -> None:
    old, new = (ask(daemon, "GET", f"/v{version}/info").json for version in ("1.22", "1.41"))
    assert isinstance(old, dict)
    assert isinstance(new, dict)
    assert old["ExecutionDriver"] == "<not supported>"
    assert old["SecurityOptions"] == ["seccomp"]
    assert new.keys() >= {"SystemTime", "DefaultAddressPools"} - old.keys()
    for version, words in (("1.21", "is too old. Minimum"), ("1.42", "is too new. Maximum")):
        refused = ask(daemon, "GET", f"/v{version}/info")
        assert refused.status == 400
        assert words in refused.message
    unknown = ask(daemon, "GET", "/system/df?type=cake")
    assert (unknown.status, unknown.message.splitlines()[0]) == (400, "unknown object type: cake")


def test_the_queue_is_told_to_everybody_and_shows_ones_own(shop: Daemon, two_users: People) -> None:
    """A step of Ada's build works; Bob is told that there is one, and no more."""
    context = b"FROM bb\nRUN sleep 600\n"
    building = subprocess.Popen(
        ["docker", "build", "-q", "-"],
        env=shop.environment(two_users.ada),
        user=two_users.ada.uid,
        group=two_users.ada.gid,
        extra_groups=two_users.ada.groups,
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert building.stdin is not None
        building.stdin.write(context)
        building.stdin.close()
        until = time.monotonic() + 25
        while not (shown := queue_of(shop, two_users.ada))["work"]:
            assert time.monotonic() < until, "no step began"
            time.sleep(0.05)
        (step,) = shown["work"]
        assert (step["owner"], step["kind"], step["waiting"]) == (two_users.ada.uid, "step", False)
        assert step["what"] in shop.bakehouse("queue", user=two_users.ada).stdout
        others = queue_of(shop, two_users.bob)
        assert (others["work"], others["others"]) == ([], 1)
        assert len(queue_of(shop, None)["work"]) == 1
        assert "1 of other people's" in shop.bakehouse("queue", user=two_users.bob).stdout
    finally:
        building.kill()
        building.wait()


def queue_of(daemon: Daemon, user: User | None) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(daemon.bakehouse("queue", "--json", user=user).stdout)
    return told

"""Logs as people read them: through the docker command and docker-py, by drivers and options, as root and as a user."""

from __future__ import annotations

import time
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError

from tests.support.accounts import People
from tests.support.daemon import Daemon

pytestmark = pytest.mark.root

CHATTY = "for i in 1 2 3 4; do echo out $i; echo err $i >&2; sleep 0.05; done"


@pytest.fixture(scope="module")
def client(daemon: Daemon, two_users: People) -> Iterator[docker.DockerClient]:
    daemon.import_busybox("bb")
    daemon.import_busybox("bb", user=two_users.ada)
    made = daemon.client()
    yield made
    made.close()


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_streams_tails_and_times(daemon: Daemon, client: docker.DockerClient, driver: str) -> None:
    name = f"chatty-{driver}"
    daemon.docker("run", "--name", name, "--log-driver", driver, "bb", "sh", "-c", CHATTY)
    whole = daemon.docker("logs", name)
    assert whole.stdout.split("\n") == ["out 1", "out 2", "out 3", "out 4", ""]
    assert whole.stderr.split("\n") == ["err 1", "err 2", "err 3", "err 4", ""]
    tail = daemon.docker("logs", "--tail", "3", name)
    assert (tail.stdout, tail.stderr) == ("out 4\n", "err 3\nerr 4\n")
    times = daemon.docker("logs", "-t", name).stdout.splitlines()
    second = times[1].split()[0]
    assert daemon.docker("logs", "--since", second, name).stdout.startswith("out 2\n")
    assert daemon.docker("logs", "--until", second, name).stdout == "out 1\nout 2\n"
    assert daemon.docker("logs", "--since", "1h", name).stdout == whole.stdout
    assert daemon.docker("logs", "--until", "1h", name).stdout == ""
    container = client.containers.get(name)
    assert container.logs(stdout=False, tail=1) == b"err 4\n"
    with pytest.raises(APIError, match="you must choose at least one stream"):
        container.logs(stdout=False, stderr=False)


def test_long_lines_are_joined_and_details_and_times_stand_before_a_line(
    daemon: Daemon, two_users: People
) -> None:
    options = ("--log-opt", "labels=tier", "--log-opt", "env=LEVEL", "--log-opt", "tag={{.Name}}")
    script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo end"
    daemon.docker(
        *("run", "--name", "long", "-l", "tier=web", "-e", "LEVEL=3", *options),
        *("bb", "sh", "-c", script),
        user=two_users.ada,
    )
    assert daemon.docker("logs", "long", user=two_users.ada).stdout == f"{'x' * 40_000}\nend\n"
    told = daemon.docker("logs", "-t", "--details", "long", user=two_users.ada).stdout.splitlines()
    assert [line.partition(" ")[2] for line in told] == [
        f"LEVEL=3,tag=long,tier=web {'x' * 40_000}",
        "LEVEL=3,tag=long,tier=web end",
    ]
    other = daemon.docker("logs", "long", user=two_users.bob, check=False)
    assert "No such container: long" in other.stderr


def test_a_log_is_held_to_its_bounds_while_it_is_followed(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    bounds = {"max-size": "40k", "max-file": "3", "compress": "true"}
    rest = (
        "[ $i = 1000 ] && sleep 3; [ $((i % 1000)) = 0 ] && sleep 1"  # at rest, then not any more
    )
    script = f"for i in $(seq 5000); do echo line $i; {rest}; done; sleep 1"
    config = docker.types.LogConfig(type="json-file", config=bounds)
    container = client.containers.run("bb", ["sh", "-c", script], log_config=config, detach=True)
    followed = b"".join(container.logs(stream=True, follow=True))
    assert followed == b"".join(b"line %d\n" % number for number in range(1, 5_001))
    kept = container.logs().splitlines()
    assert kept[-1] == b"line 5000"
    assert 500 < len(kept) < 4_000
    assert container.logs(tail=2) == b"line 4999\nline 5000\n"
    directory = daemon.data_root / "containers" / container.id
    files = sorted(path.name for path in directory.iterdir())
    assert [name.endswith(".gz") for name in files if name != "log"].count(True) >= 1
    assert len(files) <= 4


def test_what_cannot_be_read_back_says_so(daemon: Daemon, client: docker.DockerClient) -> None:
    silent = client.containers.run(
        "bb", ["echo", "x"], log_config=docker.types.LogConfig(type="none"), detach=True
    )
    silent.wait()
    for ask in (silent.logs, lambda: silent.attach(logs=True, stream=False)):
        with pytest.raises(APIError) as caught:
            ask()
        assert caught.value.response.status_code == 501
        assert caught.value.explanation == "configured logging driver does not support reading"
    said = daemon.docker("run", "--rm", "--log-driver", "none", "bb", "echo", "heard")
    assert said.stdout == "heard\n"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--log-driver", "nope"), "logger: no log driver named 'nope' is registered"),
        (("--log-opt", "x=1"), "unknown log opt 'x' for json-file log driver"),
        (("--log-opt", "max-file=0"), "max-file cannot be less than 1"),
    ],
)
def test_drivers_and_options_are_refused_by_name(
    daemon: Daemon, client: docker.DockerClient, options: tuple[str, ...], words: str
) -> None:
    done = daemon.docker("run", *options, "bb", "true", check=False)
    assert done.returncode == 125
    assert words in done.stderr


def test_a_tail_of_much_is_quick_and_much_is_read_quickly(
    daemon: Daemon, client: docker.DockerClient
) -> None:
    script = "yes 'a line of some hundred characters, as programs write them when they tell of what they do now' | head -200000"
    config = docker.types.LogConfig(config={"max-size": "100m"})
    container = client.containers.run("bb", ["sh", "-c", script], log_config=config, detach=True)
    container.wait()
    began = time.monotonic()
    assert container.logs(tail=10).count(b"\n") == 10
    tail_seconds = time.monotonic() - began
    began = time.monotonic()
    whole = sum(map(len, container.logs(stream=True, follow=False)))
    whole_seconds = time.monotonic() - began
    assert whole > 18_000_000
    assert tail_seconds < whole_seconds / 4

"""What became of a container's files: ``docker diff``, ``docker commit``, and export and import, with the real command."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator

import docker
import pytest

from tests.support.accounts import People, User
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

WRITE = (
    "echo x > /new; ln /new /hard; chmod 4755 /new; rm /bin/vi; mkdir /etc/foo;"
    " rm -r /home; mkdir /home; touch /home/q; ln -s new /soft; chown 33:33 /tmp/mine 2>/dev/null;"
    " touch /tmp/mine; chown 33:33 /tmp/mine; echo 'root:x:0:0:root:/:/bin/sh' > /etc/passwd;"
    " rm -rf /opt; touch /ready; exec sleep 600"
)
SEEN = "\n".join(
    (
        "A /data", "C /bin", "D /bin/vi", "C /etc", "A /etc/foo", "C /etc/passwd", "A /hard", "C /home", "A /home/q",
        "A /new", "A /ready", "A /soft", "C /tmp", "A /tmp/mine",
    )
)  # fmt: skip
"""As dockerd prints it, in our order."""


@pytest.fixture(scope="module", params=["admin", "user"])
def person(request: pytest.FixtureRequest, daemon: Daemon, two_users: People) -> User | None:
    user = two_users.ada if request.param == "user" else None
    daemon.import_busybox(user=user)
    return user


Cli = Callable[..., str]


@pytest.fixture
def cli(daemon: Daemon, person: User | None) -> Cli:
    """The docker command as this person; what it printed."""
    return lambda *arguments: daemon.docker(*arguments, user=person).stdout


@pytest.fixture
def changed(cli: Cli) -> Iterator[str]:
    """A running container that has changed a good deal."""
    options = ("--name", "changed", "-e", "A=1", "-l", "x=y", "-v", "/data", "-u", "0")
    cli("run", "-d", *options, "--expose", "80", "busybox", "sh", "-c", WRITE)
    cli("exec", "changed", "sh", "-c", "until [ -e /ready ]; do :; done")
    yield "changed"
    cli("rm", "-fv", "changed")


def test_what_changed(cli: Cli, changed: str) -> None:
    assert sorted(cli("diff", changed).splitlines()) == sorted(SEEN.splitlines())
    cli("create", "--name", "untouched", "busybox", "true")
    assert cli("diff", "untouched") == ""
    cli("start", "-a", "untouched")
    assert cli("diff", "untouched") == ""
    cli("rm", "untouched")


def test_a_commit_of_what_runs(cli: Cli, changed: str, daemon: Daemon, person: User | None) -> None:
    said = ("-a", "Ada <ada@example.org>", "-m", "as it is", "-c", 'CMD ["sh", "-c", "echo $A$B"]')
    image = cli(
        "commit", *said, "-c", "ENV B=${A}2", "-c", "EXPOSE 81", changed, "lab/made:1"
    ).strip()
    assert cli("inspect", "--format", "{{.State.Status}}", changed) == "running\n"
    told = json.loads(cli("image", "inspect", "lab/made:1"))[0]
    assert told["Id"] == image
    assert (told["Author"], told["Comment"]) == ("Ada <ada@example.org>", "as it is")
    assert told["Container"] == cli("inspect", "--format", "{{.Id}}", changed).strip()
    assert told["ContainerConfig"]["Cmd"][0] == "sh"
    assert told["Parent"] == json.loads(cli("image", "inspect", "busybox"))[0]["Id"]
    assert {"A=1", "B=12"} <= set(told["Config"]["Env"])
    assert set(told["Config"]["ExposedPorts"]) == {"80/tcp", "81/tcp"}
    assert told["Config"]["Labels"]["x"] == "y"
    assert len(told["RootFS"]["Layers"]) == 2
    assert "as it is" in cli("history", "lab/made:1")
    assert cli("run", "--rm", "lab/made:1") == "112\n"
    line = (
        "cat /new; stat -c '%a %h' /new; readlink /soft; ls /bin/vi /home; stat -c %u:%g /tmp/mine;"
        " ls -d /etc/foo; cat /etc/passwd"
    )
    seen = daemon.docker("run", "--rm", "lab/made:1", "sh", "-c", line, user=person, check=False)
    assert seen.stdout.splitlines() == [
        "x", "4755 2", "new", "/home:", "q", "33:33", "/etc/foo", "root:x:0:0:root:/:/bin/sh",
    ]  # fmt: skip
    assert "/bin/vi: No such file" in seen.stderr
    saved = daemon.run(["sh", "-c", "docker save lab/made:1 | docker load"], person).stdout
    assert saved == "Loaded image: lab/made:1\n"
    cli("rmi", "lab/made:1")


def test_an_image_builds_on_a_commit(cli: Cli, daemon: Daemon, person: User | None) -> None:
    cli("run", "--name", "base", "busybox", "sh", "-c", "echo one > /one")
    cli("commit", "base", "based")
    recipe = b"FROM based\nRUN cat /one > /two && rm /one\n"
    daemon.docker("build", "-t", "further", "-", user=person, input_=recipe)
    assert cli("run", "--rm", "further", "cat", "/two") == "one\n"
    cli("rm", "base")
    cli("rmi", "further", "based")


def test_a_commit_of_what_never_ran(cli: Cli) -> None:
    cli("create", "--name", "fresh", "busybox", "echo", "hello")
    cli("commit", "fresh", "unwritten")
    told = json.loads(cli("image", "inspect", "unwritten"))[0]
    assert len(told["RootFS"]["Layers"]) == 1
    assert cli("run", "--rm", "unwritten") == "hello\n"
    cli("rm", "fresh")
    cli("rmi", "unwritten")


def test_a_commit_of_what_is_just_ending(cli: Cli) -> None:
    """Whether it still runs or not: there is nobody to wait for."""
    for _ in range(4):
        name = cli("run", "-d", "busybox", "sh", "-c", "echo x > /brief").strip()
        cli("commit", name, "brief")
        cli("rm", "-f", name)
    cli("rmi", "brief")


def test_what_a_commit_refuses(daemon: Daemon, person: User | None, cli: Cli) -> None:
    cli("create", "--name", "fresh", "busybox", "true")
    for arguments, why in (
        (("-c", "RUN true", "fresh"), "run is not a valid change command"),
        (("-c", "FROM x", "fresh"), "from is not a valid change command"),
        (("-c", "ENV", "fresh"), "ENV"),
        (("nobody",), "No such container: nobody"),
    ):
        refused = daemon.docker("commit", *arguments, user=person, check=False)
        assert refused.returncode == 1
        assert why in refused.stderr
    cli("rm", "fresh")


def test_a_config_in_the_body(daemon: Daemon, person: User | None, cli: Cli) -> None:
    if person is not None:
        pytest.skip("the same for all; asked as root")
    with contextlib.closing(daemon.client()) as client:
        container = client.containers.create("busybox", "true", environment={"A": "1", "B": "1"})
        image = container.commit(
            "bodied", conf={"Env": ["B=2"], "Cmd": ["echo", "x"], "Labels": {"l": "m"}, "Tty": True}
        )
        config = image.attrs["Config"]
        assert set(config["Env"]) >= {"A=1", "B=2"}
        assert (config["Cmd"], config["Labels"]) == (["echo", "x"], {"l": "m"})
        with pytest.raises(docker.errors.APIError, match="Env"):
            container.commit("bodied", conf={"Env": 1})
        container.remove()
        client.images.remove("bodied")


def test_the_event_of_a_commit(cli: Cli) -> None:
    cli("create", "--name", "told", "busybox", "true")
    image = cli("commit", "-m", "why", "told", "telling").strip()
    cli("rm", "told")
    until = str(int(time.time()) + 1)
    options = ("--since", "10m", "--until", until, "--filter", "event=commit")
    seen = cli("events", *options, "--format", "{{json .Actor.Attributes}}").splitlines()
    told = json.loads(seen[-1])
    assert (told["imageID"], told["comment"]) == (image, "why")
    assert told["imageRef"] == "docker.io/library/telling:latest"
    cli("rmi", "telling")


def test_export_and_import(daemon: Daemon, person: User | None, cli: Cli, changed: str) -> None:
    """The whole of a container's files, through a pipe, becomes an image of one layer."""
    line = f'docker export {changed} | docker import -c \'CMD ["cat", "/new"]\' -m flat - flat:1'
    daemon.run(["sh", "-c", line], person)
    assert cli("run", "--rm", "flat:1") == "x\n"
    told = json.loads(cli("image", "inspect", "flat:1"))[0]
    assert (len(told["RootFS"]["Layers"]), told["Comment"]) == (1, "flat")
    seen = cli("run", "--rm", "flat:1", "stat", "-c", "%a %u %h", "/new", "/tmp/mine")
    assert seen.splitlines() == ["4755 0 2", "644 33 1"]
    cli("rmi", "flat:1")

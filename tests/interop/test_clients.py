"""Other people's clients, unmodified: each does one real task at the socket, as a user.

With ``BAKEHOUSE_TEST_ENGINE=unix:///PATH`` they do the same as root at the engine of that socket.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.support.accounts import People, User, credentials
from tests.support.daemon import REPOSITORY, Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

OTHER_ENGINE = os.environ.get("BAKEHOUSE_TEST_ENGINE")
COLLECTIONS = REPOSITORY / "var" / "tools" / "ansible"
CLIENT_SECONDS = 120


@attrs.frozen
class Bench:
    """Where a client works: an engine with busybox, a directory, whose it is, and how its things are called."""

    engine: str
    user: User | None
    directory: Path
    name: str

    def run(self, *argv: str, **variables: str) -> str:
        """What a command prints."""
        environment = {
            **os.environ,
            "HOME": str(self.directory),
            "DOCKER_HOST": self.engine,
            "DOCKER_BUILDKIT": "0",
            **variables,
        }
        done = subprocess.run(
            argv,
            env=environment,
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=CLIENT_SECONDS,
            **credentials(self.user),
        )
        assert done.returncode == 0, (
            f"{argv[0]} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def python(self, script: str, **variables: str) -> str:
        """What a script prints; ``NAME`` is what it calls its things."""
        return self.run(sys.executable, "-c", script, NAME=self.name, **variables)


@pytest.fixture
def bench(
    request: pytest.FixtureRequest, two_users: People, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    name = f"client{uuid.uuid4().hex[:6]}"
    if OTHER_ENGINE:
        yield Bench(OTHER_ENGINE, None, tmp_path_factory.mktemp("client"), name)
        return
    daemon: Daemon = request.getfixturevalue("daemon")
    user = two_users.ada
    daemon.import_busybox(user=user)
    directory = user.home / name
    directory.mkdir()
    os.chown(directory, user.uid, user.gid)
    yield Bench(f"unix://{daemon.socket}", user, directory, name)


def _needs(module: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs the Python package of {module}")


def test_skopeo_copies_an_image_out_and_in_again(bench: Bench) -> None:
    if not shutil.which("skopeo"):
        pytest.skip("needs skopeo")
    skopeo = ["skopeo", "--insecure-policy"]
    out = ["copy", "--src-daemon-host", bench.engine, "docker-daemon:busybox:latest"]
    bench.run(*skopeo, *out, f"oci:{bench.directory}/image:latest")
    shown = json.loads(
        bench.run(*skopeo, "inspect", "--config", f"oci:{bench.directory}/image:latest")
    )
    assert shown["os"] == "linux"
    back = f"docker-daemon:{bench.name}:copied"
    source = f"oci:{bench.directory}/image:latest"
    bench.run(*skopeo, "copy", "--dest-daemon-host", bench.engine, source, back)
    assert bench.run("docker", "run", "--rm", f"{bench.name}:copied", "echo", "same") == "same\n"
    bench.run("docker", "rmi", f"{bench.name}:copied")


AIODOCKER = """
import asyncio, os
import aiodocker

NAME = os.environ["NAME"]

async def main():
    docker = aiodocker.Docker(os.environ["DOCKER_HOST"])
    told = docker.events.subscribe()
    config = {"Image": "busybox", "Cmd": ["sh", "-c", "echo one; echo two >&2; read a; echo got $a; exit 3"],
              "OpenStdin": True, "StdinOnce": True, "AttachStdin": True, "AttachStdout": True}
    container = await docker.containers.create(config, name=NAME)
    async with container.attach(stdin=True, stdout=True, stderr=True) as stream:
        await container.start()
        read = b""
        while read.count(b"\\n") < 2:
            read += (await stream.read_out()).data
        await stream.write_in(b"this\\n")
        read += (await stream.read_out()).data
    print(sorted(read.decode().split("\\n")))
    print((await container.wait())["StatusCode"])
    print([line async for line in container.log(stdout=True, follow=True)])
    actions = []
    while "die" not in actions:
        event = await told.get()
        if event["Actor"]["Attributes"].get("name") == NAME:
            actions.append(event["Action"])
    print(actions)
    await container.delete(force=True)
    await docker.close()

asyncio.run(main())
"""


def test_aiodocker_attaches_and_follows_events(bench: Bench) -> None:
    _needs("aiodocker")
    assert bench.python(AIODOCKER).splitlines() == [
        "['', 'got this', 'one', 'two']",
        "3",
        "['one\\n', 'got this\\n']",
        "['create', 'attach', 'start', 'die']",
    ]


WHALES = """
import os
from python_on_whales import DockerClient

NAME = os.environ["NAME"]
docker = DockerClient(host=os.environ["DOCKER_HOST"])
volume = docker.volume.create(NAME)
with docker.run("busybox", ["sleep", "100"], name=NAME, detach=True, volumes=[(volume, "/data")], labels={"a": "b"}) as box:
    print(box.state.status, box.config.labels["a"])
    print(box.execute(["sh", "-c", "echo kept > /data/file; cat /data/file"]))
    box.copy_from("/data/file", "file")
    print(open("file").read().strip())
    box.pause(); box.reload(); print(box.state.status); box.unpause()
    print([stats.container_name == NAME for stats in docker.stats([box])])
    box.kill()
print(docker.run("busybox", ["cat", "/data/file"], volumes=[(volume, "/data", "ro")], remove=True))
docker.volume.remove(volume)
print(docker.container.exists(NAME), docker.volume.exists(NAME))
"""


def test_python_on_whales_runs_copies_and_removes(bench: Bench) -> None:
    _needs("python_on_whales")
    assert bench.python(WHALES).splitlines() == [
        "running b",
        "kept",
        "kept",
        "paused",
        "[True]",
        "kept",
        "False False",
    ]


TESTCONTAINERS = """
import urllib.error, urllib.request
from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.waiting_utils import wait_for_logs

with Network() as network:
    page = (
        DockerContainer("busybox")
        .with_command("sh -c 'mkdir /w; echo baked > /w/index.html; echo ready; exec httpd -f -h /w -p 8080'")
        .with_exposed_ports(8080)
        .with_network(network)
        .with_network_aliases("oven")
    )
    with page:
        wait_for_logs(page, "ready", timeout=20)
        host, port = page.get_container_host_ip(), page.get_exposed_port(8080)
        print(urllib.request.urlopen(f"http://{host}:{port}/", timeout=10).read().decode().strip())
        print(page.exec("hostname").exit_code)
        other = DockerContainer("busybox").with_command("wget -q -O - http://oven:8080/").with_network(network)
        with other:
            wait_for_logs(other, "baked", timeout=20)
            print("baked" in other.get_logs()[0].decode())
"""


def test_testcontainers_starts_services_for_a_test(bench: Bench) -> None:
    _needs("testcontainers")
    printed = bench.python(
        TESTCONTAINERS,
        TESTCONTAINERS_RYUK_DISABLED="true",
        TESTCONTAINERS_HOST_OVERRIDE="127.0.0.1",
    )
    assert printed.splitlines() == ["baked", "0", "True"]


PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  connection: local
  vars:
    ansible_python_interpreter: "{{ python }}"
  tasks:
    - community.docker.docker_network: {name: "{{ name }}"}
    - community.docker.docker_volume: {name: "{{ name }}", labels: {kind: kept}}
    - &box
      community.docker.docker_container:
        name: "{{ name }}"
        image: busybox
        command: [sleep, "1000"]
        hostname: oven
        env: {A: "1"}
        labels: {a: b}
        memory: 64M
        networks: [{name: "{{ name }}", aliases: [shelf]}]
        networks_cli_compatible: true
        volumes: ["{{ name }}:/data"]
        restart_policy: unless-stopped
        healthcheck: {test: [CMD, "true"], interval: 1s}
    - <<: *box
      register: again
    - community.docker.docker_container_exec:
        container: "{{ name }}"
        command: cat /etc/hostname
      changed_when: false
      register: ran
    - ansible.builtin.assert: {that: ["ran.stdout == 'oven'", "not again.changed"]}
    - community.docker.docker_container: {name: "{{ name }}", state: absent, force_kill: true}
    - community.docker.docker_network: {name: "{{ name }}", state: absent}
    - community.docker.docker_volume: {name: "{{ name }}", state: absent}
"""


def test_ansible_makes_a_container_and_finds_it_as_it_was_asked_for(bench: Bench) -> None:
    _needs("ansible")
    if not (COLLECTIONS / "ansible_collections" / "community" / "docker").exists():
        pytest.skip("needs ansible's collection community.docker")
    (bench.directory / "playbook.yml").write_text(PLAYBOOK)
    told = bench.run(
        str(Path(sys.executable).with_name("ansible-playbook")),
        "--extra-vars",
        json.dumps({"name": bench.name, "python": sys.executable}),
        "playbook.yml",
        ANSIBLE_COLLECTIONS_PATH=str(COLLECTIONS),
        ANSIBLE_LOCALHOST_WARNING="False",
        ANSIBLE_INVENTORY_UNPARSED_WARNING="False",
    )
    assert re.search(r"changed=6 +unreachable=0 +failed=0", told), told

"""docker-py and the docker CLI against a daemon of our own: what clients ask, and what they are told."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import APIError

from tests.support.waiting import until

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/bin/busybox").exists() or not shutil.which("conmon"),
        reason="needs root, busybox-static and conmon",
    ),
]

LINKS = ("sh", "cat", "echo", "sleep", "true", "id", "stty")


def listens(path: Path) -> bool:
    """Whether somebody takes connections there; the socket has its name a moment earlier."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


@pytest.fixture(scope="module")
def daemon_socket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon with the image ``bb``; at the end without containers, so that it leaves nothing."""
    root = tmp_path_factory.mktemp("engine")
    path = root / "run/bakehouse.sock"
    arguments = ["--data-root", str(root / "data"), "--run-root", str(root / "run")]
    log = (root / "log").open("wb")
    daemon = subprocess.Popen(
        [sys.executable, "-m", "supervisor", *arguments], stderr=log, stdout=log
    )
    try:
        until(lambda: listens(path), (root / "log").read_text)
        client = docker.DockerClient(base_url=f"unix://{path}")
        client.api.import_image_from_data(_rootfs(), repository="bb", changes=['CMD ["sh"]'])
        yield str(path)
        for container in client.containers.list(all=True):
            container.remove(force=True)
        client.close()
        assert daemon.poll() is None, (root / "log").read_text()
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(30)
        log.close()


def _rootfs() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add("/bin/busybox", "bin/busybox")
        for name in LINKS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()


@pytest.fixture
def client(daemon_socket: str) -> Iterator[docker.DockerClient]:
    client = docker.DockerClient(base_url=f"unix://{daemon_socket}")
    yield client
    for container in client.containers.list(all=True):
        container.remove(force=True)
    client.close()


def test_run_says_what_it_printed(client: docker.DockerClient) -> None:
    assert client.containers.run("bb", ["echo", "hello"], remove=True) == b"hello\n"


def test_life_of_a_container(client: docker.DockerClient) -> None:
    container = client.containers.run(
        "bb", ["sleep", "100"], detach=True, name="web", mem_limit="64m", labels={"a": "b"},
        volumes={"data": {"bind": "/data", "mode": "rw"}}, ports={"80/tcp": ("127.0.0.1", None)},
    )  # fmt: skip
    container.reload()
    assert container.status == "running"
    assert container.attrs["HostConfig"]["Memory"] == 64 << 20
    assert container.ports["80/tcp"][0]["HostIp"] == "127.0.0.1"
    assert [each.name for each in client.containers.list(filters={"label": "a=b"})] == ["web"]
    assert container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 3"], demux=True) == (
        3,
        (b"out\n", b"err\n"),
    )
    assert container.top()["Processes"][0][-1] == "sleep 100"
    assert container.stats(stream=False)["memory_stats"]["usage"] > 0
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("web2")
    ended: list[dict[str, int]] = []
    waiting = threading.Thread(target=lambda: ended.append(client.containers.get("web2").wait()))
    waiting.start()
    time.sleep(0.2)
    container.kill()
    waiting.join()
    assert ended[0]["StatusCode"] == 137
    container.start()
    container.stop(timeout=0)
    container.reload()
    assert container.status == "exited"
    container.remove()


@pytest.mark.parametrize(
    ("status", "words", "ask"),
    [
        (404, "No such image: nope:latest", lambda c: c.containers.create("nope")),
        (404, "No such container: nope", lambda c: c.containers.get("nope")),
        (404, "No such image: nope:latest", lambda c: c.images.get("nope")),
        (404, "no such volume", lambda c: c.volumes.get("nope")),
        (404, "network nope not found", lambda c: c.networks.get("nope")),
        (400, "HostConfig.Binds", lambda c: c.containers.create("bb", volumes=["a:b"])),
        (403, "predefined bridge network", lambda c: c.networks.create("bridge")),
        (404, "reaches no registry", lambda c: c.images.pull("nope")),
    ],
)
def test_refusals(client: docker.DockerClient, status: int, words: str, ask: object) -> None:
    assert callable(ask)
    with pytest.raises(APIError) as caught:
        ask(client)
    assert caught.value.response.status_code == status
    assert words in caught.value.explanation


def test_names_and_states_conflict_in_dockers_words(client: docker.DockerClient) -> None:
    running = client.containers.run("bb", ["sleep", "100"], detach=True, name="web")
    with pytest.raises(
        APIError, match='The container name "/web" is already in use by container'
    ) as caught:
        client.containers.create("bb", name="web")
    assert caught.value.response.status_code == 409
    with pytest.raises(APIError, match="You cannot remove a running container") as caught:
        running.remove()
    assert caught.value.response.status_code == 409
    running.kill()
    with pytest.raises(APIError, match="is not running") as caught:
        running.kill()
    assert caught.value.response.status_code == 409
    with pytest.raises(APIError, match="is not running"):
        running.exec_run("true")


def test_logs_are_told_as_they_come(client: docker.DockerClient) -> None:
    container = client.containers.run(
        "bb", ["sh", "-c", "echo one; sleep 0.5; echo two >&2"], detach=True
    )
    assert list(container.logs(stream=True, follow=True)) == [b"one\n", b"two\n"]
    assert container.logs(stdout=False) == b"two\n"
    assert container.logs(tail=1) == b"two\n"
    assert container.logs(timestamps=True).startswith(b"20")


def test_attach_carries_both_ways(client: docker.DockerClient) -> None:
    container = client.containers.create("bb", ["cat"], stdin_open=True)
    attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    attached._sock.sendall(b"ping\n")
    attached._sock.settimeout(10)
    assert attached._sock.recv(100) == b"\x01\0\0\0\0\0\0\x05ping\n"
    attached._sock.close()
    attached.close()


def test_a_build_whose_client_leaves_is_cancelled(daemon_socket: str) -> None:
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        recipe = b"FROM bb\nRUN sleep 98765\n"
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(recipe)
        tar.addfile(info, io.BytesIO(recipe))
    body = context.getvalue()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(daemon_socket)
        connection.sendall(
            b"POST /build HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        until(lambda: _runs("98765"), "the step never ran")
    until(lambda: not _runs("98765"), "the step runs on")


def _runs(word: str) -> bool:
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if entry.read_bytes().split(b"\0")[:2] == [b"sleep", word.encode()]:
                return True
        except OSError:
            continue
    return False


def test_the_docker_command(daemon_socket: str, client: docker.DockerClient) -> None:
    if not shutil.which("docker"):
        pytest.skip("no docker command here")

    def run(*words: str, given: str = "") -> str:
        done = subprocess.run(
            ["docker", "-H", f"unix://{daemon_socket}", *words],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        assert not done.returncode, done.stderr
        return done.stdout

    assert "API version:      1.41" in run("version")
    assert run("run", "--rm", "-i", "bb", "cat", given="piped") == "piped"
    assert (
        run("run", "--rm", "--network", "none", "--tmpfs", "/t:size=1m", "bb", "echo", "x") == "x\n"
    )
    assert "bb" in run("images")
    assert "bridge" in run("network", "ls")
    assert "Server Version" in run("info")
    assert "Images" in run("system", "df")
    assert "container create" in run("events", "--since", "1", "--until", str(int(time.time()) + 1))

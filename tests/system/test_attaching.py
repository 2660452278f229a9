"""Several at one container's stdio: by hijacked connections and by websocket, with what was written before, and leaving."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import docker
import pytest
import trio
import trio_websocket
from docker.errors import APIError

from tests.support.accounts import People
from tests.support.asking import ask
from tests.support.daemon import Daemon

pytestmark = pytest.mark.root

ECHO = "echo ready; while read line; do echo got $line; echo err $line >&2; done; echo over"


@pytest.fixture(scope="module")
def client(daemon: Daemon, two_users: People) -> Iterator[docker.DockerClient]:
    daemon.import_busybox("bb")
    made = daemon.client()
    yield made
    made.close()


@pytest.fixture
def at(daemon: Daemon) -> Iterator[Callable[[str, str], At]]:
    """Clients who are at a container, for one test."""
    with contextlib.ExitStack() as clients:

        def attach(container: str, query: str) -> At:
            made = At(daemon, container, query)
            clients.callback(made.socket.close)
            return made

        yield attach


class At:
    """A hijacked connection at a container."""

    def __init__(self, daemon: Daemon, container: str, query: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(10)
        self.socket.connect(str(daemon.socket))
        head = f"POST /containers/{container}/attach?{query} HTTP/1.1\r\nHost: x\r\n"
        self.socket.sendall(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode())
        self.seen = b""
        self.until(b"\r\n\r\n")
        assert self.seen.startswith(b"HTTP/1.1 101")
        self.seen = self.seen.partition(b"\r\n\r\n")[2]

    def until(self, wanted: bytes) -> bytes:
        while wanted not in self.seen:
            data = self.socket.recv(65_536)
            assert data, f"ended with {self.seen!r} before {wanted!r}"
            self.seen += data
        return self.seen

    def to_the_end(self) -> bytes:
        while data := self.socket.recv(65_536):
            self.seen += data
        return self.seen


ALL = "stream=1&stdin=1&stdout=1&stderr=1"


def test_several_see_all_and_each_may_type(
    at: Callable[[str, str], At], client: docker.DockerClient
) -> None:
    container = client.containers.run("bb", ["sh", "-c", ECHO], stdin_open=True, detach=True)
    first, second = at(container.id, ALL), at(container.id, "stream=1&stdout=1")
    first.socket.sendall(b"a\n")
    for one in (first, second):
        one.until(b"\x01\0\0\0\0\0\0\x06got a\n")
    assert b"\x02\0\0\0\0\0\0\x06err a\n" in first.until(b"err a\n")
    third = at(container.id, f"{ALL}&logs=1")
    assert third.until(b"err a\n").count(b"got a\n") == 1
    third.socket.sendall(b"b\n")
    for one in (first, second, third):
        one.until(b"got b\n")
    first.socket.close()
    third.socket.sendall(b"c\n")
    second.until(b"got c\n")
    container.kill()
    assert b"err" not in second.to_the_end()
    whole = third.to_the_end()
    for line in (b"ready\n", b"got a\n", b"err a\n", b"got b\n", b"got c\n", b"err c\n"):
        assert whole.count(line) == 1


def test_input_ends_once_where_it_was_asked_for(
    daemon: Daemon, at: Callable[[str, str], At], client: docker.DockerClient
) -> None:
    config = {"Image": "bb", "Cmd": ["sh", "-c", ECHO], "OpenStdin": True}
    for over in (False, True):
        made = ask(daemon, "POST", "/containers/create", {**config, "StdinOnce": over}).json
        assert isinstance(made, dict)
        container = str(made["Id"])
        typing = at(container, ALL)
        client.api.start(container)
        typing.socket.sendall(b"x\n")
        typing.socket.shutdown(socket.SHUT_WR)
        typing.until(b"got x\n")
        if over:
            assert b"over" in typing.to_the_end()
        else:
            time.sleep(0.3)
            assert client.api.inspect_container(container)["State"]["Running"]
            client.api.kill(container)


def test_detach_keys_of_ones_own_leave_it_running(
    daemon: Daemon, at: Callable[[str, str], At], client: docker.DockerClient
) -> None:
    container = client.containers.run("bb", ["cat"], stdin_open=True, tty=True, detach=True)
    since = str(time.time())
    leaving = at(container.id, f"{ALL}&detachKeys=ctrl-a,d")
    leaving.socket.sendall(b"x\x10\x11\n")
    leaving.until(b"x")
    leaving.socket.sendall(b"\x01d")
    leaving.to_the_end()
    container.reload()
    assert container.status == "running"
    span = ("--since", since, "--until", str(time.time()), "--format", "{{.Action}}")
    assert daemon.docker("events", *span).stdout.split() == ["attach", "detach"]
    with pytest.raises(APIError, match="is no key"):
        client.api._raise_for_status(
            client.api._post(
                client.api._url("/containers/{0}/attach", container.id),
                params={"detachKeys": "ctrl-ab"},
            )
        )
    container.pause()
    refused = ask(daemon, "POST", f"/containers/{container.id}/attach?stream=1")
    assert (refused.status, "is paused" in refused.message) == (409, True)
    container.unpause()


async def test_by_websocket(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.run("bb", ["sh", "-c", ECHO], stdin_open=True, detach=True)
    for path, kind in (("/v1.41", bytes), ("/v1.27", str)):
        target = f"{path}/containers/{container.id}/attach/ws?stream=1&logs=1"
        with trio.fail_after(10):
            stream = await trio.open_unix_socket(str(daemon.socket))
            async with stream, trio.open_nursery() as nursery:
                websocket = await trio_websocket.wrap_client_stream(nursery, stream, "x", target)
                await websocket.send_message("typed\n")
                seen = b""
                while seen.count(b"typed\n") < (2 if kind is bytes else 4):
                    message = await websocket.get_message()
                    assert isinstance(message, kind)
                    seen += message.encode() if isinstance(message, str) else message
                assert seen.startswith(b"ready\n")
                await websocket.aclose()
                nursery.cancel_scope.cancel()
    container.reload()
    assert container.status == "running"
    plain = ask(daemon, "GET", f"/containers/{container.id}/attach/ws")
    assert plain.status == 400
    target = f"/containers/{container.id}/attach/ws?stream=1"
    with trio.fail_after(10):
        stream = await trio.open_unix_socket(str(daemon.socket))
        async with stream, trio.open_nursery() as nursery:
            websocket = await trio_websocket.wrap_client_stream(nursery, stream, "x", target)
            container.kill()
            with pytest.raises(trio_websocket.ConnectionClosed):
                await websocket.get_message()
            nursery.cancel_scope.cancel()


def test_an_execs_terminal_codes_and_events(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.run("bb", ["sleep", "100"], detach=True, name="host")
    since = str(time.time())
    run = ("exec", "-u", "www", "-w", "/tmp", "-e", "A=b c", "host", "sh", "-c")
    assert daemon.docker(*run, "id -u; pwd; echo $A; exit 5", check=False).returncode == 5
    assert daemon.docker(*run, "id -u; pwd; echo $A").stdout == "33\n/tmp\nb c\n"
    for words, code in ((["nope"], 127), (["/etc"], 126)):
        done = daemon.docker("exec", "host", *words, check=False)
        assert done.returncode == code
        assert "cannot execute in container host: exec: " in done.stderr
    made = client.api.exec_create(container.id, ["tty"], tty=True)
    framed = client.api.exec_start(made["Id"], tty=False)
    assert framed.startswith(b"/dev/pts/")
    shown = client.api.exec_inspect(made["Id"])
    assert (shown["Running"], shown["ExitCode"], shown["ProcessConfig"]["tty"]) == (False, 0, True)
    span = ("--since", since, "--until", str(time.time()), "--format", "{{.Action}}")
    told = daemon.docker("events", *span, "--filter", "event=exec_create").stdout.splitlines()
    assert told[-1] == "exec_create: tty"
    died = daemon.docker("events", *span, "--filter", "event=exec_die").stdout.splitlines()
    assert len(died) == 5
    container.pause()
    with pytest.raises(APIError, match="is paused, unpause the container before exec") as caught:
        container.exec_run("true")
    assert caught.value.response.status_code == 409
    container.unpause()
    container.kill()
    with pytest.raises(APIError, match="is not running") as caught:
        client.api.exec_create(container.id, "true")
    assert caught.value.response.status_code == 409

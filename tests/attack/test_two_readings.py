"""Requests that one reader takes for this and another for that: what policy judged is what is done, and nothing else is read
as a request. Asked by a real user, for what only an administrator may have.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import pytest

from tests.support.accounts import People, User, credentials
from tests.support.daemon import Daemon
from tests.support.operations import BUSYBOX

pytestmark = [pytest.mark.root, pytest.mark.slow]

PRIVILEGED = {"Image": BUSYBOX, "Cmd": ["true"], "HostConfig": {"Privileged": True}}
TEXT = json.dumps(PRIVILEGED).encode()
HARMLESS = json.dumps({"Image": BUSYBOX, "Cmd": ["true"]}).encode()
SAY = """
import socket, sys
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(20)
    client.connect(sys.argv[1])
    try:
        client.sendall(sys.stdin.buffer.read())
        client.shutdown(socket.SHUT_WR)
        while piece := client.recv(65536):
            sys.stdout.buffer.write(piece)
    except OSError:
        pass
"""


def post(path: str, *headers: str, body: bytes) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", *headers)
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def sized(body: bytes, path: str = "/v1.41/containers/create?name=evil") -> bytes:
    return post(path, f"Content-Length: {len(body)}", body=body)


def chunked(*pieces: bytes) -> bytes:
    path = "/v1.41/containers/create?name=evil"
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    return post(path, "Transfer-Encoding: chunked", body=body)


def said_twice(first: object, second: object, key: str = "HostConfig") -> bytes:
    pairs = (f'"{key}": {json.dumps(first)}', f'"HostConfig": {json.dumps(second)}')
    return f'{{"Image": "{BUSYBOX}", "Cmd": ["true"], {", ".join(pairs)}}}'.encode()


CREATE = "/v1.41/containers/create?name=evil"
REQUESTS = {
    "as it is": sized(TEXT),
    "in pieces": chunked(*(TEXT[at : at + 7] for at in range(0, len(TEXT), 7))),
    "of no length": post(CREATE, "Content-Length: 0", body=TEXT),
    "of no length, a harmless one behind": post(CREATE, "Content-Length: 0", body=sized(HARMLESS)),
    "behind one without a length": post(CREATE, body=TEXT),
    "of two lengths": post(CREATE, f"Content-Length: {len(TEXT)}", "Content-Length: 2", body=TEXT),
    "of a length and in pieces": post(
        CREATE, "Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + sized(TEXT)
    ),
    "in pieces of another coding": post(
        CREATE, "Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n" + sized(TEXT)
    ),
    "said twice, then harmless": sized(said_twice({"Privileged": True}, {})),
    "said twice, then not": sized(said_twice({}, {"Privileged": True})),
    "said in small letters": sized(TEXT.replace(b"HostConfig", b"hostconfig")),
    "said in both": sized(said_twice({"Privileged": True}, {}, key="hostConfig")),
    "said with escapes": sized(TEXT.replace(b"Privileged", b"\\u0050rivileged")),
    "with a mark before": sized(b"\xef\xbb\xbf" + TEXT),
    "in another encoding": sized(TEXT.decode().encode("utf-16")),
    "two values": sized(HARMLESS + TEXT),
    "after much air": sized(b" " * 100_000 + TEXT),
    "very deep": sized(b'{"HostConfig": ' + b'{"a":' * 50_000 + b"1" + b"}" * 50_001),
    "a list": sized(b"[" + TEXT + b"]"),
    "of an old version": sized(TEXT, "/v1.22/containers/create?name=evil"),
    "of no version": sized(TEXT, "/containers/create?name=evil"),
    "of a version too new": sized(TEXT, "/v9.99/containers/create?name=evil"),
    "of two versions": sized(TEXT, "/v1.41/v1.22/containers/create?name=evil"),
    "by a winding path": sized(TEXT, "/v1.41/images/../containers/create?name=evil"),
    "by doubled slashes": sized(TEXT, "/v1.41//containers//create?name=evil"),
    "by an escaped path": sized(TEXT, "/v1.41/containers/%63reate?name=evil"),
    "by a whole address": sized(TEXT, "http://x/v1.41/containers/create?name=evil"),
    "by another method": sized(TEXT).replace(b"POST", b"PUT", 1),
    "by an override": sized(TEXT).replace(b"Host: x", b"Host: x\r\nX-HTTP-Method-Override: POST"),
    "folded": sized(TEXT).replace(b"Content-Length: ", b"Content-Length:\r\n "),
    "bare line ends": sized(TEXT).replace(b"\r\n", b"\n"),
}


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    daemon.import_busybox(user=two_users.ada)
    return daemon


def say(daemon: Daemon, user: User, said: bytes, *before: str) -> bytes:
    """What comes back for bytes from a user's connection; ``before`` is put before the command that sends them."""
    done = subprocess.run(
        [*before, sys.executable, "-I", "-S", "-c", SAY, str(daemon.socket)],
        input=said,
        capture_output=True,
        check=False,
        **credentials(user),
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("how", REQUESTS)
def test_policy_judges_what_is_done(ready: Daemon, two_users: People, how: str) -> None:
    """However it is said: either it is refused, or what is made is nothing that policy would have refused."""
    ada = two_users.ada
    say(ready, ada, REQUESTS[how])
    shown = "{{.HostConfig.Privileged}} {{.HostConfig.CapAdd}}"
    made = ready.docker("inspect", "-f", shown, "evil", check=False)
    if made.returncode == 0:
        assert made.stdout == "false []\n"
        ready.docker("rm", "-f", "evil", user=ada)
    assert ready.docker("ps", "-q", user=ada).stdout == ""  # and it serves others


SMUGGLED = b"POST /v1.41/containers/victim/kill HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.parametrize("early", [False, True])
@pytest.mark.parametrize("kind", ["attach", "exec"])
def test_what_follows_an_upgrade_is_input(
    ready: Daemon, two_users: People, kind: str, early: bool
) -> None:
    """Never a request, be it in the same packet, later, or after the session has ended."""
    ada = two_users.ada
    ready.docker("run", "-d", "--name", "victim", "busybox", "sleep", "600", user=ada)
    ready.docker("run", "-d", "-i", "--name", "reader", "busybox", "cat", user=ada)
    try:
        asked = _upgrade(ready, ada, kind)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(str(ready.socket))
            client.sendall(asked + (SMUGGLED if early else b""))
            if not early:
                time.sleep(0.3)
                client.sendall(SMUGGLED)
            got = b""
            while SMUGGLED not in got:
                piece = client.recv(65_536)
                assert piece, got
                got += piece
            ready.docker("kill", "reader", user=ada)
            client.sendall(SMUGGLED)
            while piece := _received(client):
                got += piece
        assert got.count(b"HTTP/1.1 ") == 1  # the answer to the upgrade
        assert ready.docker("inspect", "-f", "{{.State.Running}}", "victim", user=ada).stdout == (
            "true\n"
        )
    finally:
        ready.docker("rm", "-f", "victim", "reader", user=ada)


def _received(client: socket.socket) -> bytes:
    try:
        return client.recv(65_536)
    except OSError:
        return b""


def _upgrade(daemon: Daemon, user: User, kind: str) -> bytes:
    upgrade = ("Connection: Upgrade", "Upgrade: tcp")
    if kind == "attach":
        path = "/v1.41/containers/reader/attach?stream=1&stdin=1&stdout=1"
        return post(path, *upgrade, "Content-Length: 0", body=b"")
    body = json.dumps({"Cmd": ["cat"], "AttachStdin": True, "AttachStdout": True}).encode()
    answer = say(daemon, user, sized(body, "/v1.41/containers/reader/exec"))
    exec_id = json.loads(answer.partition(b"\r\n\r\n")[2])["Id"]
    start = b'{"Detach": false, "Tty": false}'
    length = f"Content-Length: {len(start)}"
    return post(f"/v1.41/exec/{exec_id}/start", *upgrade, length, body=start)


def test_root_of_a_namespace_of_ones_own_is_oneself(ready: Daemon, two_users: People) -> None:
    """Who calls is told by the kernel in the host's ids, whatever the caller is called where it lives."""
    ask = b"GET /bakehouse/v1/whoami HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    outside = say(ready, two_users.ada, ask)
    inside = say(ready, two_users.ada, ask, "unshare", "--user", "--map-root-user")
    body = json.loads(inside.partition(b"\r\n\r\n")[2])
    assert body == json.loads(outside.partition(b"\r\n\r\n")[2])
    assert body["uid"] == two_users.ada.uid
    privileged = say(ready, two_users.ada, sized(TEXT), "unshare", "--user", "--map-root-user")
    assert privileged.startswith(b"HTTP/1.1 403")

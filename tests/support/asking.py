"""Requests made by hand, as a person of the host: what no client would send, and the status as it is on the wire."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import attrs

from tests.support.accounts import User, credentials
from tests.support.daemon import Daemon

_ASK = """
import socket, sys
path, seconds = sys.argv[1], float(sys.argv[2])
with socket.socket(socket.AF_UNIX) as client:
    client.settimeout(seconds)
    client.connect(path)
    client.sendall(sys.stdin.buffer.read())
    while piece := client.recv(1 << 20):
        sys.stdout.buffer.write(piece)
"""


@attrs.frozen
class Answer:
    """A status and what came with it."""

    status: int
    body: bytes

    @property
    def message(self) -> str:
        """What the daemon says of a refusal."""
        told: object = json.loads(self.body)["message"]
        return str(told)

    @property
    def json(self) -> object:
        return json.loads(self.body)


def ask(  # noqa: PLR0913
    daemon: Daemon,
    method: str,
    path: str,
    body: bytes | object = b"",
    *,
    user: User | None = None,
    kind: str = "application/json",
    seconds: float = 30.0,
) -> Answer:
    """The answer to one request of ``user`` (root without one); a body that is not bytes goes as JSON.

    Raises:
        ConnectionError: The daemon went away before it answered.
    """
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = (
        f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        f"Content-Type: {kind}\r\nContent-Length: {len(data)}\r\n\r\n"
    )
    request = head.encode() + data
    got = _as_user(daemon, user, request, seconds) if user else _here(daemon, request, seconds)
    assert got.startswith(b"HTTP/1.1 "), got
    told, _, rest = got.partition(b"\r\n\r\n")
    chunked = b"transfer-encoding: chunked" in told.lower()
    return Answer(int(told.split()[1]), _joined(rest) if chunked else rest)


def _here(daemon: Daemon, request: bytes, seconds: float) -> bytes:
    pieces = []
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(seconds)
        client.connect(str(daemon.socket))
        client.sendall(request)
        while piece := client.recv(1 << 20):
            pieces.append(piece)
    if not pieces:
        raise ConnectionResetError("no answer")
    return b"".join(pieces)


def _as_user(daemon: Daemon, user: User, request: bytes, seconds: float) -> bytes:
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _ASK, str(daemon.socket), str(seconds)],
        input=request,
        capture_output=True,
        check=False,
        **credentials(user),
        cwd="/",
    )
    if not done.stdout:
        raise ConnectionResetError(f"no answer: {done.stderr.decode()}")
    return done.stdout


def _joined(chunks: bytes) -> bytes:
    whole = b""
    while chunks:
        size, _, chunks = chunks.partition(b"\r\n")
        length = int(size, 16)
        whole, chunks = whole + chunks[:length], chunks[length + 2 :]
        if not length:
            break
    return whole

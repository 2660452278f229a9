"""A crowd of real accounts, and lines to the daemon that the kernel takes for theirs."""

from __future__ import annotations

import http.client
import json
import os
import pwd
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from tests.support.accounts import User
from tests.support.asking import Answer


@contextmanager
def crowd(group: str, count: int) -> Iterator[tuple[User, ...]]:
    """``count`` accounts that are members of ``group``, without homes; they go at the end."""
    tag = uuid.uuid4().hex[:6]
    names = [f"bh{tag}{number:03}" for number in range(count)]
    made: list[str] = []
    try:
        for name in names:
            _run("useradd", "--no-create-home", "--no-log-init", "--user-group", name)
            made.append(name)
            _run("usermod", "--append", "--groups", group, name)
        yield tuple(_user(name) for name in names)
    finally:
        for name in made:
            _run("userdel", name)


def _user(name: str) -> User:
    entry = pwd.getpwnam(name)
    groups = tuple(sorted(os.getgrouplist(name, entry.pw_gid)))
    return User(name, entry.pw_uid, entry.pw_gid, groups, Path("/"))


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    assert done.returncode == 0, f"{argv[0]}: {done.stderr}"


@attrs.define
class Line:
    """A connection that was made by ``user``, kept for many requests."""

    user: User
    path: str
    _http: http.client.HTTPConnection | None = None

    def ask(self, method: str, path: str, body: bytes | object = b"") -> Answer:
        """The answer to one request; a body that is not bytes goes as JSON.

        Raises:
            OSError, http.client.HTTPException: The daemon went away.
        """
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        if self._http is None:
            self._http = http.client.HTTPConnection("bakehouse", timeout=60)
            self._http.sock = connected(self.path, self.user)
        self._http.request(method, path, data, {"Content-Type": kind})
        answer = self._http.getresponse()
        told = Answer(answer.status, answer.read())
        if answer.will_close:
            self.close()
        return told

    def close(self) -> None:
        """Hang up; the next request makes a connection anew."""
        if self._http is not None:
            self._http.close()
            self._http = None


def connected(path: str, user: User) -> socket.socket:
    """A socket that a process of ``user`` connected to ``path`` and handed over."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = os.fork()
        if child == 0:
            try:
                _connect_and_send(path, user, theirs)
            finally:
                os._exit(0)
        theirs.close()
        told, fds, _, _ = socket.recv_fds(ours, 100, 1)
        os.waitpid(child, 0)
    if not fds:
        raise ConnectionError(told.decode())
    return socket.socket(fileno=fds[0])


def _connect_and_send(path: str, user: User, to: socket.socket) -> None:
    os.setgroups(user.groups)
    os.setresgid(user.gid, user.gid, user.gid)
    os.setresuid(user.uid, user.uid, user.uid)
    with socket.socket(socket.AF_UNIX) as made:
        try:
            made.connect(path)
        except OSError as error:
            to.send(str(error).encode())
        else:
            socket.send_fds(to, [b"0"], [made.fileno()])

"""Daemons without the wait for their imports: a process that has everything loaded, and forks one when it is asked to.

For tests that start hundreds of them. What is forked is single-threaded and runs ``supervisor.__main__.main`` as any other
daemon does; it is killed and waited for as if it were a child of ours.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import attrs

from supervisor.__main__ import main

REPOSITORY = Path(__file__).parents[2]


@attrs.define
class Forked:
    """One daemon; what :class:`subprocess.Popen` would be."""

    zygote: Zygote
    pid: int
    returncode: int | None = None

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        self.zygote.listen(0)
        self.returncode = self.zygote.codes.get(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired("bakehoused", timeout or 0)
            self.zygote.listen(left)
        assert self.returncode is not None
        return self.returncode


class Zygote:
    """The process, and what it has told."""

    def __init__(self) -> None:
        self.codes: dict[int, int] = {}
        self._forked: list[int] = []
        self._unread = b""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=REPOSITORY,
        )

    def fork(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> Forked:
        """A daemon with these arguments."""
        assert self._process.stdin is not None
        asked = {"words": list(words), "environment": dict(environment), "log": str(log)}
        self._process.stdin.write(json.dumps(asked).encode() + b"\n")
        self._process.stdin.flush()
        while not self._forked:
            self.listen(None)
        return Forked(self, self._forked.pop())

    def listen(self, seconds: float | None) -> None:
        """Take in what it tells, waiting for it no longer than this."""
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            return
        told = os.read(self._process.stdout.fileno(), 4_096)
        assert told, "the zygote ended"
        *lines, self._unread = (self._unread + told).split(b"\n")
        for line in lines:
            pid, _, code = line.decode().partition(" ")
            if code:
                self.codes[int(pid)] = int(code)
            else:
                self.codes.pop(int(pid), None)  # of one long gone, whose number came round again
                self._forked.append(int(pid))

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def serve() -> None:
    """Be the zygote: tell the pid of each that was forked, and of each that has ended its pid and exit code."""
    importlib.import_module("supervisor.daemon")
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    while True:
        readable, _, _ = select.select([sys.stdin, woken], [], [])
        if woken in readable:
            os.read(woken, 4_096)
        while ended := _ended():
            print(*ended, flush=True)
        if sys.stdin in readable:
            line = sys.stdin.buffer.readline()
            if not line:
                return
            pid = os.fork()
            if not pid:
                os._exit(_become(json.loads(line)))
            print(pid, flush=True)


def _ended() -> tuple[int, int] | None:
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status)) if pid else None


def _become(asked: Mapping[str, object]) -> int:
    words, environment = asked["words"], asked["environment"]
    assert isinstance(words, list)
    assert isinstance(environment, dict)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    log: BinaryIO
    with Path("/dev/null").open("rb") as nothing, Path(str(asked["log"])).open("ab") as log:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    return main(words)


if __name__ == "__main__":
    serve()

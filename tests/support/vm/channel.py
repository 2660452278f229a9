"""The host's end of the agent's port: many commands at a time, read when somebody waits for one of them."""

from __future__ import annotations

import base64
import itertools
import json
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import attrs


class SilentMachineError(Exception):
    """The machine said nothing of what was waited for, in time or ever."""


@attrs.define(eq=False)
class Running:
    """A command in the machine.

    Attributes:
        shell: What it is.
        code: Its exit code, once it has ended; negative for a signal.
    """

    channel: Channel
    number: int
    shell: str
    stdout: bytearray = attrs.field(factory=bytearray)
    stderr: bytearray = attrs.field(factory=bytearray)
    code: int | None = None

    def wait(self, seconds: float) -> int:
        """Wait for its end; its exit code."""
        self.channel.until(lambda: self.code is not None, seconds, f"the end of {self.shell!r}")
        assert self.code is not None
        return self.code

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Wait until ``text`` stands in its output."""
        wanted = text.encode()
        self.channel.until(
            lambda: wanted in self.stdout or wanted in self.stderr or self.code is not None,
            seconds,
            f"{text!r} from {self.shell!r}",
        )
        assert wanted in self.stdout or wanted in self.stderr, (
            f"{self.shell!r} ended with {self.code} and never said {text!r}:\n{self.said()}"
        )

    def signal(self, number: int) -> None:
        """Send a signal to it and what it started."""
        self.channel.send(type="signal", id=self.number, signal=number)

    def said(self) -> str:
        """All of its output, for a person."""
        return (bytes(self.stdout) + bytes(self.stderr)).decode(errors="replace")


@attrs.define(eq=False)
class Channel:
    """The port, and what is known from it.

    Attributes:
        boots: The kernel's names of the boots that the agent has told, the latest last.
        awake: What the agent answered to the last waking: a fault, or nothing.
    """

    port: socket.socket
    boots: list[str] = attrs.field(factory=list)
    awake: str | None = None
    _rest: bytes = b""
    _commands: dict[int, Running] = attrs.field(factory=dict)
    _numbers: itertools.count[int] = attrs.field(factory=itertools.count)

    def send(self, **message: object) -> None:
        """Send one message."""
        self.port.sendall(json.dumps(message).encode() + b"\n")

    def start(self, shell: str, user: str, variables: dict[str, str], input_: bytes) -> Running:
        """Have a command started."""
        running = Running(self, next(self._numbers), shell)
        self._commands[running.number] = running
        data = base64.b64encode(input_).decode()
        self.send(
            type="run", id=running.number, shell=shell, user=user, variables=variables, input=data
        )
        return running

    def wake(self, seconds: float) -> None:
        """Tell it the time, and let it mount the checkout."""
        self.awake = None
        self.send(type="wake", now=time.time())
        self.until(lambda: self.awake is not None, seconds, "its waking")
        if self.awake:
            raise SilentMachineError(f"cannot wake the machine: {self.awake}")

    def until(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Read until ``holds``.

        Raises:
            SilentMachineError: It did not come to hold in time, or the machine has ended.
        """
        end = time.monotonic() + seconds
        while not holds():
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.port], [], [], left)[0]:
                raise SilentMachineError(f"waited {seconds:.0f} s in vain for {what}")
            data = self.port.recv(1 << 18)
            if not data:
                raise SilentMachineError(f"the machine has ended; waited for {what}")
            *lines, self._rest = (self._rest + data).split(b"\n")
            for line in lines:
                self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            message: dict[str, Any] = json.loads(line)
        except ValueError:
            return  # the rest of a line that a reboot cut off
        if message["type"] == "up":
            self.boots.append(message["boot"])
            self._commands.clear()
        elif message["type"] == "awake":
            self.awake = message["error"]
        elif running := self._commands.get(message["id"]):
            if message["type"] == "end":
                running.code = message["code"]
                del self._commands[running.number]
            else:
                said = running.stdout if message["stream"] == "stdout" else running.stderr
                said += base64.b64decode(message["data"])

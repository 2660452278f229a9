"""A virtual machine as a test uses it: run commands in it, reboot it, cut its power."""

from __future__ import annotations

import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

import attrs

from tests.support.vm.channel import Channel, Running, SilentMachineError
from tests.support.vm.qemu import Qemu

BOOT_SECONDS = 900.0
RUN_SECONDS = 300.0
WAKE_SECONDS = 300.0
CHECKOUT = "/srv/bakehouse"
WHEELS = "/srv/wheels"
SOCKET = "/run/bakehouse/bakehouse.sock"
# A shell that a person has prepared as the README says; and pip, which finds everything on the disk.
VARIABLES = {
    "DOCKER_HOST": f"unix://{SOCKET}",
    "DOCKER_BUILDKIT": "0",
    "PIP_NO_INDEX": "1",
    "PIP_FIND_LINKS": WHEELS,
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


@attrs.define(eq=False)
class Machine:
    """A running virtual machine.

    Attributes:
        qemu: Its process.
        channel: The way to the agent in it.
    """

    qemu: Qemu
    channel: Channel

    @property
    def console(self) -> Path:
        """The log of its console, for whoever has to find out."""
        return self.qemu.console

    def run(
        self,
        shell: str,
        user: str = "root",
        *,
        check: bool = True,
        input_: bytes = b"",
        seconds: float = RUN_SECONDS,
        **variables: str,
    ) -> subprocess.CompletedProcess[str]:
        """Run a line of bash as ``user`` in the user's home, to its end; what it said, as text.

        A command that takes longer than ``seconds`` is killed.
        """
        running = self.start(shell, user, input_=input_, **variables)
        try:
            code = running.wait(seconds)
        except SilentMachineError as error:
            running.signal(signal.SIGKILL)
            raise AssertionError(f"{error}; it said:\n{running.said()}\n{self._where()}") from error
        if check and code:
            raise AssertionError(f"{shell!r} as {user} ended with {code}:\n{running.said()}")
        out, err = (
            bytes(data).decode(errors="replace") for data in (running.stdout, running.stderr)
        )
        return subprocess.CompletedProcess(shell, code, out, err)

    def start(
        self, shell: str, user: str = "root", *, input_: bytes = b"", **variables: str
    ) -> Running:
        """Start a line of bash and go on; whoever wants its end waits for it."""
        return self.channel.start(shell, user, {**VARIABLES, **variables}, input_)

    def read(self, path: str) -> str:
        """The text of a file in it."""
        return self.run(f"cat {shlex.quote(path)}").stdout

    def write(self, path: str, data: bytes, mode: int = 0o644) -> None:
        """Write a file in it; its directory is made where it is not there."""
        quoted = shlex.quote(path)
        self.run(
            f'mkdir -p "$(dirname {quoted})" && cat >{quoted} && chmod {mode:o} {quoted}',
            input_=data,
        )

    def eventually(self, shell: str, user: str = "root", *, seconds: float = 60) -> str:
        """Try a line of bash until it succeeds; its output."""
        again = (
            f"for i in {{1..{int(seconds * 4)}}}; do ({shell}) && exit; sleep 0.25; done; exit 1"
        )
        return self.run(again, user, seconds=seconds * 2 + 60).stdout

    def reboot(self) -> None:
        """Reboot as an administrator would, and wait until it is up again."""
        self._boot(lambda: self.start("systemctl reboot"))

    def cut_power(self) -> None:
        """Reset it as if its power had gone for a moment, and wait until it is up again."""
        self._boot(lambda: self.qemu.monitor("system_reset"))

    def _boot(self, begin: Callable[[], object]) -> None:
        known = len(self.channel.boots)
        begin()
        self.channel.until(lambda: len(self.channel.boots) > known, BOOT_SECONDS, "its boot")
        self.channel.wake(WAKE_SECONDS)

    def _where(self) -> str:
        return f"the machine's console is in {self.console}"

    def close(self) -> None:
        """End it: nothing of it stays but the log of its console."""
        self.qemu.close()

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

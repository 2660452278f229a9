"""One qemu process: software emulation, two disks, one port for the agent, one for its own monitor.

It leaves nothing on the host's disk but its console's log: what the guest writes goes to files without a name, both ports
are socket pairs that it is given open, and it dies with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.support.vm.recipe import KERNEL_LINE, MEMORY_MEGABYTES, PROCESSORS

MIGRATE_SECONDS = 600.0
END_SECONDS = 120.0


@attrs.frozen
class Disks:
    """What a machine is made of on disk.

    Attributes:
        boot: The directory with the kernel and its first file system.
        system: Its root, raw or qcow2.
        checkout: The disk that is mounted below /srv.
        memory: The file that is, or begins as, its memory.
        keep: Whether what the guest writes to memory and root stays; otherwise it is forgotten at the end.
    """

    boot: Path
    system: Path
    checkout: Path
    memory: Path
    keep: bool

    def arguments(self) -> list[str]:
        """As qemu is told."""
        kind = "qcow2" if self.system.suffix == ".qcow2" else "raw"
        forget = "off" if self.keep else "on"
        share = "on" if self.keep else "off"
        return [
            *(
                "-kernel",
                f"{self.boot}/vmlinuz",
                "-initrd",
                f"{self.boot}/initrd",
                "-append",
                KERNEL_LINE,
            ),
            "-object",
            f"memory-backend-file,id=ram,size={MEMORY_MEGABYTES}M,mem-path={self.memory},share={share}",
            "-drive",
            f"file={self.system},if=none,id=system,format={kind},cache=unsafe,snapshot={forget}",
            *("-device", "virtio-blk-pci,drive=system"),
            "-drive",
            f"file={self.checkout},if=none,id=checkout,format=raw,cache=unsafe,snapshot=on",
            *("-device", "virtio-blk-pci,drive=checkout"),
        ]


class Monitor:
    """qemu's own protocol, one command at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.settimeout(END_SECONDS)
        self._file = connection.makefile("rw")
        self._file.readline()
        self("qmp_capabilities")

    def __call__(self, command: str, **arguments: object) -> dict[str, Any]:
        """Have a command done; its answer."""
        self._file.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._file.flush()
        while line := self._file.readline():
            message: dict[str, dict[str, Any]] = json.loads(line)
            if "error" in message:
                raise RuntimeError(f"cannot {command}: {message['error']['desc']}")
            if "return" in message:
                return message["return"]
        raise RuntimeError(f"cannot {command}: qemu has ended")

    def migrated(self) -> None:
        """Wait until a state has been written or read."""
        until = time.monotonic() + MIGRATE_SECONDS
        while (state := self("query-migrate").get("status")) != "completed":
            if state == "failed" or time.monotonic() > until:
                raise RuntimeError(f"cannot migrate the machine's state: {state}")
            time.sleep(0.01)

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._connection.close()


@attrs.define(eq=False)
class Qemu:
    """A running machine.

    Attributes:
        process: qemu.
        monitor: Its monitor.
        port: The agent's port, ours.
        console: The log of its serial console.
    """

    process: subprocess.Popen[bytes]
    monitor: Monitor
    port: socket.socket
    console: Path

    def save(self, state: Path) -> None:
        """Stop it and write what is not memory or disk to ``state``; its memory and disk are files already."""
        self.monitor("stop")
        self._ignore_memory()
        self.monitor("migrate", uri=f"exec:cat >{state}")
        self.monitor.migrated()

    def load(self, state: Path) -> None:
        """Take up what :meth:`save` wrote, and go on from there."""
        self._ignore_memory()
        self.monitor("migrate-incoming", uri=f"exec:cat {state}")
        self.monitor.migrated()
        self.monitor("cont")

    def _ignore_memory(self) -> None:
        wanted = [{"capability": "x-ignore-shared", "state": True}]
        self.monitor("migrate-set-capabilities", capabilities=wanted)

    def quit(self) -> None:
        """End it, with its files written."""
        self.monitor("quit")
        self.process.wait(END_SECONDS)
        self.close()

    def close(self) -> None:
        """End it as if its power were cut."""
        self.process.kill()
        self.process.wait()
        self.monitor.close()
        self.port.close()


def start(disks: Disks, console: Path, *, waits_for_state: bool = False) -> Qemu:
    """Start a machine, booting or waiting for a state to take up.

    Raises:
        RuntimeError: It did not come up; says where its console's log is.
    """
    console.parent.mkdir(parents=True, exist_ok=True)
    with _pair() as (monitor, its_monitor), _pair() as (port, its_port):
        given = (its_monitor.fileno(), its_port.fileno())
        argv = [
            *("setpriv", "--pdeathsig", "KILL", "--", "qemu-system-x86_64"),
            *("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max", "-smp", str(PROCESSORS)),
            *("-machine", "q35,memory-backend=ram", "-m", str(MEMORY_MEGABYTES)),
            *("-display", "none", "-nodefaults", "-no-user-config"),
            *(
                "-chardev",
                f"file,id=console,path={console},append=on",
                "-serial",
                "chardev:console",
            ),
            *disks.arguments(),
            *("-device", "virtio-serial-pci", "-chardev", f"socket,id=agent,fd={given[1]}"),
            *("-device", "virtserialport,chardev=agent,name=tests.agent"),
            *(
                "-chardev",
                f"socket,id=monitor,fd={given[0]}",
                "-mon",
                "chardev=monitor,mode=control",
            ),
            *("-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net"),
            *("-device", "virtio-rng-pci"),
            *(("-incoming", "defer") if waits_for_state else ()),
        ]
        with console.open("wb") as output:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, pass_fds=given
            )
        its_monitor.close()
        its_port.close()
        try:
            return Qemu(process, Monitor(monitor), port, console)
        except (OSError, RuntimeError, ValueError) as error:
            process.kill()
            process.wait()
            raise RuntimeError(f"cannot start qemu: {console.read_text() or error}") from error


@contextlib.contextmanager
def _pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends, closed again when what they are for does not come to be."""
    pair = socket.socketpair()
    try:
        yield pair
    except BaseException:
        for end in pair:
            end.close()
        raise

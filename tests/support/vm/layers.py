"""Snapshots to start from: a machine that has booted, and one where Bakehouse has been installed as well.

Each is a disk that says what is different from the one below, the memory as a file, and the state of the processors and
devices. A test's machine maps the memory privately and takes up the state: nothing is read that it does not use, and
nothing that it does is kept.
"""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.support.vm import disks
from tests.support.vm.cache import REPOSITORY, Entry, digest
from tests.support.vm.channel import Channel
from tests.support.vm.machine import BOOT_SECONDS, WAKE_SECONDS, Machine
from tests.support.vm.qemu import Disks, start
from tests.support.vm.recipe import recipe, run

CONSOLES = REPOSITORY / "var" / "log" / "vm"
QEMU = Path(__file__).with_name("qemu.py")


def booted() -> Entry:
    """A machine whose boot has come to its end."""
    made_of = recipe(REPOSITORY)
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=True)

    def make(directory: Path) -> None:
        base = disks.image(made_of)
        with base.used() as image, disks.checkout().used() as checkout:
            system = directory / "system.qcow2"
            backing = ["-F", "raw", "-b", f"../{image.name}/system.img"]
            run(
                ["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(system)],
                directory / "log",
            )
            placed = Disks(image, system, checkout / "disk.img", directory / "memory", keep=True)
            (directory / "image").write_text(base.key)
            qemu = start(placed, _console("boot"))
            machine = Machine(qemu, Channel(qemu.port))
            _finish(machine, directory, lambda: _booted(machine))

    key = digest(made_of.key, version.stdout.decode(), QEMU.read_text())
    return Entry("booted", key).made(make)


def _booted(machine: Machine) -> None:
    machine.channel.until(lambda: bool(machine.channel.boots), BOOT_SECONDS, "its boot")
    machine.run("systemctl is-system-running --wait || systemctl --failed", seconds=BOOT_SECONDS)


def _finish(machine: Machine, directory: Path, prepare: Callable[[], None]) -> None:
    """Bring a machine to where others begin, and write down its state."""
    try:
        prepare()
        machine.run("sync; echo 3 >/proc/sys/vm/drop_caches")
        machine.qemu.save(directory / "state")
        machine.qemu.quit()
    except BaseException as error:
        machine.close()
        error.add_note(f"the machine's console is in {machine.console}")
        raise
    machine.console.unlink()


@cache
def current() -> Entry:
    """The snapshot of a booted machine, once for this run."""
    return booted()


@cache
def checkout() -> Entry:
    """The disk with the checkout, once for this run."""
    return disks.checkout()


def restore(layer: Entry, name: str) -> Machine:
    """A machine that goes on from ``layer``, with the checkout mounted; ``name`` is its console's."""
    with layer.used() as snapshot, checkout().used() as brought:
        boot = Entry("image", (snapshot / "image").read_text()).path
        system, memory = snapshot / "system.qcow2", snapshot / "memory"
        placed = Disks(boot, system, brought / "disk.img", memory, keep=False)
        return _resumed(placed, snapshot / "state", name)


def _resumed(placed: Disks, state: Path, name: str) -> Machine:
    qemu = start(placed, _console(name), waits_for_state=True)
    machine = Machine(qemu, Channel(qemu.port))
    try:
        qemu.load(state)
        machine.channel.wake(WAKE_SECONDS)
    except BaseException as error:
        machine.close()
        error.add_note(f"the machine's console is in {machine.console}")
        raise
    return machine


def _console(name: str) -> Path:
    return CONSOLES / f"{name}-{uuid.uuid4().hex[:6]}.log"

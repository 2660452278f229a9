"""Snapshots to start from: a machine that has booted, and one where Bakehouse has been installed as well.

Each is a disk that says what is different from the one below, the memory as a file, and the state of the processors and
devices. A test's machine maps the memory privately and takes up the state: nothing is read that it does not use, and
nothing that it does is kept.
"""

from __future__ import annotations

import shutil
import subprocess
import uuid
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.support.daemon import busybox_tar
from tests.support.vm import disks
from tests.support.vm.cache import REPOSITORY, Entry, digest
from tests.support.vm.channel import Channel
from tests.support.vm.machine import BOOT_SECONDS, CHECKOUT, WAKE_SECONDS, WHEELS, Machine
from tests.support.vm.qemu import Disks, start
from tests.support.vm.recipe import recipe, run

CONSOLES = REPOSITORY / "var" / "log" / "vm"
INSTALL_SECONDS = 1_800.0
MEMBERS = ("ada", "bob")
LATER = "/srv/later"
QEMU = Path(__file__).with_name("qemu.py")


@cache
def booted() -> Entry:
    """A machine whose boot has come to its end."""
    image = disks.image(recipe(REPOSITORY))
    version = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, check=True)

    def make(directory: Path) -> None:
        with image.used() as boot, checkout().used() as brought:
            system = _overlay(directory, boot / "system.img")
            (directory / "image").write_text(image.key)
            disk, memory = brought / "disk.img", directory / "memory"
            qemu = start(Disks(boot, system, disk, memory, keep=True), _console("boot"))
            machine = Machine(qemu, Channel(qemu.port))
            _finish(machine, directory, _wait_for_boot)

    key = digest(image.identity, version.stdout.decode(), QEMU.read_text())
    return Entry("booted", key).made(make)


@cache
def installed() -> Entry:
    """A machine where Bakehouse is installed from this checkout and runs, two people may use it, and there is an image."""
    base, releases = booted(), disks.releases(recipe(REPOSITORY))

    def make(directory: Path) -> None:
        with base.used() as below, releases.used() as brought:
            system = _overlay(directory, below / "system.qcow2")
            memory = directory / "memory"
            run(["cp", "--sparse=always", str(below / "memory"), str(memory)], directory / "log")
            shutil.copy(below / "image", directory)
            boot = Entry("image", (below / "image").read_text()).path
            placed = Disks(boot, system, brought / "disk.img", memory, keep=True)
            _finish(_resumed(placed, below / "state", "install"), directory, _install)

    key = digest(base.identity, releases.identity, Path(__file__).read_text())
    return Entry("installed", key).made(make)


@cache
def checkout() -> Entry:
    """The disk with the checkout."""
    return disks.checkout()


def _overlay(directory: Path, below: Path) -> Path:
    """A disk that holds what differs from the one ``below``."""
    system = directory / "system.qcow2"
    kind = "qcow2" if below.suffix == ".qcow2" else "raw"
    backing = ["-F", kind, "-b", f"../{below.parent.name}/{below.name}"]
    run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(system)], directory / "log")
    return system


def _wait_for_boot(machine: Machine) -> None:
    machine.channel.until(lambda: bool(machine.channel.boots), BOOT_SECONDS, "its boot")
    machine.run("systemctl is-system-running --wait || systemctl --failed", seconds=BOOT_SECONDS)


def _install(machine: Machine) -> None:
    """As an administrator would, but with the release made before: deploy/install finds that it is there."""
    copy = "mkdir -p /opt/bakehouse && cp -a /srv/opt /opt/bakehouse/releases"
    machine.run(copy, seconds=INSTALL_SECONDS)
    machine.run(f"{CHECKOUT}/deploy/install --wheels {WHEELS}", seconds=INSTALL_SECONDS)
    for user in MEMBERS:
        machine.run(f"usermod --append --groups bakehouse {user}")
    start = "systemctl start bakehouse || (journalctl -b -u bakehouse; false)"
    machine.run(start, seconds=INSTALL_SECONDS)
    machine.run("docker import - busybox", input_=busybox_tar())
    machine.run("bakehouse image publish busybox:latest")
    machine.run("umount /srv")


def _finish(machine: Machine, directory: Path, prepare: Callable[[Machine], None]) -> None:
    """Bring a machine to where others begin, and write down its state."""
    try:
        prepare(machine)
        machine.run("sync; echo 3 >/proc/sys/vm/drop_caches")
        machine.qemu.save(directory / "state")
        machine.qemu.quit()
    except BaseException as error:
        machine.close()
        error.add_note(f"the machine's console is in {machine.console}")
        raise
    machine.console.unlink()


def restore(layer: Entry, name: str) -> Machine:
    """A machine that goes on from ``layer``, with the checkout mounted; ``name`` is its console's.

    Beside the checkout of an installed machine are the releases that were made of it.
    """
    disk = checkout() if layer.kind == "booted" else disks.releases(recipe(REPOSITORY))
    with layer.used() as snapshot, disk.used() as brought:
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

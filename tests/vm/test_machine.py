"""The machine itself: what the tests here rely on."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.support.vm.cache import REPOSITORY
from tests.support.vm.machine import CHECKOUT, Machine


@pytest.mark.vm_core
def test_commands_run_as_whom_they_are_asked_for(bare_module_machine: Machine) -> None:
    machine = bare_module_machine
    assert machine.run("id -un; pwd", user="ada").stdout == "ada\n/home/ada\n"
    assert machine.run("id -u").stdout == "0\n"
    done = machine.run("cat; echo no >&2; exit 3", check=False, input_=b"fed", WORD="x")
    assert (done.returncode, done.stdout, done.stderr) == (3, "fed", "no\n")
    assert machine.run("kill -9 $$", check=False).returncode == -9
    assert machine.run("echo $WORD", WORD="given").stdout == "given\n"
    with pytest.raises(AssertionError, match=r"ended with 4:\nalas"):
        machine.run("echo alas; exit 4")


@pytest.mark.vm_core
def test_commands_run_side_by_side_and_are_cut_off(bare_module_machine: Machine) -> None:
    machine = bare_module_machine
    follower = machine.start(
        "for i in 1 2 3; do read line; echo got $line; sleep 0.2; done; sleep 60"
    )
    other = machine.start("sleep 60")
    follower.wait_for("got")
    assert machine.run("echo meanwhile").stdout == "meanwhile\n"
    for running in (follower, other):
        running.signal(signal.SIGTERM)
        assert running.wait(300) == -signal.SIGTERM
    # What is left in the background does not hold the command.
    machine.run("sleep 1000 & echo $!", seconds=300)
    with pytest.raises(AssertionError, match="in vain"):
        machine.run("echo begun; sleep 1000", seconds=3)


@pytest.mark.vm_core
def test_it_is_a_host_as_people_have_them(bare_module_machine: Machine) -> None:
    machine = bare_module_machine
    assert machine.run("stat -f -c %T /sys/fs/cgroup").stdout == "cgroup2fs\n"
    assert set(machine.read("/sys/fs/cgroup/cgroup.controllers").split()) >= {
        *("cpu", "cpuset", "io", "memory", "pids")
    }
    assert machine.read("/proc/pressure/cpu").startswith("some")
    assert machine.read("/proc/1/comm") == "systemd\n"
    assert machine.run("systemctl is-system-running", check=False).stdout == "running\n"
    assert machine.read(f"{CHECKOUT}/pyproject.toml") == (REPOSITORY / "pyproject.toml").read_text()
    assert abs(float(machine.run("date +%s").stdout) - time.time()) < 30


def test_it_reboots_and_keeps_its_disk(bare_machine: Machine) -> None:
    machine = bare_machine
    machine.write("/root/kept/file", b"kept", mode=0o600)
    first = machine.read("/proc/sys/kernel/random/boot_id")
    machine.reboot()
    second = machine.read("/proc/sys/kernel/random/boot_id")
    machine.run("sync")
    machine.cut_power()
    assert len({first, second, machine.read("/proc/sys/kernel/random/boot_id")}) == 3
    assert machine.run("stat -c %a /root/kept/file; cat /root/kept/file").stdout == "600\nkept"


def test_nothing_of_another_test_is_here(bare_machine: Machine) -> None:
    bare_machine.run("test ! -e /root/kept")


SCRIPT = """\
    import os, signal
    from tests.support.vm import layers
    machine = layers.restore(layers.booted(), "killed")
    print(machine.qemu.process.pid, machine.console, flush=True)
    signal.pause()
"""


@pytest.mark.vm_core
def test_it_dies_with_the_run() -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(SCRIPT)], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert run.stdout is not None
    pid, console = run.stdout.readline().split()
    try:
        assert Path("/proc", pid.decode(), "exe").exists()
        run.kill()
        run.wait()
        until = time.monotonic() + 120
        while Path("/proc", pid.decode(), "exe").exists():
            assert time.monotonic() < until, "qemu outlives the tests"
            time.sleep(0.05)
    finally:
        run.kill()
        run.stdout.close()
        Path(console.decode()).unlink()

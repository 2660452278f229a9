"""Telling a process from any later one with the same pid, and waiting for its end. See pidfd_open(2), proc(5)."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import trio

from supervisor import faults
from supervisor.clock import NANOSECONDS_PER_SECOND, now_ns
from supervisor.runtime.records import ProcessIdentity

START_TICKS_FIELD = 22
FIELDS_BEFORE_COMM_ENDS = 3


def boot_id() -> str:
    """Identity of this boot of the host."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def identify(pid: int, boot: str) -> ProcessIdentity | None:
    """The identity of the process that has ``pid`` now; None if there is none, or only its zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    after_comm = stat.rpartition(")")[2].split()  # the name may hold blanks and brackets
    if after_comm[0] in {"Z", "X"}:
        return None
    return ProcessIdentity(pid, int(after_comm[START_TICKS_FIELD - FIELDS_BEFORE_COMM_ENDS]), boot)


def began_ns(process: ProcessIdentity) -> int:
    """When a process of this boot began, wall time, as exactly as the kernel's ticks tell."""
    since_boot_ns = process.start_ticks * NANOSECONDS_PER_SECOND // os.sysconf("SC_CLK_TCK")
    return now_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + since_boot_ns


def open_process(process: ProcessIdentity, boot: str) -> int | None:
    """A pidfd of exactly this process; None if it is gone."""
    try:
        pidfd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return None
    if identify(process.pid, boot) == process:
        return pidfd
    os.close(pidfd)
    return None


async def wait_end(pidfd: int) -> None:
    """Return when the process has ended."""
    await trio.lowlevel.wait_readable(pidfd)


def kill_family(process: ProcessIdentity, boot: str) -> None:
    """SIGKILL is sent to the process and to all that it, or what it started, has as a child now."""
    pidfd = open_process(process, boot)
    if pidfd is None:
        return
    try:
        children = _children(process.pid)
        send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)
    for child in children:
        kill_family(child, boot)


def _children(pid: int) -> list[ProcessIdentity]:
    """The children of a process; proc_pid_task_children(5)."""
    found = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread may end meanwhile
            found += path.read_text().split()
    boot = boot_id()
    known = (identify(int(child), boot) for child in found)
    return [child for child in known if child is not None]


def send_signal(pidfd: int, number: int) -> bool:
    """The signal is sent; False when the process is gone."""
    faults.before(faults.Door.SIGNAL, signal.Signals(number).name)
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    faults.after(faults.Door.SIGNAL, "sent")
    return True

"""The last steps of a forked child before it becomes another program.

Runs in the spawner's process; standard library only. Every step is one the daemon must never do to itself: its order is
cgroups first (nothing runs outside its limits), namespaces, credentials, then whatever credentials would undo.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
from collections.abc import Sequence

from supervisor.linux import syscall
from supervisor.linux.errands import Arguments, Surroundings, flag, number, numbers, text, texts

TARGET_FDS_MAX = 256
"""Children get fds below this number; everything of the spawner's is moved above it first."""


def drop_to(arguments: Arguments) -> None:
    """Take the credentials ``{uid, gid, groups}`` for good; uid 0 keeps its capabilities.

    Afterwards nobody of that uid can trace this process: it is not dumpable.
    """
    uid, gid = number(arguments, "uid"), number(arguments, "gid")
    os.setgroups(numbers(arguments, "groups"))
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    syscall.prctl(syscall.PR_SET_DUMPABLE, 0)


def die_with(parent: int) -> None:
    """Be killed when ``parent`` ends. Changing credentials undoes it: call it afterwards."""
    syscall.prctl(syscall.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def is_plain(arguments: Arguments) -> bool:
    """Whether the command wants nothing but its words and its fds, so that it can be started without a fork."""
    wishes = ("cgroups", "namespaces", "host_mounts", "identity", "subreaper", "dies_with_daemon")
    program = texts(arguments, "argv")[0]
    return (
        not any(arguments.get(wish) for wish in wishes)
        and program.startswith("/")
        and arguments["cwd"] == "/"
    )


def start_plain(arguments: Arguments, fds: Sequence[int]) -> int:
    """The pid of a plain command, started by posix_spawn(3): no page table is copied, no Python runs in the child.

    Raises:
        OSError: It cannot be executed.
    """
    argv, environment = texts(arguments, "argv"), arguments["env"]
    assert isinstance(environment, dict)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    high = {}
    try:
        for target, index in _placement(arguments).items():
            source = fds[index] if isinstance(index, int) else null
            high[target] = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, TARGET_FDS_MAX)
        return os.posix_spawn(
            argv[0],
            argv,
            {name: str(value) for name, value in environment.items()},
            file_actions=[(os.POSIX_SPAWN_DUP2, fd, target) for target, fd in high.items()],
            setsid=True,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
    finally:
        for fd in (null, *high.values()):
            os.close(fd)


def become(
    arguments: Arguments, fds: Sequence[int], surroundings: Surroundings, failure_fd: int
) -> None:
    """Turn this forked child into the command, or write ``errno`` and a text to ``failure_fd`` and end."""
    moved = fcntl.fcntl(failure_fd, fcntl.F_DUPFD_CLOEXEC, TARGET_FDS_MAX)
    try:
        _become(arguments, fds, surroundings)
    except OSError as failure:
        what = f"{failure.filename}: " if failure.filename else ""
        os.write(moved, f"{failure.errno} {what}{failure.strerror}".encode())
    except Exception as failure:  # noqa: BLE001  # e.g. a NUL byte in an argument
        os.write(moved, f"{errno.EINVAL} {failure}".encode())
    finally:
        os._exit(127)


def _become(arguments: Arguments, fds: Sequence[int], surroundings: Surroundings) -> None:
    spawner = os.getppid()
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for index in numbers(arguments, "cgroups"):
        os.write(fds[index], b"0")
    if flag(arguments, "host_mounts"):
        syscall.setns(surroundings.host_mounts_fd, syscall.CLONE_NEWNS)
    for index in numbers(arguments, "namespaces"):
        syscall.setns(fds[index])
    _place_fds(arguments, fds, null)
    identity = arguments.get("identity")
    if isinstance(identity, dict):
        drop_to(identity)
    if flag(arguments, "subreaper"):
        syscall.prctl(syscall.PR_SET_CHILD_SUBREAPER, 1)
    if flag(arguments, "dies_with_daemon"):
        die_with(spawner)
    os.chdir(text(arguments, "cwd"))
    restore_signals()
    argv = texts(arguments, "argv")
    environment = arguments["env"]
    assert isinstance(environment, dict)
    os.execvpe(  # noqa: S606  # no shell is the point
        argv[0], argv, {name: str(value) for name, value in environment.items()}
    )


def restore_signals() -> None:
    """Default dispositions and an empty mask: what Python, the spawner and its starter changed is not inherited."""
    for one in signal.valid_signals():
        if signal.getsignal(one) != signal.SIG_DFL:
            signal.signal(one, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _placement(arguments: Arguments) -> dict[int, object]:
    """Number in the child to index of the fd that came along; None is /dev/null."""
    placement = arguments["placement"]
    assert isinstance(placement, dict)
    return {int(target): index for target, index in placement.items()}


def _place_fds(arguments: Arguments, fds: Sequence[int], null: int) -> None:
    """Give the child its fds under their numbers; all others close at exec."""
    high = {
        target: fcntl.fcntl(
            fds[index] if isinstance(index, int) else null, fcntl.F_DUPFD_CLOEXEC, TARGET_FDS_MAX
        )
        for target, index in _placement(arguments).items()
    }
    syscall.close_on_exec_from(0)
    for target, fd in high.items():
        os.dup2(fd, target, inheritable=True)

"""The errand that unpacks an archive: tar, in a place where there is nothing to break out to. Standard library only.

Words: the *target* is the directory that is filled; the *cell* is all that tar sees: the target, and the system's
programs read-only.

Rules (attacks.md 6): the cell has its own mount, network, IPC and PID namespaces; nothing but the target can be written,
and nothing in it can be run or used as a device; of root's capabilities only those are left that setting owners, modes
and file capabilities takes. Whoever calls judges every member first: the cell is for what was overlooked.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
from collections.abc import Sequence
from pathlib import Path

from supervisor.linux import syscall
from supervisor.linux.errands import Arguments, Done, Surroundings, errand, number, text

CAPABILITIES_KEPT = {0, 1, 3, 4, 31}  # chown, dac_override, fowner, fsetid, setfcap: capability.h
PR_CAPBSET_DROP = 24
SYSTEM_DIRECTORIES = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
ERROR_BYTES_MAX = 4_096
TAR = (
    "/usr/bin/tar", "--extract", "--file=-", "--directory=/target", "--numeric-owner", "--same-owner",
    "--same-permissions", "--xattrs", "--xattrs-include=*", "--warning=no-timestamp", "--no-wildcards",
    "--blocking-factor=128", "--quoting-style=escape",
)  # fmt: skip
_READ_ONLY = syscall.MOUNT_ATTR_RDONLY | syscall.MOUNT_ATTR_NOSUID | syscall.MOUNT_ATTR_NODEV
_HARMLESS = syscall.MOUNT_ATTR_NOSUID | syscall.MOUNT_ATTR_NODEV | syscall.MOUNT_ATTR_NOEXEC


@errand("unpack", forked=True)
def _unpack(arguments: Arguments, fds: Sequence[int], surroundings: Surroundings) -> Done:
    """Unpack the tar that is read from the only fd; what tar said, and how it ended (0 is well)."""
    (archive,) = fds
    target, bytes_max = text(arguments, "target"), number(arguments, "bytes_max")
    syscall.unshare(
        syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWPID
    )
    errors, errors_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()  # noqa: TID251  # in a fork of the spawner: the first process of the new PID namespace
    if pid == 0:
        _become_tar(archive, errors_end, target, bytes_max, surroundings.run_root)
    os.close(errors_end)
    os.close(archive)
    told = _read(errors)
    _, status = os.waitpid(pid, 0)
    return Done(
        {"status": os.waitstatus_to_exitcode(status), "told": told.decode(errors="replace")}
    )


def _become_tar(archive: int, errors: int, target: str, bytes_max: int, cell: Path) -> None:
    try:
        syscall.prctl(syscall.PR_SET_PDEATHSIG, signal.SIGKILL)
        _enter_cell(target, str(cell))
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        most = bytes_max if hard == resource.RLIM_INFINITY else min(bytes_max, hard)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.umask(0o022)
        for number_ in (
            signal.SIGPIPE,
            signal.SIGXFSZ,
            signal.SIGCHLD,
            signal.SIGINT,
            signal.SIGTERM,
        ):
            signal.signal(number_, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        _keep_few_capabilities()
        archive, errors = os.dup(archive), os.dup(errors)
        os.dup2(archive, 0)
        os.dup2(errors, 1)
        os.dup2(errors, 2)
        syscall.close_on_exec_from(3)
        os.execve(TAR[0], TAR, {"LC_ALL": "C", "PATH": "/usr/bin:/bin"})  # noqa: S606
    except OSError as failure:
        os.write(errors, f"the confined process could not start: {failure}".encode())
    finally:
        os._exit(126)


def _enter_cell(target: str, cell: str) -> None:
    """Make an empty root, hang the target and the system into it, and leave everything else behind."""
    syscall.mount("", "/", flags=syscall.MS_REC | syscall.MS_PRIVATE)
    filled = syscall.open_tree(target)
    syscall.mount_setattr(filled, _HARMLESS)
    syscall.mount("cell", cell, "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "size=64k,mode=0755")
    for name in SYSTEM_DIRECTORIES:
        source, place = Path("/", name), Path(cell, name)
        if source.is_symlink():
            place.symlink_to(source.readlink())
        elif source.is_dir():
            place.mkdir()
            shown = syscall.open_tree(str(source))
            syscall.mount_setattr(shown, _READ_ONLY)
            syscall.move_mount(shown, str(place))
    Path(cell, "target").mkdir()
    syscall.move_mount(filled, f"{cell}/target")
    os.chdir(cell)
    syscall.pivot_root(".", ".")
    syscall.umount(".", syscall.MNT_DETACH)
    os.chdir("/")
    flags = syscall.MS_REMOUNT | syscall.MS_BIND | syscall.MS_RDONLY
    syscall.mount("", "/", flags=flags | syscall.MS_NOSUID | syscall.MS_NODEV)


def _keep_few_capabilities() -> None:
    """Of the bounding set, so that what root gets at exec is no more than this."""
    syscall.prctl(syscall.PR_SET_NO_NEW_PRIVS, 1)
    for capability in range(64):
        if capability in CAPABILITIES_KEPT:
            continue
        try:
            syscall.prctl(PR_CAPBSET_DROP, capability)
        except OSError as failure:
            if failure.errno == errno.EINVAL:
                return  # beyond the last one of this kernel
            raise


def _read(descriptor: int) -> bytes:
    """All that comes; only the beginning is kept."""
    told = b""
    while piece := os.read(descriptor, 65_536):
        told = (told + piece)[:ERROR_BYTES_MAX]
    os.close(descriptor)
    return told

"""What containers need of the kernel, tried for real: each trial runs in a process of its own. Standard library only.

Words: a *trial* gets texts and returns what it found out; where it fails it raises ``OSError``.

Rules: what a trial makes is in namespaces of its own and ends with it, or lies in a directory that its caller made and
removes again.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from supervisor.doctor import filter_trial, runtime_trial
from supervisor.linux import mount_namespace, syscall
from supervisor.linux.errands.filesystems import OVERLAY_OPTIONS
from supervisor.linux.errands.namespaces import user_namespace_fd


class Trial(Protocol):
    """Its words are what :func:`supervisor.doctor.children.attempt` was given."""

    def __call__(self, *words: str) -> str: ...  # noqa: D102


RANGE_IDS = 65_536


def _lines(first_id: int, *, view: bool = False) -> str:
    own = f"{RANGE_IDS} 0 1\n" if view else ""
    return f"0 {first_id} 1\n1 {first_id + 1} {RANGE_IDS - 1}\n{own}"


def user_namespace(*words: str) -> str:
    """A user namespace with a range of the pool in it: of its first id."""
    (first_id,) = words
    lines = _lines(int(first_id))
    os.close(user_namespace_fd(lines, lines))
    return "user namespaces are given"


def overlay(*words: str) -> str:
    """An overlay over idmapped layers on the store's own file system, read, written and whited out by a container's root.

    Args:
        words: An empty directory on that file system; the range's first id, whose owner plays container root.
    """
    folder, first_id = words
    owner, base = int(first_id), Path(folder)
    for name in ("layers/one", "writable/upper", "writable/work", "root", "view"):
        (base / name).mkdir(parents=True)
    (base / "layers/one/read").write_text("read")
    (base / "layers/one/gone").write_text("gone")
    _private_mounts()
    lines = _lines(owner, view=True)
    namespace = user_namespace_fd(lines, lines)
    mount_fd = syscall.open_tree(folder)
    attributes = syscall.MOUNT_ATTR_NODEV | syscall.MOUNT_ATTR_IDMAP
    syscall.mount_setattr(mount_fd, attributes, syscall.MS_PRIVATE, namespace)
    syscall.mount("tmpfs", "/mnt", "tmpfs", 0, "mode=711")
    for name in ("view", "root"):
        Path("/mnt", name).mkdir(mode=0o711)
    syscall.move_mount(mount_fd, "/mnt/view")
    os.chdir("/mnt/view")
    places = "lowerdir=layers/one,upperdir=writable/upper,workdir=writable/work"
    syscall.mount("overlay", "/mnt/root", "overlay", 0, ",".join((*OVERLAY_OPTIONS, places)))
    os.chdir("/mnt/root")
    _work_as(owner)
    made = (base / "writable/upper/new").stat()
    whiteout = (base / "writable/upper/gone").stat(follow_symlinks=False)
    if made.st_uid != 0 or not stat.S_ISCHR(whiteout.st_mode):
        raise OSError(errno.EIO, f"ids on disk are {made.st_uid}, not 0")
    return "overlays over idmapped layers work"


def _work_as(owner: int) -> None:
    """Read, make and remove a file in the current directory as container root would, by a child that gives up all else."""
    if Path("read").stat().st_uid != owner:
        raise OSError(errno.EIO, "layers are shown with other ids than asked for")

    def work() -> None:
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
        if Path("read").read_text() != "read":
            raise OSError(errno.EIO, "a layer's file reads as something else")
        Path("new").write_text("new")
        Path("gone").unlink()

    _in_child(work)


def _in_child(work: Callable[[], None]) -> None:
    """Run ``work`` in a fork that dies with us.

    Raises:
        OSError: As the child met it.
    """
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        number = errno.ECANCELED
        try:
            syscall.prctl(syscall.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() in {parent, 0}:
                work()
                number = 0
        except OSError as failure:
            sys.stderr.write(f"{failure}\n")
            number = failure.errno or errno.EIO
        finally:
            sys.stderr.flush()
            os._exit(min(number, 255))
    _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status):
        number = abs(os.waitstatus_to_exitcode(status))
        raise OSError(number, os.strerror(number))


def links(*_: str) -> str:
    """A bridge with one end of a veth pair at it, in a network namespace of its own."""
    syscall.unshare(syscall.CLONE_NEWNET)
    filter_trial.add_link("bridge", "bridge0")
    filter_trial.add_link("veth", "pair0")
    return "bridges and veth pairs are there"


def packet_filter(*_: str) -> str:
    """The kinds of rules, sets and maps a published port needs, in a network namespace of its own."""
    syscall.unshare(syscall.CLONE_NEWNET)
    filter_trial.apply(filter_trial.SCRIPT)
    return "nftables works through libnftables"


def forward_chains(*_: str) -> str:
    """The host's chains, as nft's JSON: only looked at."""
    return filter_trial.apply("list chains", as_json=True)


def runtime(*words: str) -> str:
    """Run a container with an OCI runtime, in mount and PID namespaces of its own that end with it.

    Args:
        words: The runtime's path; an empty directory.
    """
    program, bundle = words
    _private_mounts()
    syscall.unshare(syscall.CLONE_NEWPID)

    def run() -> None:
        flags = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
        syscall.mount("proc", "/proc", "proc", flags)
        if (mount_namespace.UNIFIED, "cgroup2") in set(mount_namespace.mounts()):
            # crun refuses a hybrid host; the daemon shows it a legacy one, too
            syscall.mount("tmpfs", mount_namespace.UNIFIED, "tmpfs", flags, "size=4k,mode=755")
        runtime_trial.run(program, Path(bundle))

    _in_child(run)
    return "it ran a container"


def _private_mounts() -> None:
    syscall.unshare(syscall.CLONE_NEWNS)
    syscall.mount("", "/", flags=syscall.MS_REC | syscall.MS_PRIVATE)


TRIALS: Mapping[str, Trial] = {
    "user_namespace": user_namespace,
    "overlay": overlay,
    "links": links,
    "packet_filter": packet_filter,
    "forward_chains": forward_chains,
    "runtime": runtime,
}


def main(name: str, *arguments: str) -> None:
    """Carry out one trial and print what came of it: ``{"worked": …, "said": …}``."""
    try:
        told = {"worked": True, "said": TRIALS[name](*arguments)}
    except OSError as failure:
        told = {
            "worked": False,
            "said": " ".join(map(str, filter(None, (failure.strerror, failure.filename))))
            or str(failure),
        }
    sys.stdout.write(json.dumps(told))

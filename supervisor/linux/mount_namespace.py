"""M, the daemon's own mount namespace: made once, pinned, entered again by the next daemon.

Words: the *pin* is ``run_root/pins/mnt``, a bind of M's nsfs file, the only mount of ours the host ever sees. It lies
on a private bind of ``pins`` on itself, so that it never propagates into M (which the kernel refuses as a loop).

Everything else (root file systems, views, namespaces of owners) is mounted in M only. M is a slave of the host where
the host's mounts are shared. Runs in the spawner's process; standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from supervisor.linux import syscall

UNIFIED = "/sys/fs/cgroup/unified"
OWN_UNIFIED = "cgroup2"
"""Where, below the run directory, M shows a hybrid host's v2 tree instead: what enters a cgroup from M goes this way."""


def seen_in_mounts(run_root: Path, path: str) -> str:
    """A path of the host's cgroup trees as M shows it."""
    below = path.removeprefix(UNIFIED)
    return path if below == path else f"{run_root / OWN_UNIFIED}{below}"


def enter(run_root: Path) -> None:
    """Bring this process into M, making and pinning it when there is none."""
    pins = run_root / "pins"
    pins.mkdir(mode=0o700, parents=True, exist_ok=True)
    pin = pins / "mnt"
    existing = _namespace_at(pin)
    if existing is not None:
        syscall.setns(existing, syscall.CLONE_NEWNS)
        os.close(existing)
        return
    if str(pins) not in {place for place, _ in mounts()}:
        syscall.mount(str(pins), str(pins), flags=syscall.MS_BIND)
        syscall.mount("", str(pins), flags=syscall.MS_PRIVATE)
    pin.touch(mode=0o600)
    with _left_behind(pin) as pin_it:
        syscall.unshare(syscall.CLONE_NEWNS)
        syscall.mount("", "/", flags=syscall.MS_REC | syscall.MS_SLAVE)
        if (UNIFIED, "cgroup2") in set(mounts()):
            # crun refuses hybrid hosts; it must see a legacy one. The host still has its v2 tree.
            flags = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
            syscall.mount("tmpfs", UNIFIED, "tmpfs", flags, "size=4k,mode=755")
            own = run_root / OWN_UNIFIED
            own.mkdir(mode=0o700, exist_ok=True)
            syscall.mount("cgroup2", str(own), "cgroup2", flags, ",".join(cgroup2_options()))
        _pin_on_some_processor(pin, pin_it)


def leave_nothing(run_root: Path, host_mounts_fd: int) -> None:
    """Remove the pin and the private bind from the host; M ends with its last process. In a forked child."""
    syscall.setns(host_mounts_fd, syscall.CLONE_NEWNS)
    pins = run_root / "pins"
    for place in (pins / "mnt", pins):
        unmount(str(place))
    with contextlib.suppress(FileNotFoundError):
        (pins / "mnt").unlink()


def unmount(target: str, flags: int = syscall.UMOUNT_NOFOLLOW) -> None:
    """Unmount all that is stacked at ``target``; nothing there is success."""
    while True:
        try:
            syscall.umount(target, flags)
        except OSError as failure:
            if failure.errno in {errno.EINVAL, errno.ENOENT}:
                return
            raise


def cgroup2_options() -> list[str]:
    """The options of the v2 tree, one for the whole host: a mount or remount that does not say them takes them away."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        for line in file:
            kind, _, options = line.partition(" - ")[2].rstrip("\n").split(" ", 2)
            if kind == "cgroup2":
                return [one for one in options.split(",") if one not in {"rw", "ro"}]
    return []


def mounts() -> Iterator[tuple[str, str]]:
    """Mount point and file system of every mount of this process's namespace, oldest first."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:  # noqa: PTH123
        for line in file:
            head, _, tail = line.partition(" - ")
            yield _plain(head.split(" ")[4]), tail.split(" ", 1)[0]


def _plain(escaped: str) -> str:
    if "\\" not in escaped:
        return escaped
    first, *rest = escaped.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def _namespace_at(pin: Path) -> int | None:
    """An fd of the mount namespace pinned there, if one is."""
    try:
        fd = os.open(pin, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None
    try:
        kind = fcntl.ioctl(fd, syscall.NS_GET_NSTYPE)
    except OSError:
        os.close(fd)
        return None
    assert kind == syscall.CLONE_NEWNS
    return fd


def _pin_on_some_processor(pin: Path, pin_it: Callable[[], int]) -> None:
    """Pin this process's mount namespace, if need be another copy of it.

    The kernel lets a mount namespace be pinned only in an older one, which it tells by their ids. Since 6.18 each processor
    gives these out of a batch of its own, so that a younger namespace may have a lower id: then one made on the processor
    on which the other was made has a higher one again.
    """
    allowed = os.sched_getaffinity(0)
    failure = pin_it()
    try:
        for processor in range(os.cpu_count() or 1):
            if failure != errno.EINVAL:
                break
            with contextlib.suppress(OSError):  # it is not ours to run on
                os.sched_setaffinity(0, {processor})
            syscall.unshare(syscall.CLONE_NEWNS)
            failure = pin_it()
    finally:
        os.sched_setaffinity(0, allowed)
    if failure:
        why = f"the mount namespace could not be pinned: {os.strerror(failure)}"
        raise OSError(failure, why, str(pin))


@contextlib.contextmanager
def _left_behind(pin: Path) -> Iterator[Callable[[], int]]:
    """Leave a child in the host's namespace, which pins ours there each time it is told to: 0, or the errno."""
    parent = os.getpid()
    order, give_order = os.pipe()
    answer, give_answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(give_order)
            while os.read(order, 1):
                os.write(give_answer, bytes([_pinned(parent, pin)]))
        finally:
            os._exit(0)
    os.close(order)
    os.close(give_answer)

    def pin_it() -> int:
        os.write(give_order, b"!")
        return (os.read(answer, 1) or bytes([errno.EIO]))[0]

    try:
        yield pin_it
    finally:
        os.close(give_order)
        os.close(answer)
        os.waitpid(child, 0)


def _pinned(process: int, pin: Path) -> int:
    try:
        syscall.mount(f"/proc/{process}/ns/mnt", str(pin), flags=syscall.MS_BIND)
    except OSError as failure:
        return failure.errno or errno.EIO
    return 0

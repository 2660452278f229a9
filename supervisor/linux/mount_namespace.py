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
from collections.abc import Iterator
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
    with _left_behind(pin):
        syscall.unshare(syscall.CLONE_NEWNS)
        syscall.mount("", "/", flags=syscall.MS_REC | syscall.MS_SLAVE)
        if (UNIFIED, "cgroup2") in set(mounts()):
            # crun refuses hybrid hosts; it must see a legacy one. The host still has its v2 tree.
            flags = syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC
            syscall.mount("tmpfs", UNIFIED, "tmpfs", flags, "size=4k,mode=755")
            own = run_root / OWN_UNIFIED
            own.mkdir(mode=0o700, exist_ok=True)
            syscall.mount("cgroup2", str(own), "cgroup2", flags, ",".join(cgroup2_options()))


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


@contextlib.contextmanager
def _left_behind(pin: Path) -> Iterator[None]:
    """Leave a child in the host's namespace; once the body has made M, it pins it."""
    parent = os.getpid()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(go_write)
            if os.read(go_read, 1):
                syscall.mount(f"/proc/{parent}/ns/mnt", str(pin), flags=syscall.MS_BIND)
                code = 0
        finally:
            os._exit(code)
    os.close(go_read)
    try:
        yield
        os.write(go_write, b"!")
    finally:
        os.close(go_write)
        _, status = os.waitpid(child, 0)
    if status:
        raise OSError(errno.EIO, "the mount namespace could not be pinned", str(pin))

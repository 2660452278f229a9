"""The kernel calls Python does not offer, and nothing else: thin, typed, raising ``OSError``.

Words: a *mount fd* is what ``open_tree`` with ``OPEN_TREE_CLONE`` gives, a mount that is attached nowhere yet.

Rules: the only module that speaks ctypes (besides nftables); standard library only, because the spawner's process
imports it; numbers from 424 on are the same on every architecture, older calls go through libc's wrappers.
See mount_namespaces(7), open_tree(2), mount_setattr(2), openat2(2), statx(2).
"""

from __future__ import annotations

import ctypes
import os
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EACCESS = 0x200
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

OPEN_TREE_CLONE = 1
MOVE_MOUNT_F_EMPTY_PATH = 4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x00100000

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

_M_ARENA_MAX = -8

CLOSE_RANGE_CLOEXEC = 4
IN_MODIFY, IN_ONESHOT = 0x2, 0x8000_0000
BPF_ATTRIBUTE_BYTES = 72

NS_GET_NSTYPE = 0xB703
"""ioctl on a namespace fd: its CLONE_NEW… constant; ENOTTY on anything else."""

_PIVOT_ROOT = 155 if os.uname().machine == "x86_64" else 41
_OPEN_TREE = 428
_MOVE_MOUNT = 429
_CLOSE_RANGE = 436
_OPENAT2 = 437
_BPF = {"x86_64": 321, "aarch64": 280}.get(os.uname().machine, -1)
_BPF_PROG_LOAD, _BPF_PROG_ATTACH = 5, 8
_BPF_CGROUP_DEVICE_PROGRAM, _BPF_CGROUP_DEVICE, _BPF_ALLOW_MULTIPLE = 15, 6, 2
_FACCESSAT2 = 439
_MOUNT_SETATTR = 442
_STATX_ATTR_MOUNT_ROOT = 0x2000
_STATX_BASIC_STATS = 0x7FF
_FALLOC_FL_KEEP_SIZE = 1

_libc = ctypes.CDLL(None, use_errno=True)
_long = ctypes.c_long
_libc.syscall.restype = _long
_libc.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.unshare.argtypes = (ctypes.c_int,)
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
_libc.statx.argtypes = (
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_void_p,
)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.inotify_add_watch.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32)


class _MountAttr(ctypes.Structure):
    _fields_ = [  # type: ignore[mutable-override]  # ctypes' own way
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


class _OpenHow(ctypes.Structure):
    _fields_ = [  # type: ignore[mutable-override]  # ctypes' own way
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    ]


def _checked(result: int, *what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *what)
    return result


def setns(fd: int, kind: int = 0) -> None:
    """Enter the namespace ``fd`` refers to; ``kind`` 0 takes any."""
    _checked(_libc.setns(fd, kind), "setns")


def unshare(kinds: int) -> None:
    """Leave for new namespaces of these kinds."""
    _checked(_libc.unshare(kinds), "unshare")


def mount(source: str, target: str, filesystem: str = "", flags: int = 0, data: str = "") -> None:
    """Mount; empty strings are passed as NULL. See the manual page of the same name."""
    _checked(
        _libc.mount(
            os.fsencode(source) or None,
            os.fsencode(target),
            os.fsencode(filesystem) or None,
            flags,
            os.fsencode(data) or None,
        ),
        target,
    )


def umount(target: str, flags: int = UMOUNT_NOFOLLOW) -> None:
    """Unmount one mount."""
    _checked(_libc.umount2(os.fsencode(target), flags), target)


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root directory and put the old one at ``put_old``."""
    _checked(
        _libc.syscall(_long(_PIVOT_ROOT), os.fsencode(new_root), os.fsencode(put_old)), new_root
    )


def prctl(option: int, argument: int) -> None:
    """Set something about this process, with one number."""
    _checked(_libc.prctl(option, argument, 0, 0, 0), "prctl")


def name_process(name: str) -> None:
    """Set the name shown by ps and top: 15 bytes at most."""
    text = ctypes.create_string_buffer(name.encode()[:15])
    _checked(_libc.prctl(PR_SET_NAME, ctypes.addressof(text), 0, 0, 0), "prctl")


def share_one_heap() -> None:
    """Let all threads allocate from one arena, where the C library has several: mallopt(3)."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, 1)


def open_tree(path: str, flags: int = OPEN_TREE_CLONE, directory_fd: int = AT_FDCWD) -> int:
    """A mount fd for what is at ``path``; with ``AT_EMPTY_PATH`` and "" for what ``directory_fd`` refers to.

    The clone is refused (EINVAL) unless the path lies in the caller's own mount namespace.
    """
    number = _libc.syscall(
        _long(_OPEN_TREE),
        _long(directory_fd),
        ctypes.c_char_p(os.fsencode(path)),
        _long(flags | os.O_CLOEXEC),
    )
    return _checked(number, path)


def move_mount(mount_fd: int, target: str) -> None:
    """Attach a mount fd at ``target``, which must lie in the caller's mount namespace."""
    number = _libc.syscall(
        _long(_MOVE_MOUNT),
        _long(mount_fd),
        ctypes.c_char_p(b""),
        _long(AT_FDCWD),
        ctypes.c_char_p(os.fsencode(target)),
        _long(MOVE_MOUNT_F_EMPTY_PATH),
    )
    _checked(number, target)


def move_mount_onto(mount_fd: int, target_fd: int) -> None:
    """Attach a mount fd at what ``target_fd`` (``O_PATH`` will do) refers to, whatever has its name by now."""
    number = _libc.syscall(
        _long(_MOVE_MOUNT),
        _long(mount_fd),
        ctypes.c_char_p(b""),
        _long(target_fd),
        ctypes.c_char_p(b""),
        _long(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH),
    )
    _checked(number, "move_mount")


def mount_setattr(
    mount_fd: int,
    attributes: int,
    propagation: int = 0,
    userns_fd: int = 0,
    *,
    recursive: bool = False,
) -> None:
    """Set attributes of a mount fd, if asked with all below; ``MOUNT_ATTR_IDMAP`` takes its map from ``userns_fd``."""
    wanted = _MountAttr(attributes, 0, propagation, userns_fd)
    number = _libc.syscall(
        _long(_MOUNT_SETATTR),
        _long(mount_fd),
        ctypes.c_char_p(b""),
        _long(AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)),
        ctypes.byref(wanted),
        _long(ctypes.sizeof(wanted)),
    )
    _checked(number, "mount_setattr")


def openat2(directory_fd: int, path: str, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open as the call of the same name does, always close-on-exec; kernel 5.6.

    Raises:
        BlockingIOError: A rename or mount raced with a ``..`` in a scoped resolution: try again.
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    number = _libc.syscall(
        _long(_OPENAT2),
        _long(directory_fd),
        ctypes.c_char_p(os.fsencode(path)),
        ctypes.byref(how),
        _long(ctypes.sizeof(how)),
    )
    return _checked(number, path)


def load_device_program(code: bytes) -> int:
    """An fd of a BPF program for a cgroup's devices; see bpf(2), and ``device_filter`` for the code."""
    instructions, license_ = (
        ctypes.create_string_buffer(code, len(code)),
        ctypes.c_char_p(b"Apache"),
    )
    attributes = struct.pack(
        "=IIQQ",
        _BPF_CGROUP_DEVICE_PROGRAM,
        len(code) // 8,
        ctypes.addressof(instructions),
        ctypes.cast(license_, ctypes.c_void_p).value or 0,
    )
    return _bpf(_BPF_PROG_LOAD, attributes)


def attach_device_program(group_fd: int, program_fd: int) -> None:
    """The kernel asks the program too, from now on, whenever a process of the group opens or makes a device node."""
    attributes = struct.pack("=IIII", group_fd, program_fd, _BPF_CGROUP_DEVICE, _BPF_ALLOW_MULTIPLE)
    _bpf(_BPF_PROG_ATTACH, attributes)


def _bpf(command: int, attributes: bytes) -> int:
    padded = ctypes.create_string_buffer(attributes.ljust(BPF_ATTRIBUTE_BYTES, b"\0"))
    number = _libc.syscall(
        _long(_BPF), _long(command), ctypes.byref(padded), _long(BPF_ATTRIBUTE_BYTES)
    )
    return _checked(number, "bpf")


def close_on_exec_from(first_fd: int) -> None:
    """Mark every fd from ``first_fd`` on close-on-exec; kernel 5.11."""
    _checked(
        _libc.syscall(
            _long(_CLOSE_RANGE), _long(first_fd), _long(0xFFFFFFFF), _long(CLOSE_RANGE_CLOEXEC)
        ),
        "close_range",
    )


def allocate_behind(fd: int, bytes_: int) -> None:
    """The file's first ``bytes_`` bytes have blocks on the disk, also behind its end, which stays where it is."""
    result = _libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE, ctypes.c_int64(0), ctypes.c_int64(bytes_))
    _checked(result, "allocate blocks")


def inotify_init() -> int:
    """An fd that tells what happens to watched files; reading from it never blocks."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify_init1")


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """The number of a watch of what is at ``path`` now, whatever becomes of its name."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(path), mask), path)


def is_mount_root(path: str) -> bool:
    """Whether something is mounted at ``path`` (not below a symlink there); kernel 5.8."""
    buffer = ctypes.create_string_buffer(256)
    _checked(
        _libc.statx(
            AT_FDCWD,
            os.fsencode(path),
            AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
            _STATX_BASIC_STATS,
            buffer,
        ),
        path,
    )
    attributes = int.from_bytes(buffer.raw[8:16], "little")
    return bool(attributes & _STATX_ATTR_MOUNT_ROOT)


def filesystem_magic(fd: int) -> int:
    """The kind of file system ``fd`` lies on: statfs(2)'s ``f_type``."""
    buffer = ctypes.create_string_buffer(256)
    _checked(_libc.fstatfs(fd, buffer), "fstatfs")
    return int.from_bytes(buffer.raw[0:8], "little") & 0xFFFFFFFF


def getsockopt(fd: int, level: int, option: int, bytes_max: int) -> bytes:
    """An option of any length: Python's own stops at 1,024 bytes."""
    buffer = ctypes.create_string_buffer(bytes_max)
    length = ctypes.c_uint32(bytes_max)
    _checked(_libc.getsockopt(fd, level, option, buffer, ctypes.byref(length)), "getsockopt")
    return buffer.raw[: length.value]


def may_access(fd: int, mode: int) -> None:
    """Ask whether this process's effective credentials may use what ``fd`` refers to (``os.W_OK`` …); kernel 5.8.

    Raises:
        OSError: They may not, or the mount is read-only.
    """
    number = _libc.syscall(
        _long(_FACCESSAT2),
        _long(fd),
        ctypes.c_char_p(b""),
        _long(mode),
        _long(AT_EMPTY_PATH | AT_EACCESS),
    )
    _checked(number, "faccessat2")

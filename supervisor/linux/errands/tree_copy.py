"""The errands that look into a container's file tree, read from it, and write into it. Standard library only.

Words: *base* is the last name of a path, which is looked at itself where the directories before it are followed; an
empty one, or ``.``, is the directory.

Rules: see :mod:`supervisor.linux.errands.tree_view` for where they stand. The tree changes while they work, by the hand of
whoever runs in it: every step is relative to a directory that is open, what has vanished is left out when reading, and
nothing that was made anew is followed when writing.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from supervisor.linux import beneath, tree_wire
from supervisor.linux.errands import Arguments, Done, Surroundings, errand, flag, numbers, text
from supervisor.linux.errands.tree_view import enter
from supervisor.linux.spawner_wire import JSON
from supervisor.linux.tree_wire import CONTENT_BYTES, Node

LINKS_MAX = 255
INT64 = 2**63 - 1
"""A file system may keep times that no number of JSON holds."""
DEPTH_MAX = 1_024
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FRESH = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_VANISHED = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})
_NO_XATTRS = frozenset({errno.ENOTSUP, errno.EPERM, errno.ENODATA})
TRIES_MAX = 8


@errand("tree_stat", forked=True)
def _stat(arguments: Arguments, _: Sequence[int], surroundings: Surroundings) -> Done:
    root = enter(arguments, surroundings)
    return Done(_look(root, text(arguments, "directory"), text(arguments, "base"))[0])


@errand("tree_target", forked=True)
def _target(arguments: Arguments, _: Sequence[int], surroundings: Surroundings) -> Done:
    """Whether files can be written below a directory: ``volume`` or ``rootfs`` when that is read-only, else nothing."""
    root = enter(arguments, surroundings)
    target = beneath.open_beneath(root, text(arguments, "directory"), os.O_RDONLY | os.O_DIRECTORY)
    if not os.fstatvfs(target).f_flag & os.ST_RDONLY:
        return Done("")
    return Done("rootfs" if os.fstat(target).st_dev == os.fstat(root).st_dev else "volume")


@errand("tree_read", forked=True)
def _read(arguments: Arguments, fds: Sequence[int], surroundings: Surroundings) -> Done:
    """Write what is found at a path to the pipe, then its nodes."""
    root = enter(arguments, surroundings)
    directory, base = text(arguments, "directory"), text(arguments, "base")
    told, parent = _look(root, directory, base)
    with os.fdopen(os.dup(fds[0]), "wb", buffering=CONTENT_BYTES) as pipe:
        pipe.write(tree_wire.frame(told))
        pipe.flush()
        _Reader(pipe).send(parent, base if base != "." else "")
        pipe.write(tree_wire.END)
    return Done()


@errand("tree_write", forked=True)
def _write(arguments: Arguments, fds: Sequence[int], surroundings: Surroundings) -> Done:
    """Make the nodes that come from the pipe below a directory."""
    root = enter(arguments, surroundings)
    writer = _Writer(
        root,
        text(arguments, "directory"),
        keep_kinds=flag(arguments, "keep_kinds"),
        owner=tuple(numbers(arguments, "owner")),
    )
    with os.fdopen(os.dup(fds[0]), "rb", buffering=CONTENT_BYTES) as pipe:
        while (node := tree_wire.read_node(pipe)) is not None:
            writer.put(node, pipe)
    writer.finish()
    return Done()


# --- looking ---------------------------------------------------------------------------------------------------------


def _look(root: int, directory: str, base: str) -> tuple[JSON, int]:
    """What is there, for people who ask, and a descriptor of the directory it is in (or that it is)."""
    parent = beneath.open_beneath(root, directory, os.O_RDONLY | os.O_DIRECTORY)
    plain = base not in {"", "."}
    status = os.lstat(base, dir_fd=parent) if plain else os.fstat(parent)
    link = ""
    if stat.S_ISLNK(status.st_mode):
        link = _shown(os.fsencode(_evaluated(root, f"{directory}/{base}")))
    told: JSON = {
        "size": status.st_size,
        "mode": status.st_mode,
        "mtime_ns": min(max(status.st_mtime_ns, -INT64), INT64),
        "link": link,
    }
    return told, parent


def _shown(name: bytes) -> str:
    """A name for people, and for JSON, which has no other text than Unicode."""
    return name.decode(errors="replace")


def _evaluated(root: int, path: str) -> str:
    """The path without symbolic links, as the container sees it; what is not there is taken as it is written."""
    pending, done, links = path.split("/")[::-1], [""], 0
    while pending:
        part = pending.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            done = done[:-1] or [""]
            continue
        target = _link_at(root, "/".join([*done, part]))
        if target is None:
            done.append(part)
            continue
        links += 1
        if links > LINKS_MAX:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if target.startswith("/"):
            done = [""]
        pending += target.split("/")[::-1]
    return "/".join(done) or "/"


def _link_at(root: int, path: str) -> str | None:
    try:
        found = beneath.open_beneath(root, path, os.O_PATH | os.O_NOFOLLOW)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        if stat.S_ISLNK(os.fstat(found).st_mode):
            return os.readlink("", dir_fd=found)
    finally:
        os.close(found)
    return None


# --- reading ---------------------------------------------------------------------------------------------------------


class _Reader:
    """Sends a tree, a directory before what is in it, names sorted."""

    def __init__(self, pipe: BinaryIO) -> None:
        self._pipe = pipe
        self._seen: dict[tuple[int, int], bytes] = {}

    def send(self, parent: int, base: str) -> None:
        """``base`` in ``parent`` and all below it; with an empty one ``parent`` itself."""
        if base:
            name = os.fsencode(base)
            if not self._send_one(parent, name, b""):
                return
            top = os.open(name, DIRECTORY, dir_fd=parent)
        else:
            top = os.dup(parent)
            self._directory(top, b"")
        self._send_below(top)

    def _send_below(self, top: int) -> None:
        stack = [(top, b"", _names(top))]
        while stack:
            directory, prefix, names = stack[-1]
            name = next(names, None)
            if name is None:
                os.close(stack.pop()[0])
                continue
            below = self._unless_vanished(directory, name, prefix + name)
            if below is not None:
                if len(stack) >= DEPTH_MAX:
                    raise OSError(errno.ELOOP, f"more than {DEPTH_MAX} levels of directories")
                stack.append((below, prefix + name + b"/", _names(below)))

    def _unless_vanished(self, parent: int, name: bytes, path: bytes) -> int | None:
        try:
            if self._send_one(parent, name, path):
                return os.open(name, DIRECTORY, dir_fd=parent)
        except OSError as failure:
            if failure.errno not in _VANISHED:
                raise OSError(failure.errno, f"{_shown(path)}: {failure.strerror}") from failure
        return None

    def _send_one(self, parent: int, name: bytes, path: bytes) -> bool:
        """Send one entry; whether it is a directory. Sockets and device nodes are left out."""
        status = os.lstat(name, dir_fd=parent)
        match stat.S_IFMT(status.st_mode):
            case stat.S_IFDIR:
                directory = os.open(name, DIRECTORY, dir_fd=parent)
                try:
                    self._directory(directory, path)
                finally:
                    os.close(directory)
                return True
            case stat.S_IFREG:
                self._file(parent, name, path)
            case stat.S_IFLNK:
                link = os.fsencode(os.readlink(name, dir_fd=parent))
                self._pipe.write(tree_wire.pack(_node(path, "symlink", status, link=link)))
            case stat.S_IFIFO:
                self._pipe.write(tree_wire.pack(_node(path, "fifo", status)))
            case _:
                pass
        return False

    def _directory(self, directory: int, path: bytes) -> None:
        status = os.fstat(directory)
        node = _node(path, "directory", status, xattrs=_xattrs(directory))
        self._pipe.write(tree_wire.pack(node))

    def _file(self, parent: int, name: bytes, path: bytes) -> None:
        file = os.open(name, _READ, dir_fd=parent)
        try:
            status = os.fstat(file)
            if not stat.S_ISREG(status.st_mode):
                return  # it has just become something else
            first = self._seen.setdefault((status.st_dev, status.st_ino), path)
            if status.st_nlink > 1 and first != path:
                self._pipe.write(tree_wire.pack(_node(path, "hardlink", status, link=first)))
                return
            node = _node(path, "file", status, size=status.st_size, xattrs=_xattrs(file))
            self._pipe.write(tree_wire.pack(node))
            self._content(file, status.st_size)
        finally:
            os.close(file)

    def _content(self, file: int, size: int) -> None:
        """As long as was said, whatever becomes of the file meanwhile."""
        while size:
            piece = os.read(file, min(size, CONTENT_BYTES)) or bytes(min(size, CONTENT_BYTES))
            self._pipe.write(piece)
            size -= len(piece)


def _node(
    path: bytes,
    kind: str,
    status: os.stat_result,
    *,
    size: int = 0,
    link: bytes = b"",
    xattrs: dict[bytes, bytes] | None = None,
) -> Node:
    return Node(
        path=path,
        kind=kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime_ns=status.st_mtime_ns,
        size=size,
        link=link,
        xattrs=xattrs or {},
    )


def _xattrs(descriptor: int) -> dict[bytes, bytes]:
    """The attributes that belong to the file itself, not to this host."""
    found = {}
    try:
        for name in os.listxattr(descriptor):
            if name.startswith("user.") or name == "security.capability":
                found[os.fsencode(name)] = os.getxattr(descriptor, name)
    except OSError as failure:
        if failure.errno not in _NO_XATTRS:
            raise
    return found


def _names(directory: int) -> Iterator[bytes]:
    return iter(sorted(os.fsencode(name) for name in os.listdir(directory)))


# --- writing ---------------------------------------------------------------------------------------------------------


class _Writer:
    """Makes nodes below a directory; what is in the way is replaced, but for directories by directories."""

    def __init__(self, root: int, place: str, *, keep_kinds: bool, owner: tuple[int, ...]) -> None:
        self._root = root
        self._place = place
        self._keep_kinds = keep_kinds
        self._owner = owner
        self._open: tuple[bytes | None, int] = (None, -1)
        self._times: list[tuple[bytes, int]] = []

    def put(self, node: Node, pipe: BinaryIO) -> None:
        """Make one node; of a file, with the content that follows it."""
        directory, _, name = node.path.rpartition(b"/")
        if not name:
            return  # the directory itself stays as it is
        parent = self._directory(directory)
        attempt = 0
        while True:
            try:
                self._make_way(parent, name, node)
                self._make(parent, name, node, pipe)
            except FileExistsError:
                attempt += 1  # somebody made it again just now
                if attempt == TRIES_MAX or self._refused(parent, name, node):
                    raise
            else:
                return

    def finish(self) -> None:
        """Directories get their times when everything is in them."""
        for path, mtime_ns in reversed(self._times):
            try:
                directory = beneath.open_beneath(
                    self._root, self._path(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
                )
            except OSError:
                continue  # it is no longer there, or no longer a directory
            os.utime(directory, ns=(mtime_ns, mtime_ns))
            os.close(directory)

    def _path(self, path: bytes) -> str:
        return f"{self._place}/{os.fsdecode(path)}"

    def _directory(self, path: bytes) -> int:
        """A descriptor of a directory below the place, made if it is missing; links are followed as in the container."""
        before, opened = self._open
        if before == path:
            return opened
        if before is not None:
            os.close(opened)
            self._open = (None, -1)
        whole = self._path(path)
        try:
            found = beneath.open_beneath(self._root, whole, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            beneath.make_directories_beneath(self._root, whole)
            found = beneath.open_beneath(self._root, whole, os.O_RDONLY | os.O_DIRECTORY)
        self._open = (path, found)
        return found

    def _refused(self, parent: int, name: bytes, node: Node) -> bool:
        status = _lstat(parent, name)
        if status is None or not self._keep_kinds:
            return False
        return stat.S_ISDIR(status.st_mode) != (node.kind == "directory")

    def _make_way(self, parent: int, name: bytes, node: Node) -> None:
        status = _lstat(parent, name)
        if status is None:
            return
        is_directory, wanted = stat.S_ISDIR(status.st_mode), node.kind == "directory"
        if self._keep_kinds and is_directory != wanted:
            one, other = (
                ("directory", "non-directory") if is_directory else ("non-directory", "directory")
            )
            path = f"{self._place}/{_shown(node.path)}"
            why = f'cannot overwrite {one} "{path}" with {other} "{self._place}"'
            raise FileExistsError(errno.EEXIST, why)
        if not (is_directory and wanted):
            _remove(parent, name)

    def _make(self, parent: int, name: bytes, node: Node, pipe: BinaryIO) -> None:
        match node.kind:
            case "directory":
                self._make_directory(parent, name, node)
            case "file":
                self._make_file(parent, name, node, pipe)
            case "hardlink":
                self._make_hard_link(parent, name, node)
            case kind:
                if kind == "symlink":
                    os.symlink(node.link, name, dir_fd=parent)
                else:
                    os.mkfifo(name, node.mode & 0o777, dir_fd=parent)  # the umask is 0
                os.chown(name, *self._ids(node), dir_fd=parent, follow_symlinks=False)
                times = (node.mtime_ns, node.mtime_ns)
                os.utime(name, ns=times, dir_fd=parent, follow_symlinks=False)

    def _make_directory(self, parent: int, name: bytes, node: Node) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
                raise
        made = os.open(name, DIRECTORY, dir_fd=parent)
        try:
            self._describe(made, node)
        finally:
            os.close(made)
        self._times.append((node.path, node.mtime_ns))

    def _make_file(self, parent: int, name: bytes, node: Node, pipe: BinaryIO) -> None:
        made = os.open(name, _FRESH, 0o600, dir_fd=parent)
        try:
            left = node.size
            while left:
                piece = tree_wire.exactly(pipe, min(left, CONTENT_BYTES))
                left -= len(piece)
                view = memoryview(piece)
                while view:
                    view = view[os.write(made, view) :]
            self._describe(made, node)
            os.utime(made, ns=(node.mtime_ns, node.mtime_ns))
        finally:
            os.close(made)

    def _make_hard_link(self, parent: int, name: bytes, node: Node) -> None:
        with beneath.parent_beneath(self._root, self._path(node.link)) as (there, other):
            os.link(other, name, src_dir_fd=there, dst_dir_fd=parent, follow_symlinks=False)

    def _describe(self, descriptor: int, node: Node) -> None:
        """Owner first: it takes setuid away."""
        os.fchown(descriptor, *self._ids(node))
        os.fchmod(descriptor, node.mode)
        for name, value in node.xattrs.items():
            try:
                os.setxattr(descriptor, name, value)
            except OSError as failure:
                if failure.errno not in _NO_XATTRS:
                    raise

    def _ids(self, node: Node) -> tuple[int, int]:
        return (self._owner[0], self._owner[1]) if self._owner else (node.uid, node.gid)


def _lstat(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=parent)
    except FileNotFoundError:
        return None


def _remove(parent: int, name: bytes) -> None:
    """Take away what has a name, a directory with all that is in it; nothing there is success."""
    if _unlinked(parent, name):
        return
    top = os.open(name, DIRECTORY, dir_fd=parent)
    stack = [(top, name, parent, _names(top))]
    while stack:
        directory, own_name, above, names = stack[-1]
        below = next(names, None)
        if below is None:
            os.close(directory)
            os.rmdir(own_name, dir_fd=above)
            stack.pop()
        elif not _unlinked(directory, below):
            if len(stack) >= DEPTH_MAX:
                raise OSError(errno.ELOOP, f"more than {DEPTH_MAX} levels of directories")
            inner = os.open(below, DIRECTORY, dir_fd=directory)
            stack.append((inner, below, directory, _names(inner)))


def _unlinked(parent: int, name: bytes) -> bool:
    """What is no directory is gone; false for a directory."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    return True

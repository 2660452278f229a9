"""Files of a container's tree, looked at, read and written by an errand that stands in it (``errands/tree_view``).

Words: a *view* says what the tree is made of; a *place* is a path in it, split as Docker does: the directories before the
last name are followed, the name itself is not, unless the path ends with a slash or ``/.``.

Rules: nothing is left of a view when the call that used it ends, however it ends: its mounts are in the errand's own
namespace.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import attrs
import orjson
import trio

from supervisor.errors import BakehouseError
from supervisor.linux import tree_wire
from supervisor.linux.spawner import Credentials, Spawner
from supervisor.linux.spawner_wire import JSON
from supervisor.linux.tree_wire import Node

PIPE_BYTES = 1 << 20
PIPE_READ_BYTES = 1 << 18


@attrs.frozen
class ViewMount:
    """Something that is mounted in a view.

    Attributes:
        target: Where, as the container names it.
        source: A path in M; with ``credentials`` one of the host, opened as they may.
        writable: Whether the container may write there.
        below: The part of a source in M that is mounted; all of it when empty.
        restricted: See :func:`supervisor.linux.mounts.grant_path`; so with ``forbidden``.
    """

    target: str
    source: str
    writable: bool
    below: str = ""
    credentials: Credentials | None = None
    restricted: bool = True
    create: bool = False
    forbidden: tuple[Path, ...] = ()

    def arguments(self) -> dict[str, JSON]:
        """As it goes to the errand."""
        common: dict[str, JSON] = {"target": self.target, "writable": self.writable}
        if self.credentials is None:
            return {**common, "source": self.source, "below": self.below}
        return {
            **common,
            "path": self.source,
            "credentials": self.credentials.arguments(),
            "restricted": self.restricted,
            "create": self.create,
            "forbidden": [str(one) for one in self.forbidden],
        }


@attrs.frozen
class TreeView:
    """A container's file tree.

    Attributes:
        rootfs: Where its root file system is mounted, in M.
        read_only: Whether nothing may be written to the root file system.
        user_pin: The owner's user namespace; ``None`` for who is not remapped.
        groups: The container root's supplementary groups, as that namespace numbers them.
        root_ids: The host's ids of the container's root.
        cgroups: The ``cgroup.procs`` files, as M shows them, of the group that bears what a copy costs.
    """

    rootfs: Path
    mounts: tuple[ViewMount, ...] = ()
    read_only: bool = False
    user_pin: Path | None = None
    groups: tuple[int, ...] = ()
    root_ids: tuple[int, int] = (0, 0)
    cgroups: tuple[str, ...] = ()

    def arguments(self, **more: JSON) -> dict[str, JSON]:
        """As it goes to the errand."""
        return {
            "rootfs": str(self.rootfs),
            "mounts": [mount.arguments() for mount in self.mounts],
            "read_only": self.read_only,
            "user_pin": str(self.user_pin or ""),
            "groups": list(self.groups),
            "root_uid": self.root_ids[0],
            "root_gid": self.root_ids[1],
            "cgroups": list(self.cgroups),
            **more,
        }


@attrs.frozen
class Place:
    """A path in a tree.

    Attributes:
        directory: Absolute, normal; its links are followed.
        base: The last name, which is not; ``.`` or empty when the directory itself is meant.
        name: What it is called in an archive.
    """

    directory: str
    base: str
    name: str

    @classmethod
    def of(cls, path: str) -> Place:
        """The place a client means by ``path``; one that is not absolute starts at the root."""
        whole = clean_path(path)
        if path.endswith("/.") or path == ".":
            return cls(whole, ".", ".")
        if path.endswith("/") or whole == "/":
            return cls(whole, "", posixpath.basename(whole) or "/")
        directory, _, base = whole.rpartition("/")
        return cls(directory or "/", base, base)


@attrs.frozen
class Found:
    """What is at a place. ``link`` is where a symbolic link there leads to in the end, as the container sees it."""

    size: int
    mode: int
    mtime_ns: int
    link: str

    @property
    def is_directory(self) -> bool:
        """Whether it is one itself."""
        return stat.S_ISDIR(self.mode)


def clean_path(path: str) -> str:
    """Absolute and normal, as the container's root sees it."""
    return "/" + posixpath.normpath("/" + path).lstrip("/")


def wide_pipe() -> tuple[int, int]:
    """Both ends of a pipe that holds more than usual: large files go through it."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    with suppress(PermissionError):  # there is a bound for each user
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return read_end, write_end


async def look(spawner: Spawner, view: TreeView, place: Place) -> Found:
    """What is there.

    Raises:
        OSError: ENOENT, ENOTDIR, … as the container's root would hear; ESTALE when the view cannot be made.
    """
    arguments = view.arguments(directory=place.directory, base=place.base)
    return _found((await spawner.call("tree_stat", arguments)).value)


async def read_only_reason(spawner: Spawner, view: TreeView, directory: str) -> str:
    """Why nothing can be written below a directory: ``rootfs`` or ``volume`` when that is read-only; else nothing.

    Raises:
        OSError: As :func:`look`; ENOTDIR when it is no directory.
    """
    answer = await spawner.call("tree_target", view.arguments(directory=directory))
    return str(answer.value)


class TreeStream:
    """The nodes that come out of a view. Made by :func:`reading`.

    Attributes:
        found: What is at the place that is read.
    """

    def __init__(self, stream: trio.lowlevel.FdStream, failure: list[OSError]) -> None:
        self._stream = stream
        self._failure = failure
        self._buffer = bytearray()
        self.found = Found(0, 0, 0, "")

    async def begin(self) -> None:
        """Read what is told first."""
        self.found = _found(orjson.loads(await self._frame()))

    async def next(self) -> Node | None:
        """The next node; ``None`` at the end. The content of the one before must have been taken."""
        frame = await self._frame()
        return tree_wire.unpack(frame) if frame else None

    async def take(self, size: int) -> bytes:
        """More of the content of the node that came last: from one byte to ``size``."""
        if not self._buffer:
            return await self._receive(min(size, PIPE_READ_BYTES))
        piece = bytes(self._buffer[:size])
        del self._buffer[:size]
        return piece

    async def _frame(self) -> bytes:
        await self._fill(tree_wire.LENGTH.size)
        (length,) = tree_wire.LENGTH.unpack_from(self._buffer)
        await self._fill(tree_wire.LENGTH.size + length)
        frame = bytes(self._buffer[tree_wire.LENGTH.size : tree_wire.LENGTH.size + length])
        del self._buffer[: tree_wire.LENGTH.size + length]
        return frame

    async def _fill(self, size: int) -> None:
        while len(self._buffer) < size:
            self._buffer += await self._receive(PIPE_READ_BYTES)

    async def _receive(self, size: int) -> bytes:
        piece = bytes(await self._stream.receive_some(size))
        if not piece:
            raise self._failure[0] if self._failure else OSError(0, "the copy was cut off")
        return piece


@asynccontextmanager
async def reading(spawner: Spawner, view: TreeView, place: Place) -> AsyncIterator[TreeStream]:
    """The tree at a place, read as it is asked for; leaving the block ends the reading.

    Raises:
        OSError: As :func:`look`, also in the middle of the tree.
    """
    read_end, write_end = wide_pipe()
    failure: list[OSError] = []
    arguments = view.arguments(directory=place.directory, base=place.base)

    async def read() -> None:
        try:
            await spawner.call("tree_read", arguments, [write_end])
        except OSError as error:
            failure.append(error)
        finally:
            os.close(write_end)

    async with trio.lowlevel.FdStream(read_end) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(read)
        yield TreeStream(stream, failure)
        nursery.cancel_scope.cancel()


@attrs.frozen
class Filling:
    """What is made in a view.

    Attributes:
        directory: Below which, as the container names it.
        keep_kinds: Refuse to replace a directory by something else, and the other way round.
        owner: Uid and gid of all that is made; as the nodes say when there are none.
    """

    directory: str
    keep_kinds: bool
    owner: tuple[int, ...] = ()


async def write(
    spawner: Spawner,
    view: TreeView,
    filling: Filling,
    feed: Callable[[BinaryIO], None],
    over: Callable[[], None] = lambda: None,
) -> None:
    """Make the nodes that ``feed`` writes (in a thread, to a pipe) below a directory.

    Args:
        spawner: Does it.
        view: Of the container.
        filling: What is made.
        feed: Writes frames and contents, and the end; an expected failure of it is raised here. A pipe that breaks means
            that the errand has ended.
        over: Called when the errand has ended: nobody wants any more of what ``feed`` waits for.

    Raises:
        OSError: As :func:`look`; EEXIST when a kind would not be kept.
    """
    arguments = view.arguments(
        directory=filling.directory, keep_kinds=filling.keep_kinds, owner=list(filling.owner)
    )
    refused: list[BakehouseError] = []
    failed: list[OSError] = []
    read_end, write_end = wide_pipe()
    read_file = os.fdopen(read_end, "rb", buffering=0)
    write_file = os.fdopen(write_end, "wb", buffering=PIPE_READ_BYTES)

    def pump() -> None:
        with write_file:
            feed(write_file)

    async def run_pump() -> None:
        try:
            # Of its own: a file system that does not answer must not hold up the copies of others.
            await trio.to_thread.run_sync(pump, limiter=trio.CapacityLimiter(1))
        except BrokenPipeError:
            return  # the errand has ended; it says why
        except BakehouseError as error:
            refused.append(error)
            nursery.cancel_scope.cancel()

    with read_file, write_file:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_pump)
            try:
                await spawner.call("tree_write", arguments, [read_end])
            except OSError as error:
                failed.append(error)
            finally:
                read_file.close()  # what the thread still writes fails, so that it ends
                over()
    if refused:
        raise refused[0]
    if failed:
        raise failed[0]


def _found(value: object) -> Found:
    match value:
        case {"size": int(size), "mode": int(mode), "mtime_ns": int(mtime_ns), "link": str(link)}:
            return Found(size, mode, mtime_ns, link)
        case other:
            raise TypeError(other)

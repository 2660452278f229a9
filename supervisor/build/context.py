"""The build context: what the client sent, unpacked where only the daemon sees it.

Rules: every file belongs to 0:0, as Docker has it; the archive is judged and unpacked as a layer is (attacks.md 6), with
device nodes left out and ``.wh.`` names taken for what they are; the directory lives as long as somebody reads it.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
from typing_extensions import override

from protocol.ignore import BadPatternError, parse_ignore
from supervisor.build.content_keys import Digests
from supervisor.build.small_archive import is_small, unpack_small
from supervisor.config import BuildConfig
from supervisor.errors import InvalidArgument, NotFound, ResourceExhausted
from supervisor.linux import beneath
from supervisor.linux.spawner import Spawner
from supervisor.oci.tar import Member
from supervisor.store import trees
from supervisor.store.compression import Span
from supervisor.store.content import BlobWriter
from supervisor.store.scan import ID_MAX, WHITEOUT, Bounds, Scan
from supervisor.store.unpack import Unpacked, Unpacker
from supervisor.tasks import finish_within, in_thread

IGNORE_FILE = ".dockerignore"
IGNORE_BYTES_MAX = 1 << 20
REMOVAL_SECONDS = 60.0
NAME_CHARACTERS_MAX = 255

Context = AsyncIterable[bytes]
"""An uploaded archive, plain or compressed, piece by piece."""


@attrs.define(eq=False)
class ContextTree:
    """An unpacked context and those who read it.

    Attributes:
        place: What is removed when nobody reads it any more.
        directory: Where its files are.
        digests: Of its files.
    """

    place: Path
    directory: Path
    digests: Digests = attrs.field(factory=Digests)
    _readers: int = 0

    @asynccontextmanager
    async def held(self) -> AsyncIterator[ContextTree]:
        """Keep it while the block runs; the last one out removes it."""
        self._readers += 1
        try:
            yield self
        finally:
            self._readers -= 1
            if not self._readers:
                with finish_within(REMOVAL_SECONDS):
                    await in_thread(lambda: trees.remove(self.place))


async def receive(
    context: Context, place: Path, spawner: Spawner, config: BuildConfig
) -> ContextTree:
    """Unpack ``context`` into the new directory ``place``; whoever asked holds it next.

    Raises:
        InvalidArgument: It is no archive, damaged, or an attack.
        ResourceExhausted: It is larger than the settings allow, or the disk is full.
    """
    tree = place / "tree"
    done = False
    try:
        archive = await in_thread(lambda: _make(place, tree))
        try:
            await _spool(context, archive, config.context_bytes_max)
            await unpack(archive, tree, spawner, config)
        finally:
            os.close(archive)
        done = True
    finally:
        if not done:
            with finish_within(REMOVAL_SECONDS):
                await in_thread(lambda: trees.remove(place))
    return ContextTree(place, tree)


async def unpack(
    archive: int, tree: Path, spawner: Spawner, config: BuildConfig, *, keep_owners: bool = False
) -> None:
    """Unpack an archive of the client's, an open file, into the empty directory ``tree``; errors as :func:`receive`."""
    bounds = Bounds(config.context_bytes_max, config.context_entries_max)
    try:
        if await in_thread(lambda: is_small(archive)):
            scan = _ContextScan(bounds)
            scan.keep_owners = keep_owners
            return await in_thread(lambda: unpack_small(archive, tree, scan))
        await _ContextUnpacker(spawner, bounds, keep_owners).unpack(Span(archive), tree)
    except ResourceExhausted as error:
        hint = "leave out what the build does not need, in .dockerignore"
        raise ResourceExhausted(_of_context(error.message), hint) from error
    except InvalidArgument as error:
        raise InvalidArgument(_of_context(error.message), error.hint) from error


def read_file(tree: ContextTree, path: str, bytes_max: int) -> bytes:
    """A file of the context. Blocks.

    Raises:
        NotFound: It is not there.
        InvalidArgument: It is no file, or longer than ``bytes_max``.
    """
    root = trees.open_directory(tree.directory)
    try:
        return beneath.read_file_beneath(root, path, bytes_max)
    except (FileNotFoundError, NotADirectoryError) as error:
        message = f"cannot locate specified Dockerfile: {path:.200}"
        raise NotFound(message, "name it with -f, relative to the context") from error
    except OSError as error:
        msg = f"cannot read {path:.200}: {error.strerror}"
        raise InvalidArgument(msg) from error
    finally:
        os.close(root)


def hide_recipe(tree: ContextTree, dockerfile: str) -> None:
    """Remove the Dockerfile and ``.dockerignore`` when ``.dockerignore`` leaves them out: they are sent all the same.

    Blocks.

    Raises:
        InvalidArgument: ``.dockerignore`` cannot be read.
    """
    try:
        text = read_file(tree, IGNORE_FILE, IGNORE_BYTES_MAX).decode(errors="replace")
    except NotFound:
        return
    try:
        ignore = parse_ignore(text)
    except BadPatternError as error:
        msg = f"cannot use the context: {error}"
        raise InvalidArgument(msg) from error
    root = trees.open_directory(tree.directory)
    try:
        for name in (dockerfile, IGNORE_FILE):
            if len(name) <= NAME_CHARACTERS_MAX and ignore.excludes(name):
                beneath.unlink_beneath(root, name)
    finally:
        os.close(root)


async def _spool(context: Context, archive: int, bytes_max: int) -> None:
    """Write the upload to disk: reading it must not wait for tar."""
    total = 0
    async for piece in context:
        total += len(piece)
        if total > bytes_max:
            message = f"cannot read the build context: it is larger than {bytes_max} bytes"
            raise ResourceExhausted(
                message, "leave out what the build does not need, in .dockerignore"
            )
        await in_thread(lambda piece=piece: _write(archive, piece))  # type: ignore[misc]


def _write(descriptor: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(descriptor, view) :]


def _make(place: Path, tree: Path) -> int:
    """The directories, and a file without a name for the archive."""
    tree.mkdir(mode=0o755, parents=True)
    tree.chmod(0o755)
    descriptor, name = tempfile.mkstemp(dir=place)
    Path(name).unlink()
    return descriptor


def _of_context(message: str) -> str:
    return message.replace("unpack the layer", "read the build context").replace(
        "the layer", "the build context"
    )


class _ContextScan(Scan):
    """Judges as for a layer, but of what a client sends: owners do not count, and names are just names."""

    keep_owners = False

    @override
    def judge(self, member: Member) -> Member | None:
        keep = self.keep_owners and max(member.uid, member.gid) <= ID_MAX
        return super().judge(member if keep else attrs.evolve(member, uid=0, gid=0))

    @override
    def _whiteout(self, directory: bytes, name: bytes, path: bytes) -> None:
        message = f"cannot unpack {path!r:.200}: names that begin with {WHITEOUT.decode()} mark removals in image layers"
        raise InvalidArgument(message)


@attrs.frozen
class _ContextUnpacker(Unpacker):
    """An unpacker that judges with :class:`_ContextScan`."""

    keep_owners: bool

    @override
    async def _run(
        self,
        source: Span,
        target: Path,
        keep: BlobWriter | None,
        scan: Scan,
        pipe: tuple[io.FileIO, io.FileIO],
    ) -> Unpacked:
        scan = _ContextScan(self.bounds)
        scan.keep_owners = self.keep_owners
        return await super()._run(source, target, keep, scan, pipe)

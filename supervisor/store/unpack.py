"""Unpacking: an archive, compressed or not, becomes the directory of a layer.

One thread reads, decompresses, takes both digests, judges every member (:mod:`supervisor.store.scan`) and writes those
that may pass anew; tar in its cell (:mod:`supervisor.linux.errands.unpack`) makes the files. Whiteouts are made
afterwards, by us. Nothing of it is a layer until the caller adopts it.
"""

from __future__ import annotations

import fcntl
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path

import attrs
import trio
import zstandard

from supervisor.errors import BakehouseError, Internal, ResourceExhausted
from supervisor.linux import beneath
from supervisor.linux.spawner import Spawner
from supervisor.linux.spawner_wire import Message
from supervisor.oci import tar
from supervisor.store import compression, trees
from supervisor.store.compression import HashedReader, Span, SpanReader
from supervisor.store.content import BlobWriter
from supervisor.store.scan import Bounds, Scan
from supervisor.tasks import in_thread

UNPACKING = trio.CapacityLimiter(2)
"""Archives unpacked at once: each may need a thread, a processor and the memory of its names."""

PIPE_BYTES = 1 << 20
OPAQUE_XATTR = "trusted.overlay.opaque"
KEPT_COMPRESSION_LEVEL = 1


@attrs.frozen
class Unpacked:
    """What came of an archive.

    Attributes:
        diff_id: Digest of the uncompressed tar.
        tar_bytes: Its length.
        digest: Digest as it came.
        left_out: Members that were dropped, by what they were.
    """

    diff_id: str
    tar_bytes: int
    digest: str
    left_out: dict[str, int]


@attrs.frozen
class Unpacker:
    """Unpacks for one store."""

    spawner: Spawner
    bounds: Bounds

    async def unpack(self, source: Span, target: Path, keep: BlobWriter | None = None) -> Unpacked:
        """Fill the empty directory ``target`` with what ``source`` holds.

        Args:
            source: A tar, plain or compressed.
            target: An empty directory of ours; rubbish when this raises.
            keep: Takes the tar, so that it can be handed out again exactly as it came; the caller commits it.

        Raises:
            InvalidArgument: It is no tar, damaged, or an attack.
            ResourceExhausted: It is larger than the bounds, or the disk is full.
            Internal: tar failed for a reason of its own.
        """
        async with UNPACKING:
            scan = Scan(self.bounds)
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            with os.fdopen(read_end, "rb", buffering=0) as read_file:
                with os.fdopen(write_end, "wb", buffering=0) as write_file:
                    fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
                    unpacked = await self._run(source, target, keep, scan, (read_file, write_file))
            await in_thread(lambda: _make_marks(target, scan))
            return unpacked

    async def _run(
        self,
        source: Span,
        target: Path,
        keep: BlobWriter | None,
        scan: Scan,
        pipe: tuple[io.FileIO, io.FileIO],
    ) -> Unpacked:
        """Run tar and the thread that feeds it; the first to fail for a reason of its own is told."""
        read_file, write_file = pipe
        pumped: list[Unpacked] = []
        refused: list[BakehouseError] = []

        async def pump() -> None:
            try:
                pumped.append(
                    await trio.to_thread.run_sync(lambda: _pump(source, keep, scan, write_file))
                )
            except BrokenPipeError:
                return  # tar has ended; it says why
            except BakehouseError as error:
                refused.append(error)
                nursery.cancel_scope.cancel()

        told: object = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump)
            arguments: Message = {"target": str(target), "bytes_max": self.bounds.bytes_max}
            try:
                answer = await self.spawner.call("unpack", arguments, [read_file.fileno()])
            finally:
                read_file.close()  # what the thread still writes fails, so that it ends
            told = answer.value
        if refused:
            raise refused[0]
        _check(told)
        if not pumped:
            message = "cannot unpack the archive: the unpacking process ended early"
            raise Internal(message)
        return pumped[0]


def _pump(source: Span, keep: BlobWriter | None, scan: Scan, pipe: io.FileIO) -> Unpacked:
    """Read, judge and write on; runs in a thread. The pipe is closed at its end, whatever happens."""
    kept = _Kept(keep) if keep else None
    with pipe:
        raw = SpanReader(source, kept.as_it_comes if kept else None)
        buffered = io.BufferedReader(raw, compression.READ_BYTES)
        packed = compression.kind_of(buffered.peek(8)[:8]) != ""
        if kept:
            kept.begin(packed=packed)
        plain = HashedReader(compression.decompressed(buffered), kept.plain if kept else None)
        stream = io.BufferedReader(plain, compression.READ_BYTES)
        _copy_members(tar.Reader(stream.read), scan, pipe)
        for reader in (stream, buffered):
            while reader.read(compression.READ_BYTES):
                pass  # what follows the archive counts for the digests
        _write(pipe, tar.END)
        if kept:
            kept.end()
        return Unpacked(plain.digest, plain.length, raw.digest, scan.left_out)


def _copy_members(reader: tar.Reader, scan: Scan, pipe: io.FileIO) -> None:
    batch = bytearray()
    while (member := reader.next()) is not None:
        judged = scan.judge(member)
        if judged is None:
            continue
        batch += tar.gnu_header(judged)
        for piece in reader.content():
            batch += piece
            if len(batch) >= PIPE_BYTES:
                _write(pipe, batch)
                batch = bytearray()
        batch += tar.padding(judged.size)
    _write(pipe, batch)


def _write(pipe: io.FileIO, data: bytes | bytearray) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(pipe.fileno(), view) :]


@attrs.define(eq=False)
class _Kept:
    """The tar being kept: as it comes if it is compressed, else compressed by us."""

    _writer: BlobWriter
    _head: bytes = b""
    _packed: bool | None = None
    _compressor: zstandard.ZstdCompressionObj | None = None

    def begin(self, *, packed: bool) -> None:
        """Now it is known whether what comes is compressed."""
        self._packed = packed
        if packed:
            self._writer.write(self._head)
        else:
            compressor = zstandard.ZstdCompressor(level=KEPT_COMPRESSION_LEVEL)
            self._compressor = compressor.compressobj()
        self._head = b""

    def as_it_comes(self, data: bytes) -> None:
        """What was read of the source."""
        if self._packed is None:
            self._head += data
        elif self._packed:
            self._writer.write(data)

    def plain(self, data: bytes) -> None:
        """What was read of the tar itself."""
        if self._compressor is not None:
            self._writer.write(self._compressor.compress(data))

    def end(self) -> None:
        """All is read."""
        if self._compressor is not None:
            self._writer.write(self._compressor.flush())
        self._writer.sync()


def _check(answer: object) -> None:
    """Tell how tar ended.

    Raises:
        ResourceExhausted: The disk is full.
        Internal: Anything else: what passed the scan can be unpacked.
    """
    assert isinstance(answer, dict)
    if answer["status"] == 0:
        return
    told = str(answer["told"]).strip()
    if "No space left" in told or "Disk quota exceeded" in told:
        message = "cannot unpack the archive: no space left on the disk"
        raise ResourceExhausted(message, hint="free some space below the daemon's data root")
    raise Internal(f"cannot unpack the archive: tar ended with {answer['status']}: {told:.1000}")


def _make_marks(target: Path, scan: Scan) -> None:
    """Make overlayfs' own marks (Documentation/filesystems/overlayfs) of the archive's. The tree is hostile."""
    root = trees.open_directory(target)
    try:
        for directory in scan.opaque:
            _in_directory(root, directory, _set_opaque)
        for path in scan.whiteouts:
            directory, _, name = path.rpartition(b"/")
            _in_directory(root, directory, lambda fd, name=name: _white_out(fd, name))  # type: ignore[misc]
    finally:
        os.close(root)


def _in_directory(root: int, path: bytes, work: Callable[[int], None]) -> None:
    """Do ``work`` in a directory of the tree, made if it is missing, and leave its time as it was."""
    name = os.fsdecode(path) or "."
    beneath.make_directories_beneath(root, name)
    directory = beneath.open_beneath(root, name, trees.DIRECTORY)
    try:
        before = os.fstat(directory)
        work(directory)
        os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
    finally:
        os.close(directory)


def _set_opaque(directory: int) -> None:
    os.setxattr(directory, OPAQUE_XATTR, b"y")


def _white_out(directory: int, name: bytes) -> None:
    """Mark ``name`` gone. What the archive itself put there stays, and hides what is below."""
    try:
        os.mknod(name, stat.S_IFCHR, 0, dir_fd=directory)
    except FileExistsError:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            inner = os.open(name, trees.DIRECTORY, dir_fd=directory)
            try:
                _set_opaque(inner)
            finally:
                os.close(inner)

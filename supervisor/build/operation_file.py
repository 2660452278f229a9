"""COPY, ADD and WORKDIR: changes to an image's file system made by us, in a snapshot nobody else sees.

The snapshot is mounted with ids as they are on disk, whoever builds, so that what comes out is the same for all and can
be shared. No program of an image is ever run here; archives are unpacked in a cell, then copied.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import trio

from supervisor.build import context as contexts
from supervisor.build import copying
from supervisor.build.content_keys import Digests, content_key
from supervisor.build.context import ContextTree
from supervisor.build.copying import NANOSECONDS_PER_SECOND, Rules
from supervisor.build.graph import Files, MakeDirectory
from supervisor.build.sources import Found, find
from supervisor.errors import InvalidArgument, ResourceExhausted
from supervisor.linux import beneath, mounts
from supervisor.runtime.parts import Parts
from supervisor.runtime.passwd import ContainerUser, resolve_group, resolve_user
from supervisor.store import compression, trees
from supervisor.store.compression import Span, SpanReader
from supervisor.tasks import DIGEST, finish_within, in_thread

CLEANUP_SECONDS = 60.0
ACCOUNT_FILE_BYTES_MAX = 1 << 20
TAR_BLOCK_BYTES = 512

Source = ContextTree | tuple[str, ...]
"""Where files are read from: the context, or the layers of a stage or image."""


@attrs.frozen
class OpenSource:
    """A source that can be read now.

    Attributes:
        root: A directory fd.
        digests: Of its files.
        where: What it is, for messages.
    """

    root: int
    digests: Digests
    where: str


@asynccontextmanager
async def _snapshot(
    parts: Parts, key: str, layers: Sequence[str], owner: int
) -> AsyncIterator[Path]:
    """A snapshot over ``layers`` with canonical ids, gone at the end unless committed; where its root is."""
    plain = await parts.owners.owner(owner, remapped=False)
    try:
        made = await parts.store.snapshots.prepare(
            key, layers, plain, init_layer=not layers, kept=False
        )
        yield made.rootfs
    finally:
        with finish_within(CLEANUP_SECONDS):
            await parts.store.snapshots.remove(key)


@asynccontextmanager
async def _root_of(parts: Parts, rootfs: Path) -> AsyncIterator[int]:
    """An fd of a mounted root; while it is open nobody can unmount it."""
    root = await mounts.open_in_mounts(parts.spawner, rootfs)
    try:
        yield root
    finally:
        os.close(root)


@asynccontextmanager
async def opened(
    parts: Parts, source: Source, step_id: str, owner: int
) -> AsyncIterator[OpenSource]:
    """Make a source readable."""
    if isinstance(source, ContextTree):
        async with source.held():
            root = await in_thread(lambda: trees.open_directory(source.directory))
            try:
                yield OpenSource(root, source.digests, "build context")
            finally:
                os.close(root)
        return
    async with (
        _snapshot(parts, f"{step_id}-source", source, owner) as rootfs,
        _root_of(parts, rootfs) as root,
    ):
        yield OpenSource(root, Digests(), "the stage or image")


async def key_of(op: Files, source: OpenSource) -> str:
    """The content key of what ``op`` reads.

    Raises:
        InvalidArgument: A source is not there, or cannot be read.
    """

    def work() -> str:
        found = find(source.root, op.sources, source.where)
        with _told():
            return content_key(source.root, found, source.digests, owners=op.keep_owner)

    return await in_thread(work, DIGEST)


async def copy_files(
    parts: Parts, op: Files, layers: Sequence[str], source: OpenSource, step_id: str, owner: int
) -> str:
    """Carry out a COPY or ADD over ``layers``; the id of the layer it makes.

    Raises:
        InvalidArgument: A source is not there, or cannot be copied where it shall go.
        ResourceExhausted: The disk is full.
    """
    async with _snapshot(parts, step_id, layers, owner) as rootfs:
        async with _root_of(parts, rootfs) as root, _scratch(parts, step_id) as scratch:
            await _fill(parts, op, source, root, scratch)
        return await _commit(parts, step_id, op.epoch)


async def _fill(parts: Parts, op: Files, source: OpenSource, root: int, scratch: Path) -> None:
    rules = await in_thread(lambda: _rules(root, op))
    found = await in_thread(lambda: find(source.root, op.sources, source.where))
    archives, plain = await _sorted(op, source.root, found)
    with _told():
        for number, archive in enumerate(archives):
            await _unpack(parts, source.root, archive, scratch / str(number))
        kept = rules if op.owner else attrs.evolve(rules, uid=None, gid=None)
        await in_thread(lambda: _copy_trees(scratch, len(archives), root, op.target, kept))
        await in_thread(lambda: _copy(source.root, plain, root, op, rules))


async def make_directory(
    parts: Parts, op: MakeDirectory, layers: Sequence[str], step_id: str, owner: int
) -> str | None:
    """Carry out a WORKDIR; the layer it makes, or None when the directory was there.

    Raises:
        InvalidArgument: Something else is in the way.
    """
    async with _snapshot(parts, step_id, layers, owner) as rootfs:
        async with _root_of(parts, rootfs) as root:
            with _told():
                made = await in_thread(lambda: copying.make_directory(root, op.path, Rules()))
        return await _commit(parts, step_id, op.epoch) if made else None


async def _commit(parts: Parts, key: str, epoch: int | None) -> str:
    if epoch is not None:
        await bound_times(parts, key, epoch)
    return (await parts.store.snapshots.commit(key)).id


async def bound_times(parts: Parts, key: str, epoch: int) -> None:
    """Nothing that was written to the snapshot is newer than ``epoch`` (seconds) any more; it is unmounted."""
    await parts.store.snapshots.unmount(key)
    upper = parts.store.snapshots.upper(key)
    await in_thread(lambda: _bound_times(upper, epoch * NANOSECONDS_PER_SECOND))


def _bound_times(upper: Path, moment_ns: int) -> None:
    root = trees.open_directory(upper)
    try:
        os.utime(root, ns=(moment_ns, moment_ns))
        for entry in trees.walk(root):
            if entry.status.st_mtime_ns > moment_ns:
                times = (moment_ns, moment_ns)
                os.utime(entry.name, ns=times, dir_fd=entry.parent, follow_symlinks=False)
    finally:
        os.close(root)


@contextmanager
def _told() -> Iterator[None]:
    """Turn the kernel's words about a tree into ours."""
    try:
        yield
    except trees.TooDeep as error:
        msg = "cannot copy: the tree is too deep"
        raise InvalidArgument(msg) from error
    except OSError as error:
        kind = ResourceExhausted if error.errno in {errno.ENOSPC, errno.EDQUOT} else InvalidArgument
        msg = f"cannot copy: {error.strerror}"
        raise kind(msg) from error


def _copy(source: int, found: Sequence[Found], root: int, op: Files, rules: Rules) -> None:
    watched = attrs.evolve(rules, stop=trio.from_thread.check_cancelled)
    if found:
        copying.copy(source, found, root, op.target, watched)
    for name, content in op.inline:
        copying.write(root, op.target, name, content.encode("utf-8", "surrogateescape"), watched)


def _copy_trees(scratch: Path, count: int, root: int, target: str, rules: Rules) -> None:
    watched = attrs.evolve(rules, stop=trio.from_thread.check_cancelled)
    for number in range(count):
        source = trees.open_directory(scratch / str(number))
        try:
            copying.copy(source, [Found("", directory=True)], root, target, watched)
        finally:
            os.close(source)


def _rules(root: int, op: Files) -> Rules:
    uid: int | None = None if op.keep_owner else 0
    gid: int | None = uid
    if op.owner:
        user = _owner(root, op.owner)
        uid, gid = user.uid, user.gid
    return Rules(uid, gid, op.mode, op.epoch)


def _owner(root: int, text: str) -> ContainerUser:
    """Who ``--chown`` means, by the image's accounts; a bare uid is also the gid."""
    name, colon, group = text.partition(":")
    passwd = _account_file(root, "etc/passwd")
    groups = _account_file(root, "etc/group")
    user = resolve_user(name or "0", passwd, groups)
    if colon and group:
        return ContainerUser(user.uid, resolve_group(group, groups))
    if name.isascii() and name.isdigit():
        return ContainerUser(user.uid, user.uid)
    return user


def _account_file(root: int, path: str) -> str:
    try:
        return beneath.read_file_beneath(root, path, ACCOUNT_FILE_BYTES_MAX).decode(
            errors="replace"
        )
    except OSError:
        return ""


# Archives


async def _sorted(op: Files, root: int, found: Sequence[Found]) -> tuple[list[Found], list[Found]]:
    """The sources that ADD unpacks, and the others."""
    if not op.unpack:
        return [], list(found)
    archives = await in_thread(lambda: [each for each in found if _is_archive(root, each)])
    return archives, [each for each in found if each not in archives]


def _is_archive(root: int, each: Found) -> bool:
    """A tar, plain or compressed; a compressed file that is none is copied like any other."""
    if each.directory:
        return False
    descriptor = beneath.open_beneath(root, each.path, os.O_RDONLY)
    try:
        reader = io.BufferedReader(SpanReader(Span(descriptor)))
        return _is_header(compression.decompressed(reader).read(TAR_BLOCK_BYTES))
    except InvalidArgument:
        return False
    finally:
        os.close(descriptor)


def _is_header(block: bytes) -> bool:
    """Whether a tar can begin like this: its checksum is right. See tar(5)."""
    field = block[148:156].strip(b" \0")
    if len(block) < TAR_BLOCK_BYTES or not field or field.strip(b"01234567"):
        return False
    return sum(block) - sum(block[148:156]) + 8 * ord(" ") == int(field, 8)


async def _unpack(parts: Parts, root: int, archive: Found, tree: Path) -> None:
    await in_thread(lambda: tree.mkdir(mode=0o755))
    descriptor = await in_thread(lambda: beneath.open_beneath(root, archive.path, os.O_RDONLY))
    try:
        await contexts.unpack(descriptor, tree, parts.spawner, parts.config.build, keep_owners=True)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def _scratch(parts: Parts, step_id: str) -> AsyncIterator[Path]:
    """A directory of ours for unpacked archives, made when it is first wanted."""
    place = parts.data_root / "builds" / f"{step_id}-archives"
    await in_thread(lambda: place.mkdir(mode=0o700))
    try:
        yield place
    finally:
        with finish_within(CLEANUP_SECONDS):
            await in_thread(lambda: trees.remove(place))

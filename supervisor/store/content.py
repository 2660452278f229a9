"""Blobs by their digest: the tars that layers came as, kept so that they go out again as they were.

Rules: a blob is written beside its place, brought to disk, and only then renamed to it; what a crash left
half written is removed at the next start. Nobody reaches a blob by its digest from outside: see
:mod:`supervisor.store.images`. Everything here blocks: call it in a thread.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from supervisor.oci import digest as digests
from supervisor.store import trees

DIRECTORY_MODE = 0o700
BLOB_MODE = 0o600


@attrs.define(eq=False)
class BlobWriter:
    """One blob being written; made by :meth:`Content.writer`."""

    _content: Content
    _path: Path
    _descriptor: int
    _hash: hashlib._Hash = attrs.field(factory=hashlib.sha256)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append ``data``.

        Raises:
            OSError: The disk is full or broken.
        """
        self._hash.update(data)
        left = memoryview(data)
        while left:
            left = left[os.write(self._descriptor, left) :]

    def sync(self) -> None:
        """Bring to disk what was written so far, so that :meth:`commit` is quick.

        Raises:
            OSError: The disk is full or broken.
        """
        os.fsync(self._descriptor)

    def commit(self) -> str:
        """Bring it to disk and to its place; its digest. To have the same blob already is success.

        Raises:
            OSError: The disk is full or broken.
        """
        digest = f"{digests.ALGORITHM}:{self._hash.hexdigest()}"
        self.sync()
        self._path.rename(self._content.path(digest))
        return digest


@attrs.frozen
class Content:
    """The blobs below one directory."""

    root: Path

    def open(self) -> None:
        """Make the directories; drop what was half written."""
        for directory in (self.root, self._blobs, self._ingest):
            directory.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        trees.empty(self._ingest)

    def path(self, digest: str) -> Path:
        """Where the blob is, or would be."""
        return self._blobs / digests.encoded(digests.parse(digest))

    def has(self, digest: str) -> bool:
        """Whether it is here."""
        return self.path(digest).exists()

    def digests(self) -> list[str]:
        """All blobs here."""
        return [f"{digests.ALGORITHM}:{path.name}" for path in self._blobs.iterdir()]

    def remove(self, digest: str) -> None:
        """Remove a blob. Success means it is gone."""
        self.path(digest).unlink(missing_ok=True)

    @contextmanager
    def writer(self) -> Iterator[BlobWriter]:
        """A new blob; leaving without :meth:`BlobWriter.commit` forgets it."""
        path = self._ingest / secrets.token_hex(16)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, BLOB_MODE)
        try:
            yield BlobWriter(self, path, descriptor)
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)

    @property
    def _blobs(self) -> Path:
        return self.root / digests.ALGORITHM

    @property
    def _ingest(self) -> Path:
        return self.root / "ingest"

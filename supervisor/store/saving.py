"""Images that go out: one archive that ``docker load`` takes and that is an OCI image layout too.

Rules: what goes out loads again as the same images, to the digest; what is on disk is held to its digest on the way.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import AsyncGenerator, Iterator, Sequence

import attrs
import orjson

from protocol.events import ImageSave
from supervisor.access.identity import Identity
from supervisor.errors import Internal, InvalidArgument
from supervisor.oci import digest as digests
from supervisor.oci import image as oci
from supervisor.oci import reference as references
from supervisor.oci import tar
from supervisor.oci.image import Descriptor, Manifest
from supervisor.oci.reference import Reference
from supervisor.oci.tar import Kind, Member
from supervisor.store import compression, packing
from supervisor.store.compression import Span
from supervisor.store.image_records import Image
from supervisor.store.images import Images, resolve_in, scope_of
from supervisor.store.layers import Layer, Layers
from supervisor.tasks import DIGEST, in_thread

Chosen = Sequence[tuple[Image, Sequence[Reference]]]


@attrs.frozen
class Saving:
    """Saves for one store."""

    images: Images
    layers: Layers

    async def save(self, identity: Identity, texts: Sequence[str]) -> AsyncGenerator[bytes, None]:
        """An archive of these images, piece by piece. Close it (``contextlib.aclosing``) when not reading to the end.

        Args:
            identity: Who asks.
            texts: Names and ids; what is given by name has this name in the archive, a repository alone all its tags.

        Raises:
            NotFound: One of them means nothing.
            InvalidArgument: None is named.
        """
        if not texts:
            message = "cannot save images: none is named"
            raise InvalidArgument(message)
        chosen = await self.images.database.read(lambda c: _chosen(c, identity, texts))
        return self._pieces(identity, chosen)

    async def _pieces(self, identity: Identity, chosen: Chosen) -> AsyncGenerator[bytes, None]:
        ids = [layer for image, _ in chosen for layer in image.layers]
        async with self.layers.busy(ids):
            pieces = self._archive(chosen, await self.layers.packed(ids))
            while (piece := await in_thread(lambda: next(pieces, None), DIGEST)) is not None:
                yield piece
        for image, _ in chosen:
            name = image.names[0].familiar if image.names else image.id
            await self.images.events.emit(
                ImageSave(), owner=identity.owner, subject=image.id, attributes={"name": name}
            )

    def _archive(self, chosen: Chosen, layers: Sequence[Layer]) -> Iterator[bytes]:
        """The archive, piece by piece; runs in threads."""
        by_diff_id = {str(layer.diff_id): layer for layer in layers}
        for diff_id, layer in sorted(by_diff_id.items()):
            assert layer.tar_bytes is not None
            yield _header(_blob_path(diff_id), layer.tar_bytes)
            yield from self._layer_tar(layer)
            yield tar.padding(layer.tar_bytes)
        entries: list[dict[str, object]] = []
        descriptors: list[Descriptor] = []
        for image, names in chosen:
            manifest = oci.manifest_json(_manifest(image, by_diff_id))
            yield _whole(_blob_path(image.id), image.config_bytes)
            yield _whole(_blob_path(digests.of(manifest)), manifest)
            entries.append(_entry(image, names))
            descriptors += _descriptors(manifest, names)
        yield _whole("manifest.json", orjson.dumps(entries))
        yield _whole("index.json", oci.index_json(descriptors))
        yield _whole("oci-layout", b'{"imageLayoutVersion":"1.0.0"}') + tar.END

    def _layer_tar(self, layer: Layer) -> Iterator[bytes]:
        left = layer.tar_bytes or 0
        taken = hashlib.sha256()
        for piece in self._tar_of(layer):
            left -= len(piece)
            taken.update(piece)
            yield piece
        if left or f"{digests.ALGORITHM}:{taken.hexdigest()}" != layer.diff_id:
            message = f"cannot save layer {layer.id}: what is on disk is not what it was"
            raise Internal(message)

    def _tar_of(self, layer: Layer) -> Iterator[bytes]:
        if layer.blob is None:
            yield from packing.pieces(self.layers.path(layer.id))
            return
        with self.layers.content.path(layer.blob).open("rb") as file:
            yield from compression.pieces(Span(file.fileno()))


def _chosen(connection: sqlite3.Connection, identity: Identity, texts: Sequence[str]) -> Chosen:
    chosen: dict[str, tuple[Image, list[Reference]]] = {}
    for text in texts:
        image = resolve_in(connection, scope_of(identity), text)
        _, names = chosen.setdefault(image.id, (image, []))
        names += [name for name in _saved_names(image, text) if name not in names]
    return list(chosen.values())


def _saved_names(image: Image, text: str) -> list[Reference]:
    """The name that was said; none for an id."""
    try:
        name = references.parse(text)
    except InvalidArgument:
        return []
    return [name.tagged] if name.tagged in image.names else []


def _manifest(image: Image, layers: dict[str, Layer]) -> Manifest:
    config = Descriptor(oci.MEDIA_CONFIG, image.id, len(image.config_bytes))
    listed = [
        Descriptor(oci.MEDIA_LAYER, diff_id, layers[diff_id].tar_bytes or 0)
        for diff_id in image.config.diff_ids
    ]
    return Manifest(config, tuple(listed))


def _entry(image: Image, names: Sequence[Reference]) -> dict[str, object]:
    """The image's line in docker's manifest.json."""
    return {
        "Config": _blob_path(image.id),
        "RepoTags": [name.familiar for name in names] or None,
        "Layers": [_blob_path(diff_id) for diff_id in image.config.diff_ids],
    }


def _descriptors(manifest: bytes, names: Sequence[Reference]) -> list[Descriptor]:
    """The image's lines in the OCI index: one a name, as containerd has it."""
    plain = Descriptor(oci.MEDIA_MANIFEST, digests.of(manifest), len(manifest))
    return [
        attrs.evolve(
            plain,
            annotations={
                oci.ANNOTATION_IMAGE_NAME: name.canonical,
                oci.ANNOTATION_REFERENCE: name.tag,
            },
        )
        for name in names
    ] or [plain]


def _blob_path(digest: str) -> str:
    return f"blobs/{digests.ALGORITHM}/{digests.encoded(digest)}"


def _header(name: str, size: int) -> bytes:
    return tar.pax_header(Member(name.encode(), Kind.FILE, size=size))


def _whole(name: str, data: bytes) -> bytes:
    return _header(name, len(data)) + data + tar.padding(len(data))

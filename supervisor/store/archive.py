"""What is in an image archive: of ``docker save``, or an OCI image layout. Only read, nothing believed.

Words: a *part* is a file of the archive; a *wanted image* is what the archive says of one image: config, layers, names.

Rules: a digest that is told is checked where the bytes are read; layers and configs come out of the archive or not at
all: no address in it is ever followed (attacks.md 7). Blocks: call it in a thread.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
from collections.abc import Mapping, Sequence

import attrs

from supervisor.errors import InvalidArgument
from supervisor.oci import digest as digests
from supervisor.oci import image as oci
from supervisor.oci import reference as references
from supervisor.oci import tar
from supervisor.oci.image import Descriptor, ImageConfig
from supervisor.oci.reference import Reference
from supervisor.oci.tar import Kind
from supervisor.store import compression
from supervisor.store.compression import HashedReader, Span, SpanReader

PARTS_MAX = 10_000
IMAGES_MAX = 500
INDEX_DEPTH_MAX = 3
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le"}

_HEX_NAME = re.compile(r"(?:.*/)?([0-9a-f]{64})(?:\.json)?")


@attrs.frozen
class WantedLayer:
    """A layer of an archive: where it is, what it must be; ``digest`` is empty when the archive does not say."""

    span: Span
    diff_id: str
    digest: str = ""


@attrs.frozen
class WantedImage:
    """An image of an archive."""

    id: str
    config_bytes: bytes
    config: ImageConfig
    layers: tuple[WantedLayer, ...]
    names: tuple[Reference, ...]


@attrs.frozen
class Archive:
    """An archive whose parts are known."""

    descriptor: int
    parts: Mapping[str, Span]

    def images(self, layers_max: int) -> list[WantedImage]:
        """All images in it.

        Raises:
            InvalidArgument: It is no image archive, or is not what it says.
        """
        if "manifest.json" in self.parts:
            found = self._of_docker()
        elif "index.json" in self.parts:
            found = self._of_oci()
        else:
            raise _wrong(
                "there is neither manifest.json nor index.json in it; to make an image of a tar, use import"
            )
        if not found:
            raise _wrong("there is no image in it")
        for image in found:
            if len(image.layers) > layers_max:
                message = f"image {image.id} has {len(image.layers)} layers, more than {layers_max}"
                raise _wrong(message)
        return found

    def _of_docker(self) -> list[WantedImage]:
        entries = oci.parse_archive_manifest(self._read("manifest.json", oci.MANIFEST_BYTES_MAX))
        return [self._docker_image(entry) for entry in entries[: IMAGES_MAX + 1]]

    def _docker_image(self, entry: oci.ArchiveEntry) -> WantedImage:
        data = self._read(entry.config, oci.CONFIG_BYTES_MAX)
        match = _HEX_NAME.fullmatch(entry.config)
        if match and digests.encoded(digests.of(data)) != match.group(1):
            message = f"the config {entry.config} has the digest {digests.of(data)}"
            raise _wrong(message)
        names = tuple(references.parse(tag).tagged for tag in entry.tags)
        blobs = [(self._part(layer), _told_digest(layer)) for layer in entry.layers]
        return _image(data, blobs, names)

    def _of_oci(self) -> list[WantedImage]:
        found: list[WantedImage] = []
        pending = [
            (one, 0) for one in oci.parse_index(self._read("index.json", oci.MANIFEST_BYTES_MAX))
        ]
        while pending:
            descriptor, depth = pending.pop(0)
            if depth > INDEX_DEPTH_MAX or len(found) > IMAGES_MAX or len(pending) > IMAGES_MAX:
                raise _wrong("there are too many images in it, or indexes within indexes")
            if descriptor.media_type in oci.INDEXES:
                inner = oci.parse_index(self._blob(descriptor, oci.MANIFEST_BYTES_MAX))
                named = [
                    attrs.evolve(one, annotations={**descriptor.annotations, **one.annotations})
                    for one in inner
                ]
                pending += [(one, depth + 1) for one in named if _ours(one)]
            elif descriptor.media_type in oci.MANIFESTS:
                found.append(self._oci_image(descriptor))
        return found

    def _oci_image(self, descriptor: Descriptor) -> WantedImage:
        manifest = oci.parse_manifest(self._blob(descriptor, oci.MANIFEST_BYTES_MAX))
        data = self._blob(manifest.config, oci.CONFIG_BYTES_MAX)
        blobs = [(self._described(layer), layer.digest) for layer in manifest.layers]
        return _image(data, blobs, _annotated_names(descriptor))

    def _described(self, descriptor: Descriptor) -> Span:
        """Where a described blob is.

        Raises:
            InvalidArgument: It is not in the archive, or not as long as it says.
        """
        span = self._part(f"blobs/{digests.ALGORITHM}/{digests.encoded(descriptor.digest)}")
        if span.size() != descriptor.size:
            message = (
                f"{descriptor.digest} is {span.size()} bytes long and should be {descriptor.size}"
            )
            raise _wrong(message)
        return span

    def _blob(self, descriptor: Descriptor, bytes_max: int) -> bytes:
        span = self._described(descriptor)
        data = _bytes(span, bytes_max, descriptor.digest)
        if digests.of(data) != descriptor.digest:
            message = f"{descriptor.digest} has the digest {digests.of(data)}"
            raise _wrong(message)
        return data

    def _part(self, name: str) -> Span:
        span = self.parts.get(posixpath.normpath(name))
        if span is None:
            message = f"{name:.200} is not in it, and nothing is fetched from elsewhere"
            raise _wrong(message)
        return span

    def _read(self, name: str, bytes_max: int) -> bytes:
        return _bytes(self._part(name), bytes_max, name)


def read(descriptor: int) -> Archive:
    """Find the parts of the plain tar in an open file.

    Raises:
        InvalidArgument: It is no tar, or has too many parts.
    """
    raw = SpanReader(Span(descriptor))
    stream = io.BufferedReader(raw, compression.READ_BYTES)
    reader = tar.Reader(stream.read)
    parts: dict[str, Span] = {}
    links: dict[str, str] = {}
    while (member := reader.next()) is not None:
        name = posixpath.normpath(os.fsdecode(member.name))
        if member.kind is Kind.FILE:
            parts[name] = Span(descriptor, reader.position, member.size)
        elif member.kind in {Kind.SYMBOLIC_LINK, Kind.HARD_LINK}:
            link = os.fsdecode(member.link)
            base = posixpath.dirname(name) if member.kind is Kind.SYMBOLIC_LINK else ""
            links[name] = posixpath.normpath(posixpath.join(base, link))
        if len(parts) + len(links) > PARTS_MAX:
            message = f"there are more than {PARTS_MAX} files in it"
            raise _wrong(message)
    # Old versions of docker save wrote a layer once and linked to it.
    linked = {name: parts[target] for name, target in links.items() if target in parts}
    return Archive(descriptor, linked | parts)


def check(layer: WantedLayer, bytes_max: int) -> None:
    """Read a layer that is here already: who has its digest must have its content too.

    Raises:
        InvalidArgument: It is not what it says, damaged, or larger than the bound.
    """
    raw = SpanReader(layer.span)
    buffered = io.BufferedReader(raw, compression.READ_BYTES)
    plain = HashedReader(compression.decompressed(buffered))
    buffer = bytearray(compression.READ_BYTES)
    while plain.readinto(buffer):
        if plain.length > bytes_max:
            raise _wrong("a layer is larger than is allowed")
    while buffered.read(compression.READ_BYTES):
        pass
    check_digests(layer, plain.digest, raw.digest)


def check_digests(layer: WantedLayer, diff_id: str, digest: str) -> None:
    """Hold a layer to what was told of it.

    Raises:
        InvalidArgument: It is another.
    """
    if diff_id != layer.diff_id:
        message = f"a layer has the digest {diff_id}, and the config says {layer.diff_id}"
        raise _wrong(message)
    if layer.digest not in {"", digest}:
        message = f"a layer has the digest {digest}, and the archive says {layer.digest}"
        raise _wrong(message)


def _image(
    data: bytes, blobs: Sequence[tuple[Span, str]], names: tuple[Reference, ...]
) -> WantedImage:
    config = oci.parse_config(data)
    if config.os != "linux":
        message = f"it is an image for {config.os:.40}"
        raise _wrong(message)
    if len(config.diff_ids) != len(blobs):
        message = f"its config tells of {len(config.diff_ids)} layers, its manifest of {len(blobs)}"
        raise _wrong(message)
    layers = tuple(
        WantedLayer(span, diff_id, digest)
        for (span, digest), diff_id in zip(blobs, config.diff_ids, strict=True)
    )
    return WantedImage(digests.of(data), data, config, layers, names)


def _told_digest(path: str) -> str:
    """In newer archives of docker save a layer's path is its digest."""
    match = re.fullmatch(r"blobs/sha256/([0-9a-f]{64})", path)
    return f"{digests.ALGORITHM}:{match.group(1)}" if match else ""


def _annotated_names(descriptor: Descriptor) -> tuple[Reference, ...]:
    """Containerd's full name if it is there; else the OCI name, where it is more than a tag."""
    full = descriptor.annotations.get(oci.ANNOTATION_IMAGE_NAME, "")
    short = descriptor.annotations.get(oci.ANNOTATION_REFERENCE, "")
    text = full or (short if "/" in short or ":" in short else "")
    return (references.parse(text).tagged,) if text else ()


def _ours(descriptor: Descriptor) -> bool:
    """Of the manifests of an index, those this machine can run."""
    own = ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    return descriptor.architecture in {"", own} and descriptor.os in {"", "linux"}


def _bytes(span: Span, bytes_max: int, name: str) -> bytes:
    if span.size() > bytes_max:
        message = f"{name:.200} is larger than {bytes_max} bytes"
        raise _wrong(message)
    return os.pread(span.descriptor, span.size(), span.offset)


def _wrong(why: str) -> InvalidArgument:
    return InvalidArgument(f"cannot load the archive: {why}")

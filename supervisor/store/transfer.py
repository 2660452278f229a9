"""Images that come in: load and import.

Rules: nothing half done: layers are unpacked first, images and names appear in one unit at the end, or not at all.
What comes in is bounded.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import AsyncExitStack, aclosing

import attrs

from protocol.events import ImageImport, ImageLoad
from supervisor import clock
from supervisor.access.identity import Identity
from supervisor.config import StoreConfig
from supervisor.oci import image as oci
from supervisor.oci.reference import Reference
from supervisor.store import archive, compression
from supervisor.store import image_records as records
from supervisor.store.archive import WantedImage, WantedLayer
from supervisor.store.compression import Span
from supervisor.store.image_records import Image
from supervisor.store.images import Images, wanted_name
from supervisor.store.layers import Layer, Layers
from supervisor.store.packing import Packed
from supervisor.store.spool import Spool
from supervisor.store.unpack import Unpacker
from supervisor.tasks import DIGEST, in_thread

IMPORT_COMMENT = "Imported from -"


@attrs.frozen
class Loaded:
    """One line of what ``docker load`` prints: a name, or an image without one."""

    image: str
    name: str = ""


@attrs.frozen
class Transfer:
    """Loads and imports for one store."""

    images: Images
    layers: Layers
    spool: Spool
    unpacker: Unpacker
    config: StoreConfig

    # --- load ---------------------------------------------------------------------------------------------------

    async def load(self, identity: Identity, stream: AsyncIterable[bytes]) -> list[Loaded]:
        """Take the images of an archive of ``docker save`` or an OCI layout, compressed or not.

        Raises:
            InvalidArgument: It is none, damaged, not what it says, or an attack.
            ResourceExhausted: It is larger than the bounds, or the disk is full.
        """
        async with self.spool.spooled(stream) as span, AsyncExitStack() as held:
            plain = await self._plain(span, held)
            found = await in_thread(lambda: archive.read(plain.descriptor))
            wanted = await in_thread(lambda: found.images(self.config.layers_per_image_max))
            unpacked: list[str] = []
            try:
                layers = [await self._take_layers(image, unpacked, held) for image in wanted]
                told = await self._record_loaded(identity, wanted, layers)
            finally:
                await self.layers.settle(unpacked)
            return told

    async def _plain(self, span: Span, held: AsyncExitStack) -> Span:
        """The archive uncompressed, so that parts of it can be read by position."""
        head = os.pread(span.descriptor, 8, span.offset)
        if not compression.kind_of(head):
            return span
        stream = await held.enter_async_context(aclosing(_decompressing(span)))
        return await held.enter_async_context(self.spool.spooled(stream))

    async def _take_layers(
        self, image: WantedImage, unpacked: list[str], held: AsyncExitStack
    ) -> list[Layer]:
        taken = []
        for wanted in image.layers:
            known = await self.layers.by_diff_id(wanted.diff_id)
            if known is not None:
                await held.enter_async_context(self.layers.busy([known.id]))
                await in_thread(lambda w=wanted: self._check(w), DIGEST)  # type: ignore[misc]
                taken.append(known)
                continue
            layer = await self._unpack(wanted)
            unpacked.append(layer.id)
            taken.append(layer)
        return taken

    def _check(self, wanted: WantedLayer) -> None:
        archive.check(wanted, self.config.layer_bytes_max)

    async def _unpack(self, wanted: WantedLayer) -> Layer:
        async with self.layers.place() as place:
            with self.layers.content.writer() as writer:
                came = await self.unpacker.unpack(wanted.span, place, writer)
                archive.check_digests(wanted, came.diff_id, came.digest)
                packed = Packed(came.diff_id, came.tar_bytes)
                return await self.layers.adopt(place, packed=packed, keep=writer)

    async def _record_loaded(
        self, identity: Identity, wanted: Sequence[WantedImage], layers: Sequence[Sequence[Layer]]
    ) -> list[Loaded]:
        def work(connection: sqlite3.Connection) -> list[Loaded]:
            told: list[Loaded] = []
            for image, own_layers in zip(wanted, layers, strict=True):
                ids = [layer.id for layer in own_layers]
                size = sum(layer.bytes for layer in own_layers)
                records.insert(connection, image.config_bytes, image.id, ids, size)
                records.own(connection, identity.owner, image.id)
                for name in image.names:
                    records.name(connection, identity.owner, name, image.id)
                    event = ImageLoad(reference=name.familiar)
                    self.images.record(connection, event, identity.owner, image.id, name)
                    told.append(Loaded(image.id, name.familiar))
                if not image.names:
                    self.images.record(connection, ImageLoad(), identity.owner, image.id, None)
                    told.append(Loaded(image.id))
            return told

        return await self.images.database.write(work)

    # --- import -------------------------------------------------------------------------------------------------

    async def import_(
        self,
        identity: Identity,
        stream: AsyncIterable[bytes],
        reference: str = "",
        execution: oci.Execution | None = None,
        message: str = "",
        platform: tuple[str, str] | None = None,
    ) -> Image:
        """Make an image of one layer of a file system's tar, compressed or not.

        Args:
            identity: Whose it is.
            stream: The tar.
            reference: The name it gets; none if empty.
            execution: How its containers are run, as ``--change`` says.
            message: Kept in its history.
            platform: Architecture and variant it is for; this host's if they are not said.

        Raises:
            InvalidArgument: It is no tar, damaged, or an attack; or ``reference`` is no name.
            ResourceExhausted: It is larger than the bounds, or the disk is full.
        """
        name = wanted_name(reference) if reference else None
        async with self.spool.spooled(stream) as span:
            return await self.import_span(identity, span, name, execution, message, platform)

    async def import_span(
        self,
        identity: Identity,
        span: Span,
        name: Reference | None,
        execution: oci.Execution | None = None,
        message: str = "",
        platform: tuple[str, str] | None = None,
    ) -> Image:
        """As :meth:`import_`, of a tar that is in a file."""
        async with self.layers.place() as place:
            await self.unpacker.unpack(span, place)
            layer = await self.layers.adopt(place)
        now = clock.rfc3339(clock.now_ns())
        own = archive.ARCHITECTURES.get(os.uname().machine, os.uname().machine)
        architecture, variant = platform or (own, "")
        config = oci.ImageConfig(
            architecture=architecture,
            variant=variant,
            created=now,
            config=execution or oci.Execution(),
            history=(oci.History(created=now, comment=message or IMPORT_COMMENT),),
        )
        told = ImageImport(reference=name.familiar if name else "")
        try:
            return await self.images.create_from(
                config, [layer.id], identity.owner, [name] if name else [], also=[told]
            )
        finally:
            await self.layers.settle([layer.id])


async def _decompressing(span: Span) -> AsyncGenerator[bytes, None]:
    pieces = compression.pieces(span)
    while (piece := await in_thread(lambda: next(pieces, None), DIGEST)) is not None:
        yield piece

"""Images: what people name, and reach by those names alone.

Words:
    scope: Where somebody looks: their own names, then those the administrators share.
    publish: To give an image a name in the shared namespace. Only administrators do.

Rules: content is shared between all who have it, names are private; one's own name wins over a shared one; what is not
in the scope does not exist (attacks.md 16, 17), so every way in goes through :meth:`Images.resolve`. Messages are
Docker's. A change and its event are one unit.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence

import attrs

from protocol.events import EventData, ImageDelete, ImagePrune, ImagePublish, ImageTag, ImageUntag
from protocol.times import parse_time
from supervisor.access.identity import Identity
from supervisor.database.database import Database
from supervisor.errors import InvalidArgument, NotFound, PermissionDenied
from supervisor.events.journal import Events
from supervisor.oci import digest as digests
from supervisor.oci import image as oci
from supervisor.oci import reference as references
from supervisor.oci.reference import Reference
from supervisor.store import image_records as records
from supervisor.store import image_removal
from supervisor.store.image_records import SHARED, Image
from supervisor.store.image_removal import User as User  # noqa: PLC0414  # UsersOf speaks of it
from supervisor.store.layers import Layers

UsersOf = Callable[[str], Sequence[User]]


@attrs.frozen
class Removed:
    """One line of what ``docker rmi`` prints: a name that is gone, or an image (its id) that is."""

    untagged: str = ""
    deleted: str = ""


@attrs.frozen
class ImageFilter:
    """Which images to list; what is empty or None does not matter.

    Attributes:
        references: Patterns as ``docker images --filter reference=`` takes them; one must match.
        dangling: Only those without a name, or only those with one.
        labels: ``key`` or ``key=value``; all must be there.
        labels_not: Likewise; none may be there.
        before: Made before this image.
        since: Made after it.
        until_ns: Made before this time.
        intermediate: Also those without a name that others were built on.
    """

    references: tuple[str, ...] = ()
    dangling: bool | None = None
    labels: tuple[str, ...] = ()
    labels_not: tuple[str, ...] = ()
    before: str = ""
    since: str = ""
    until_ns: int = 0
    intermediate: bool = False


@attrs.frozen
class HistoryEntry:
    """One step of an image's making, as ``docker history`` prints it; ``id`` is empty for all but the last."""

    id: str
    created_ns: int
    created_by: str
    comment: str
    bytes: int
    names: tuple[str, ...]


@attrs.define(eq=False)
class Images:
    """The images of this store. Made by :func:`supervisor.store.store.open_store`."""

    database: Database
    events: Events
    layers: Layers
    _users_of: UsersOf = attrs.field(default=lambda _: ())

    def watch_users(self, users_of: UsersOf) -> None:
        """From now on ask ``users_of`` which containers use an image."""
        self._users_of = users_of

    # --- looking ------------------------------------------------------------------------------------------------

    async def resolve(self, identity: Identity, text: str) -> Image:
        """The image that ``text``, a name or (the beginning of) an id, means for this person.

        Raises:
            NotFound: It means none of theirs and none that is shared.
            InvalidArgument: It is the beginning of several ids, or no name at all.
        """
        return await self.database.read(lambda c: resolve_in(c, scope_of(identity), text))

    async def config_of(self, image_id: str) -> oci.ImageConfig | None:
        """What an image that is held (by a container, say) says of itself; nothing if it was removed. Asks nobody's leave."""
        return await self.database.read(lambda c: records.config_of(c, image_id))

    async def exists(self, identity: Identity, text: str) -> bool:
        """Whether :meth:`resolve` would find it."""
        try:
            await self.resolve(identity, text)
        except (NotFound, InvalidArgument):
            return False
        return True

    async def list(self, identity: Identity, wanted: ImageFilter | None = None) -> Sequence[Image]:
        """What this person has and what is shared, newest first; one that is both is told once, with all its names.

        Raises:
            NotFound: ``before`` or ``since`` is no image of theirs.
        """
        chosen = wanted or ImageFilter()
        found = await self.database.read(lambda c: _all(c, scope_of(identity)))
        bounds = [await self._moment(identity, text) for text in (chosen.before, chosen.since)]
        parents = set() if chosen.intermediate else {image.parent for image in found}
        return [
            _as_asked_for(image, chosen)
            for image in found
            if (image.names or image.id not in parents) and _matches(image, chosen, *bounds)
        ]

    async def history(self, image: Image) -> Sequence[HistoryEntry]:
        """How it was made, the last step first."""
        sizes = iter([layer.bytes for layer in await self.layers.get(image.layers)])
        steps = [
            HistoryEntry(
                id="",
                created_ns=_time(step.created),
                created_by=step.created_by,
                comment=step.comment,
                bytes=0 if step.empty_layer else next(sizes, 0),
                names=(),
            )
            for step in image.config.history
        ]
        if steps:
            names = tuple(name.familiar for name in image.names)
            steps[-1] = attrs.evolve(steps[-1], id=image.id, names=names)
        return steps[::-1]

    async def layer_bytes(self, identity: Identity) -> int:
        """What the layers of all this person's and the shared images take, each counted once."""
        return await self.database.read(lambda c: records.layer_bytes(c, scope_of(identity)))

    # --- naming -------------------------------------------------------------------------------------------------

    async def tag(self, identity: Identity, source: str, target: str) -> Image:
        """Give what ``source`` means a further name of this person's; a name that led elsewhere now leads here.

        Raises:
            NotFound: ``source`` means nothing.
            InvalidArgument: ``target`` is no name, or has a digest.
        """
        name = wanted_name(target)

        def work(connection: sqlite3.Connection) -> Image:
            image = resolve_in(connection, scope_of(identity), source)
            records.own(connection, identity.owner, image.id, image.parent)
            records.name(connection, identity.owner, name, image.id)
            self.record(
                connection, ImageTag(reference=name.familiar), identity.owner, image.id, name
            )
            return image

        return await self.database.write(work)

    async def publish(
        self, identity: Identity, source: str, target: str = "", *, keep_own: bool = True
    ) -> Image:
        """Give what ``source`` means a name that everybody on the host may use; by default the same.

        Args:
            identity: An administrator.
            source: A name or an id.
            target: The shared name.
            keep_own: ``False`` gives up the administrator's own image if it has no name of theirs.

        Raises:
            PermissionDenied: An administrator it is not.
            NotFound: ``source`` means nothing.
            InvalidArgument: There is no name to give.
        """
        if not identity.admin:
            raise PermissionDenied(
                f"cannot publish {source}: only administrators share images with everybody",
                hint="others can load what you save: docker image save",
            )
        name = wanted_name(target or source)

        def work(connection: sqlite3.Connection) -> Image:
            image = resolve_in(connection, scope_of(identity), source)
            records.own(connection, SHARED, image.id, image.parent)
            records.name(connection, SHARED, name, image.id)
            data = ImagePublish(reference=name.familiar)
            self.record(connection, data, identity.owner, image.id, name)
            if not keep_own and not image.shared and not image.names:
                records.disown(connection, image.owner, image.id)
            shared = records.read(connection, SHARED, image.id)
            assert shared is not None
            return shared

        return await self.database.write(work)

    async def create_from(
        self,
        config: oci.ImageConfig,
        layer_ids: Sequence[str],
        owner: int,
        tags: Sequence[Reference] = (),
        *,
        parent: str = "",
        also: Sequence[EventData] = (),
    ) -> Image:
        """Make an image of layers that are here; its ``diff_ids`` are taken from them.

        Args:
            config: All but the ``diff_ids``.
            layer_ids: Bottom first. Those that were fresh are kept by the image from now on.
            owner: Whose.
            tags: Names it gets.
            parent: What it was built on, for ``docker inspect``.
            also: Events told of it in the same unit.

        Raises:
            NotFound: A layer is gone.
            InvalidArgument: A layer's tree is too deep for a tar.
        """
        packed = await self.layers.packed(layer_ids)
        diff_ids = tuple(layer.diff_id for layer in packed if layer.diff_id)
        data = oci.config_json(attrs.evolve(config, diff_ids=diff_ids))
        image_id = digests.of(data)
        size = sum(layer.bytes for layer in packed)

        def work(connection: sqlite3.Connection) -> Image:
            records.insert(connection, data, image_id, layer_ids, size)
            records.own(connection, owner, image_id, parent)
            for event in also:
                self.record(connection, event, owner, image_id, None)
            for tag in tags:
                records.name(connection, owner, tag.tagged, image_id)
                event = ImageTag(reference=tag.tagged.familiar)
                self.record(connection, event, owner, image_id, tag.tagged)
            image = records.read(connection, owner, image_id)
            assert image is not None
            return image

        image = await self.database.write(work)
        self.layers.used(layer_ids)
        return image

    # --- removing -----------------------------------------------------------------------------------------------

    async def remove(
        self, identity: Identity, text: str, *, force: bool = False, parents: bool = True
    ) -> Sequence[Removed]:
        """What ``docker rmi`` does: take a name away, and with the last one the image, unless others were built on it.

        Args:
            identity: Who asks.
            text: A name, or an id, by which all names go.
            force: Also when a container that has ended uses it, or several repositories name it.
            parents: Those it was built on go too, where they have no name and nothing else needs them.

        Raises:
            NotFound: It means none of theirs.
            Conflict: A container uses it, several repositories name it, or others were built on it.
            PermissionDenied: It is shared, and they are no administrator.
        """

        def work(connection: sqlite3.Connection) -> list[Removed]:
            image = resolve_in(connection, scope_of(identity), text)
            image_removal.check_allowed(image, text, admin=identity.admin)
            removed = [*self._remove_in(connection, identity, image, text, force=force)]
            if parents and removed[-1].deleted:
                removed += self._forget_parents(connection, identity, image)
            return removed

        removed = await self.database.write(work)
        await self.layers.collect()
        return removed

    async def prune(
        self, identity: Identity, wanted: ImageFilter | None = None, *, unnamed_only: bool = True
    ) -> tuple[Sequence[Removed], int]:
        """Remove this person's images that no container uses: those without a name, or all; also the bytes that are free."""
        chosen = wanted or ImageFilter()

        def work(connection: sqlite3.Connection) -> list[Removed]:
            removed: list[Removed] = []
            every = records.all_of(connection, identity.owner)
            for image in sorted(every, key=lambda one: one.created_ns, reverse=True):
                if self._users(image) or not _matches(image, chosen, 0, 0):
                    continue
                if records.has_children(connection, image):  # their own go before them, if they go
                    removed += () if unnamed_only else self._unname(connection, identity, image)
                elif not (unnamed_only and image.names):
                    removed += self._forget(connection, identity, image)
            return removed

        removed = await self.database.write(work)
        reclaimed = await self.layers.collect()
        if removed:
            data = ImagePrune(reclaimed_bytes=reclaimed)
            await self.events.emit(data, owner=identity.owner, subject="", attributes={})
        return removed, reclaimed

    def _remove_in(
        self,
        connection: sqlite3.Connection,
        identity: Identity,
        image: Image,
        text: str,
        *,
        force: bool,
    ) -> Sequence[Removed]:
        users = self._users(image)
        children = records.has_children(connection, image)
        name = image_removal.name_meant(image, text)
        if name is None:
            image_removal.check_by_id(image, users, force=force, children=children)
            return self._forget(connection, identity, image)
        image_removal.check_by_name(image, users, name, force=force)
        needed = children or any(user.running for user in users)
        if len(image.names) == 1 and not needed:
            return self._forget(connection, identity, image)
        return self._unname(connection, identity, image, [name])

    def _forget_parents(
        self, connection: sqlite3.Connection, identity: Identity, image: Image
    ) -> Sequence[Removed]:
        """Those it was built on go, up to the first that has a name or is needed."""
        removed: list[Removed] = []
        parent = records.read(connection, image.owner, image.parent) if image.parent else None
        while parent is not None:
            if parent.names or self._users(parent) or records.has_children(connection, parent):
                break
            removed += self._forget(connection, identity, parent)
            above = parent.parent
            parent = records.read(connection, image.owner, above) if above else None
        return removed

    def _forget(
        self, connection: sqlite3.Connection, identity: Identity, image: Image
    ) -> Sequence[Removed]:
        removed = self._unname(connection, identity, image)
        records.disown(connection, image.owner, image.id)
        self.record(connection, ImageDelete(), identity.owner, image.id, None)
        return [*removed, Removed(deleted=image.id)]

    def _unname(
        self,
        connection: sqlite3.Connection,
        identity: Identity,
        image: Image,
        names: Iterable[Reference] | None = None,
    ) -> Sequence[Removed]:
        """Take names away, or all of them."""
        gone = list(image.names if names is None else names)
        records.unname(connection, image.owner, gone)
        for name in gone:
            data = ImageUntag(reference=name.familiar)
            self.record(connection, data, identity.owner, image.id, name)
        return [Removed(untagged=name.familiar) for name in gone]

    def _users(self, image: Image) -> Sequence[User]:
        """Who keeps it: an owner's own containers; for a shared image, everybody's."""
        users = self._users_of(image.id)
        return [user for user in users if image.shared or user.owner == image.owner]

    def record(
        self,
        connection: sqlite3.Connection,
        data: EventData,
        owner: int,
        image_id: str,
        name: Reference | None,
    ) -> None:
        """Tell an event of an image within a unit; ``name`` is the one it is about, if it is about one."""
        attributes = {"name": name.familiar if name else image_id}
        self.events.record(connection, data, owner=owner, subject=image_id, attributes=attributes)

    async def _moment(self, identity: Identity, text: str) -> int:
        return (await self.resolve(identity, text)).created_ns if text else 0


def scope_of(identity: Identity) -> tuple[int, int]:
    """Where this person looks."""
    return (identity.owner, SHARED)


def wanted_name(text: str) -> Reference:
    """The name with a tag that somebody wants to give.

    Raises:
        InvalidArgument: It is no name, or has a digest: that is no one's to give.
    """
    name = references.parse(text)
    if name.digest:
        message = "refusing to create a tag with a digest reference"
        raise InvalidArgument(message, hint="leave out what follows the @")
    return name.tagged


def resolve_in(connection: sqlite3.Connection, scope: Sequence[int], text: str) -> Image:
    """:meth:`Images.resolve` within a unit.

    Raises:
        NotFound: It means nothing in ``scope``.
        InvalidArgument: It is the beginning of several ids, or no name at all.
    """
    prefix = references.id_prefix(text)
    if not text.startswith(f"{digests.ALGORITHM}:") and len(prefix) != digests.HEX_DIGITS:
        name = references.parse(text).tagged
        find = records.by_digest if name.digest else records.by_name
        found = find(connection, scope, name)
        if found is not None:
            return found
        missing = name.familiar
    else:
        missing = text
    matching = records.by_id(connection, scope, prefix) if prefix else []
    if len(matching) > 1:
        message = f"cannot tell which image {text} is: several ids begin so"
        raise InvalidArgument(message, hint="give more digits")
    if not matching:
        message = f"No such image: {missing}"
        raise NotFound(message, hint="docker images lists what you have")
    return matching[0]


def _all(connection: sqlite3.Connection, scope: Sequence[int]) -> list[Image]:
    """All images of a scope; a shared name hidden by one's own is not told."""
    own = {image.id: image for image in records.all_of(connection, scope[0])}
    taken = {name for image in own.values() for name in image.names}
    for image in records.all_of(connection, scope[1]) if scope[1] != scope[0] else ():
        seen = tuple(name for name in image.names if name not in taken)
        mine = own.get(image.id)
        if mine is not None:
            own[image.id] = attrs.evolve(mine, names=mine.names + seen)
        else:
            own[image.id] = attrs.evolve(image, names=seen)
    return sorted(own.values(), key=lambda image: (image.created_ns, image.id), reverse=True)


def _matches(image: Image, wanted: ImageFilter, before_ns: int, since_ns: int) -> bool:
    labels = image.config.config.labels
    return all(
        (
            wanted.dangling is None or wanted.dangling == (not image.names),
            not before_ns or image.created_ns < before_ns,
            not since_ns or image.created_ns > since_ns,
            not wanted.until_ns or image.created_ns < wanted.until_ns,
            not wanted.references or _names_like(image, wanted.references),
            all(_labelled(labels, one) for one in wanted.labels),
            not any(_labelled(labels, one) for one in wanted.labels_not),
        )
    )


def _as_asked_for(image: Image, wanted: ImageFilter) -> Image:
    """Where names were asked for, it is shown with these alone."""
    if not wanted.references:
        return image
    return attrs.evolve(image, names=_names_like(image, wanted.references))


def _names_like(image: Image, patterns: Sequence[str]) -> tuple[Reference, ...]:
    return tuple(name for name in image.names if any(name.is_like(one) for one in patterns))


def _labelled(labels: object, wanted: str) -> bool:
    assert isinstance(labels, dict)
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _time(text: str) -> int:
    try:
        return parse_time(text) if text else 0
    except ValueError:
        return 0

"""Images as the database has them: statements, each within a unit somebody else opened.

Words: an *owner* here is a uid, or :data:`SHARED`, the namespace the administrators share with everybody; a *scope* is
the one or two namespaces somebody may reach, the nearest first.

Rules: nothing is found that is not in the scope: not by name, not by digest, not by the beginning of an id.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Sequence

import attrs

from protocol.times import parse_time
from supervisor import clock
from supervisor.oci import image as oci
from supervisor.oci.reference import Reference

SHARED = -1


@attrs.frozen
class Image:
    """An image as one person reaches it.

    Attributes:
        id: Digest of its config.
        config_bytes: The very bytes of it.
        config: What they say.
        layers: Ids of its layers, bottom first.
        bytes: Of all its layers.
        owner: In whose namespace it was found: a uid or :data:`SHARED`.
        names: All the names it has there, with tags.
        parent: Id of the image it was built on, if that was told; it may be gone.
        since_ns: Since when it is in that namespace.
    """

    id: str
    config_bytes: bytes
    config: oci.ImageConfig
    layers: tuple[str, ...]
    bytes: int
    owner: int
    names: tuple[Reference, ...]
    parent: str
    since_ns: int

    @property
    def shared(self) -> bool:
        """Whether it is everybody's."""
        return self.owner == SHARED

    @property
    def created_ns(self) -> int:
        """When it says it was made; 0 when it does not."""
        try:
            return parse_time(self.config.created) if self.config.created else 0
        except ValueError:
            return 0


def by_name(connection: sqlite3.Connection, scope: Sequence[int], name: Reference) -> Image | None:
    """The image a name with a tag leads to."""
    for owner in scope:
        row = connection.execute(
            "SELECT image FROM image_names WHERE owner = ? AND repository = ? AND tag = ?",
            (owner, name.repository, name.tag),
        ).fetchone()
        if row is not None:
            return read(connection, owner, row["image"])
    return None


def by_digest(
    connection: sqlite3.Connection, scope: Sequence[int], name: Reference
) -> Image | None:
    """The image with this digest, if it has a name of this repository."""
    for owner in scope:
        row = connection.execute(
            "SELECT image FROM image_names WHERE owner = ? AND repository = ? AND image = ?",
            (owner, name.repository, name.digest),
        ).fetchone()
        if row is not None:
            return read(connection, owner, row["image"])
    return None


def by_id(connection: sqlite3.Connection, scope: Sequence[int], prefix: str) -> list[Image]:
    """The images whose id begins with these hex digits; two at most are looked for."""
    rows = connection.execute(
        "SELECT image, owner FROM image_owners WHERE owner IN (?, ?) AND image >= ? AND image < ? ORDER BY image",
        (scope[0], scope[-1], f"sha256:{prefix}", f"sha256:{prefix}g"),
    ).fetchall()
    found: dict[str, int] = {}
    for row in rows:
        best = found.get(row["image"])
        if best is None or scope.index(row["owner"]) < scope.index(best):
            found[row["image"]] = row["owner"]
    first = sorted(found.items())[:2]
    return [image for image_id, owner in first if (image := read(connection, owner, image_id))]


def read(connection: sqlite3.Connection, owner: int, image_id: str) -> Image | None:
    """One image of one namespace."""
    row = connection.execute(
        "SELECT * FROM images JOIN image_owners ON image = id WHERE id = ? AND owner = ?",
        (image_id, owner),
    ).fetchone()
    if row is None:
        return None
    layers = connection.execute(
        "SELECT layer FROM image_layers WHERE image = ? ORDER BY position", (image_id,)
    )
    names = connection.execute(
        "SELECT repository, tag FROM image_names WHERE image = ? AND owner = ? ORDER BY repository, tag",
        (image_id, owner),
    )
    return _image(row, [one["layer"] for one in layers], [_name(one) for one in names])


def config_of(connection: sqlite3.Connection, image_id: str) -> oci.ImageConfig | None:
    """What an image says of itself, in whosever namespace it is."""
    row = connection.execute("SELECT config FROM images WHERE id = ?", (image_id,)).fetchone()
    return None if row is None else oci.parse_config(row["config"])


def all_of(connection: sqlite3.Connection, owner: int) -> list[Image]:
    """All images of one namespace."""
    layers: defaultdict[str, list[str]] = defaultdict(list)
    for row in connection.execute(
        "SELECT image, layer FROM image_layers WHERE image IN"
        " (SELECT image FROM image_owners WHERE owner = ?) ORDER BY image, position",
        (owner,),
    ):
        layers[row["image"]].append(row["layer"])
    names: defaultdict[str, list[Reference]] = defaultdict(list)
    for row in connection.execute(
        "SELECT * FROM image_names WHERE owner = ? ORDER BY repository, tag", (owner,)
    ):
        names[row["image"]].append(_name(row))
    rows = connection.execute(
        "SELECT * FROM images JOIN image_owners ON image = id WHERE owner = ?", (owner,)
    )
    return [_image(row, layers[row["id"]], names[row["id"]]) for row in rows]


def has_children(connection: sqlite3.Connection, image: Image) -> bool:
    """Whether another image of the same namespace was built on it."""
    row = connection.execute(
        "SELECT 1 FROM image_owners WHERE owner = ? AND parent = ? LIMIT 1", (image.owner, image.id)
    ).fetchone()
    return row is not None


def insert(
    connection: sqlite3.Connection,
    config_bytes: bytes,
    image_id: str,
    layers: Sequence[str],
    size: int,
) -> None:
    """Write down the content; an image that is known already stays as it is."""
    known = connection.execute("SELECT 1 FROM images WHERE id = ?", (image_id,)).fetchone()
    if known is not None:
        return
    connection.execute(
        "INSERT INTO images (id, config, bytes, created_ns) VALUES (?, ?, ?, ?)",
        (image_id, config_bytes, size, clock.now_ns()),
    )
    connection.executemany(
        "INSERT INTO image_layers (image, position, layer) VALUES (?, ?, ?)",
        [(image_id, position, layer) for position, layer in enumerate(layers)],
    )


def own(connection: sqlite3.Connection, owner: int, image_id: str, parent: str = "") -> None:
    """Put an image into a namespace; being there already is success."""
    connection.execute(
        "INSERT INTO image_owners (image, owner, parent, since_ns) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO NOTHING",
        (image_id, owner, parent or None, clock.now_ns()),
    )


def name(connection: sqlite3.Connection, owner: int, reference: Reference, image_id: str) -> bool:
    """Let a name with a tag lead to an image of the namespace; whether it did not before."""
    before = connection.execute(
        "SELECT image FROM image_names WHERE owner = ? AND repository = ? AND tag = ?",
        (owner, reference.repository, reference.tag),
    ).fetchone()
    connection.execute(
        "INSERT INTO image_names (owner, repository, tag, image, since_ns) VALUES (?, ?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET image = excluded.image, since_ns = excluded.since_ns",
        (owner, reference.repository, reference.tag, image_id, clock.now_ns()),
    )
    return before is None or before["image"] != image_id


def unname(connection: sqlite3.Connection, owner: int, references: Iterable[Reference]) -> None:
    """Take names away."""
    connection.executemany(
        "DELETE FROM image_names WHERE owner = ? AND repository = ? AND tag = ?",
        [(owner, one.repository, one.tag) for one in references],
    )


def disown(connection: sqlite3.Connection, owner: int, image_id: str) -> None:
    """Take an image without names out of a namespace; when nobody has it any more, it is forgotten."""
    connection.execute("DELETE FROM image_owners WHERE image = ? AND owner = ?", (image_id, owner))
    connection.execute(
        "DELETE FROM images WHERE id = ? AND NOT EXISTS (SELECT 1 FROM image_owners WHERE image = id)",
        (image_id,),
    )


def layer_bytes(connection: sqlite3.Connection, scope: Sequence[int]) -> int:
    """What the layers of all images of these namespaces take, each counted once."""
    row = connection.execute(
        "SELECT coalesce(sum(bytes), 0) AS total FROM layers WHERE id IN (SELECT layer FROM image_layers"
        " JOIN image_owners USING (image) WHERE owner IN (?, ?))",
        (scope[0], scope[-1]),
    ).fetchone()
    return int(row["total"])


def _image(row: sqlite3.Row, layers: Sequence[str], names: Sequence[Reference]) -> Image:
    return Image(
        id=row["id"],
        config_bytes=row["config"],
        config=oci.parse_config(row["config"]),
        layers=tuple(layers),
        bytes=row["bytes"],
        owner=row["owner"],
        names=tuple(names),
        parent=row["parent"] or "",
        since_ns=row["since_ns"],
    )


def _name(row: sqlite3.Row) -> Reference:
    domain, _, path = row["repository"].partition("/")
    return Reference(domain, path, row["tag"])

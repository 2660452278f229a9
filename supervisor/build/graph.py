"""What is to be done for a build, as vertices and the edges between them. Pure.

Words (BuildKit's): a *vertex* is one operation on the results of its inputs; its *definition key* names what it says
and, through its inputs' keys, all it stands on. Vertices with the same key are one vertex. A *step* is an instruction
as people count them; many steps change only the image's config and have no vertex.

The first input of a vertex is the file system it works on; Files has a second, where it reads from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import attrs
import orjson

from protocol.errors import Place
from supervisor.oci.image import ImageConfig


@attrs.frozen
class Scratch:
    """The empty file system."""


@attrs.frozen
class SourceImage:
    """An image's file system. ``image`` is its id."""

    image: str
    reference: str


@attrs.frozen
class SourceContext:
    """The directory the client sent."""


@attrs.frozen
class Run:
    """A command in the file system.

    Attributes:
        args: The whole command line.
        env: ``NAME=value``, ARGs included.
        working_dir: Absolute; made when it is not there.
        user: As USER says it.
        network: ``default``, ``none`` or ``host``.
        script: The body of a here-document that is a program of its own (``#!``); the command runs it.
        epoch: What SOURCE_DATE_EPOCH bounds times to, in seconds; None for no bound.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    working_dir: str
    user: str
    network: str = "default"
    script: str | None = None
    epoch: int | None = None


@attrs.frozen
class Files:
    """COPY or ADD.

    Attributes:
        sources: Paths and patterns below the second input's root.
        target: Absolute; a directory when it ends with ``/``.
        owner: ``user[:group]`` as written, or empty for 0:0.
        mode: Octal permission bits for all that is copied, or None to keep them.
        unpack: Archives are unpacked (ADD).
        keep_owner: Files keep their owner (they come from a stage or an image).
        inline: Name and content of files that stand in the Dockerfile itself.
        epoch: As in :class:`Run`.
    """

    sources: tuple[str, ...]
    target: str
    owner: str = ""
    mode: int | None = None
    unpack: bool = False
    keep_owner: bool = False
    inline: tuple[tuple[str, str], ...] = ()
    epoch: int | None = None


@attrs.frozen
class MakeDirectory:
    """WORKDIR: the directory is there afterwards."""

    path: str
    epoch: int | None = None


Op = Scratch | SourceImage | SourceContext | Run | Files | MakeDirectory


@attrs.frozen
class Vertex:
    """One operation.

    Attributes:
        key: The definition key.
        inputs: Keys of the vertices it stands on.
        title: For people.
        place: Where the recipe asks for it.
        secret_env: Given to a RUN, but no part of what it says (proxies).
    """

    key: str
    op: Op
    inputs: tuple[str, ...]
    title: str
    place: Place | None = None
    secret_env: tuple[str, ...] = attrs.field(default=(), repr=False)


@attrs.frozen
class Step:
    """One instruction of a wanted stage, counted from 1 over all of them."""

    index: int
    name: str
    stage: str
    stage_index: int
    vertex: str | None
    stands_on: str


@attrs.frozen
class Past:
    """One line of history to come: what was done, and by which vertex (None: only the config changed)."""

    created_by: str
    vertex: str | None


@attrs.frozen
class Graph:
    """A whole build.

    Attributes:
        vertices: By key, inputs before those who need them.
        steps: In the order of the recipe.
        target: The vertex whose file system becomes the image's.
        config: The image's config, still without layers and without what ``past`` adds to its history.
        past: The history this build adds.
        base_image: Id of the image the target stage begins from, or empty.
        base_vertex: The vertex the target stage begins from.
        epoch: SOURCE_DATE_EPOCH in seconds, or None.
        warnings: For the one who builds.
    """

    vertices: Mapping[str, Vertex]
    steps: tuple[Step, ...]
    target: str
    config: ImageConfig
    past: tuple[Past, ...]
    base_image: str = ""
    epoch: int | None = None
    warnings: tuple[str, ...] = ()


def vertex(
    op: Op,
    inputs: tuple[str, ...],
    title: str,
    place: Place | None = None,
    secret_env: tuple[str, ...] = (),
) -> Vertex:
    """The vertex of ``op`` on ``inputs``, with its definition key."""
    body = [type(op).__name__, attrs.asdict(op), inputs]
    digest = hashlib.sha256(orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return Vertex(digest, op, inputs, title, place, secret_env)

"""``--change`` of ``docker import`` and ``docker commit``: Dockerfile instructions that say how containers are run. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from supervisor.build.conversion import BaseImage, Wanted, Wish
from supervisor.build.convert import convert
from supervisor.build.dockerfile.recognise import load
from supervisor.errors import InvalidArgument
from supervisor.oci.image import Execution, ImageConfig

ALLOWED = (
    "CMD",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "HEALTHCHECK",
    "LABEL",
    "ONBUILD",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
)
CHANGES_MAX = 200
BASE = "what-it-was"


def checked(changes: Sequence[str]) -> tuple[str, ...]:
    """The instructions, one line each; a change may hold several lines.

    Raises:
        InvalidArgument: One is not allowed; Docker's wording. Or they are too many.
    """
    lines = tuple(_lines(changes))
    if changes and not lines:
        raise InvalidArgument("cannot apply the changes: there is no instruction in them")
    if len(lines) > CHANGES_MAX:
        raise InvalidArgument(f"cannot apply {len(lines)} changes: at most {CHANGES_MAX} are taken")
    for line in lines:
        word = line.split(maxsplit=1)[0]
        if word.upper() not in ALLOWED:
            raise InvalidArgument(
                f"{word[:40].lower()} is not a valid change command",
                f"one line with one of {', '.join(ALLOWED)}",
            )
    return lines


def _lines(changes: Sequence[str]) -> Iterator[str]:
    for change in changes:
        for line in change.splitlines():
            if line.strip() and not line.lstrip().startswith("#"):
                yield line.strip()


def execution_of(changes: Sequence[str], base: Execution | None = None) -> Execution:
    """What these instructions make of ``base``, or of an image that says nothing.

    Raises:
        InvalidArgument: One is not allowed, or is not understood; every fault is told.
    """
    lines = checked(changes)
    if base is not None and not lines:
        return base
    images = {} if base is None else {BASE: BaseImage(BASE, ImageConfig(config=base))}
    text = "\n".join([f"FROM {BASE if images else 'scratch'}", *lines, ""])
    graph = convert(load(text.encode(), "--change"), Wish(), images)
    assert not isinstance(graph, Wanted), "every image is given"
    return graph.config.config

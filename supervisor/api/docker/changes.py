"""``--change`` of ``docker import``: a few Dockerfile instructions that say how containers of the image are run. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from supervisor.build.conversion import Wanted, Wish
from supervisor.build.convert import convert
from supervisor.build.dockerfile.recognise import load
from supervisor.errors import InvalidArgument
from supervisor.oci.image import Execution

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


def execution_of(changes: Sequence[str]) -> Execution:
    """What these instructions, one line each, make of an image that says nothing.

    Raises:
        InvalidArgument: One is no such instruction, or is not understood; every fault is told.
    """
    for change in changes:
        word = change.split(maxsplit=1)[0].upper() if change.strip() else ""
        if word not in ALLOWED or "\n" in change or "\r" in change or len(changes) > CHANGES_MAX:
            raise InvalidArgument(
                f"cannot apply the change {change[:80]!r}",
                f"one line with one of {', '.join(ALLOWED)}",
            )
    text = "\n".join(["FROM scratch", *changes, ""])
    graph = convert(load(text.encode(), "--change"), Wish(), {})
    assert not isinstance(graph, Wanted), "scratch is no image"
    return graph.config.config

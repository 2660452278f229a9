"""Places in the journal.

A *cursor* is ``epoch:seq``: the identity of a journal and the last entry one has seen in it. A stream starts at a
cursor, at ``now`` (what comes next) or at ``oldest`` (all that is kept).
"""

from __future__ import annotations

import enum
import re

import attrs
from typing_extensions import override

_CURSOR = re.compile(r"([0-9a-f]{32}):(0|[1-9][0-9]{0,17})")


@attrs.frozen
class Cursor:
    """A place in one journal: everything up to and including ``seq`` is behind it."""

    epoch: str
    seq: int

    @override
    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"


class Anchor(enum.StrEnum):
    """The places one can name without having been there."""

    NOW = "now"
    OLDEST = "oldest"


def parse_cursor(text: str) -> Cursor:
    """The inverse of ``str(cursor)``.

    Raises:
        ValueError: It is no cursor.
    """
    match = _CURSOR.fullmatch(text)
    if not match:
        message = f"{text!r} is no cursor: it reads <epoch>:<seq>, as in the id of an event"
        raise ValueError(message)
    return Cursor(match[1], int(match[2]))


def parse_start(text: str) -> Cursor | Anchor:
    """A cursor, ``now`` or ``oldest``.

    Raises:
        ValueError: It is none of these.
    """
    return Anchor(text) if text in {*Anchor} else parse_cursor(text)

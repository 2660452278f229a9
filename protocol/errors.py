"""What can go wrong, as told over the wire.

Nine kinds, and no more: a client decides by the kind what to do, and reads the message to its person.
"""

from __future__ import annotations

import enum

import attrs
from typing_extensions import override


class ErrorKind(enum.StrEnum):
    """The kinds of failure a client can tell apart."""

    NOT_FOUND = "not found"
    ALREADY_EXISTS = "already exists"
    INVALID_ARGUMENT = "invalid argument"
    PERMISSION_DENIED = "permission denied"
    CONFLICT = "conflict"
    RESOURCE_EXHAUSTED = "resource exhausted"
    UNAVAILABLE = "unavailable"
    CANCELLED = "cancelled"
    INTERNAL = "internal"


@attrs.frozen
class Place:
    """Where in a source text something stands.

    Attributes:
        file: The name the person gave the source, e.g. ``Dockerfile``.
        line: Counted from 1.
        column: Counted from 1; 0 when the whole line is meant.
    """

    file: str
    line: int
    column: int = 0

    @override
    def __str__(self) -> str:
        if self.column:
            return f"{self.file}:{self.line}:{self.column}"
        return f"{self.file}:{self.line}"


@attrs.frozen
class Fault:
    """One thing that is wrong with an input, and where.

    Attributes:
        message: What is wrong, without the place.
        place: Where, if the input is a text.
        hint: What to do about it, if there is something to say.
        excerpt: The source line with a caret below it, if there is one.
    """

    message: str
    place: Place | None = None
    hint: str = ""
    excerpt: str = ""

    @override
    def __str__(self) -> str:
        head = f"{self.place}: {self.message}" if self.place else self.message
        return "\n".join(
            part for part in (head, self.excerpt, self.hint and f"hint: {self.hint}") if part
        )


@attrs.frozen
class Refused:
    """The server's refusal of a request, on the stream or as the body of an error response."""

    kind: ErrorKind
    message: str
    hint: str = ""

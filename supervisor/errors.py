"""Errors for people.

One base, nine kinds. A message reads ``cannot <verb> <thing>: <why>``; a hint says what to do. Only expected failures
are of these classes: anything else that is raised is a bug, and is let through.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from protocol.errors import ErrorKind, Fault, Refused


class BakehouseError(Exception):
    """An expected failure, told to the person who asked.

    Args:
        message: ``cannot <verb> <thing>: <why>``.
        hint: What the person can do about it; may be empty.
        faults: All that is wrong with one input, each with its place.
    """

    kind: ClassVar[ErrorKind] = ErrorKind.INTERNAL

    def __init__(self, message: str, hint: str = "", faults: Sequence[Fault] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.faults = tuple(faults)

    def text(self) -> str:
        """The whole story as plain text: message, then each fault, then the hint."""
        lines = [self.message, *(str(fault) for fault in self.faults)]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)

    def refused(self) -> Refused:
        """As it goes over the wire."""
        return Refused(
            kind=self.kind,
            message="\n".join([self.message, *map(str, self.faults)]),
            hint=self.hint,
        )


class NotFound(BakehouseError):
    """There is no such thing, or none that the caller may know of: the two must not be told apart."""

    kind = ErrorKind.NOT_FOUND


class AlreadyExists(BakehouseError):
    """The name is taken by another thing of the caller's."""

    kind = ErrorKind.ALREADY_EXISTS


class InvalidArgument(BakehouseError):
    """What was asked makes no sense, whoever asks."""

    kind = ErrorKind.INVALID_ARGUMENT


def faulty(message: str, faults: Sequence[Fault], why: str = "") -> InvalidArgument:
    """An input that has ``faults``: a single one on the line of ``cannot <verb> <thing>``, several below it."""
    if len(faults) == 1 and faults[0].place is None:
        return InvalidArgument(f"{message}: {faults[0].message}", faults[0].hint)
    return InvalidArgument(f"{message}: {why}" if why else message, faults=faults)


class PermissionDenied(BakehouseError):
    """The caller may not do this; the message names the rule, the hint what would be allowed."""

    kind = ErrorKind.PERMISSION_DENIED


class Conflict(BakehouseError):
    """Not in this state: the thing is running, in use, or being removed."""

    kind = ErrorKind.CONFLICT


class ResourceExhausted(BakehouseError):
    """A limit, a quota or the disk is full."""

    kind = ErrorKind.RESOURCE_EXHAUSTED


class Unavailable(BakehouseError):
    """This host cannot do it, or not now."""

    kind = ErrorKind.UNAVAILABLE


class Cancelled(BakehouseError):
    """The one who wanted it has gone."""

    kind = ErrorKind.CANCELLED


class Internal(BakehouseError):
    """A part below us failed in a way we know but cannot mend (a runtime, a kernel call)."""

    kind = ErrorKind.INTERNAL

"""Failures as HTTP answers: the one place where kinds of errors become statuses.

Docker's statuses, where Docker has one. A limit that is reached is 507: every Docker client shows the message of any
5xx and retries none, and ours can tell it from a bug's 500. Someone who went away gets 499, which only a log will see.

What is raised and is not a :class:`supervisor.errors.BakehouseError` is a bug, with one exception: a full disk or
table of files can meet any code anywhere, so the kernel's and SQLite's words for it are translated here.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Iterator

from protocol.errors import ErrorKind
from supervisor.api.http import ClientGoneError, HttpRefusedError, Response, json_line
from supervisor.errors import BakehouseError, ResourceExhausted, Unavailable

STATUSES: dict[ErrorKind, int] = {
    ErrorKind.NOT_FOUND: 404,
    ErrorKind.ALREADY_EXISTS: 409,
    ErrorKind.INVALID_ARGUMENT: 400,
    ErrorKind.PERMISSION_DENIED: 403,
    ErrorKind.CONFLICT: 409,
    ErrorKind.RESOURCE_EXHAUSTED: 507,
    ErrorKind.UNAVAILABLE: 503,
    ErrorKind.CANCELLED: 499,
    ErrorKind.INTERNAL: 500,
}

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_TOO_MANY = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN})


def refusal(error: BakehouseError | HttpRefusedError) -> Response:
    """The answer that tells ``error``: ``{"message": …}``, with the hint on a line of its own, and its kind for us."""
    if isinstance(error, HttpRefusedError):
        return Response(error.status, json_line({"message": error.message}))
    return Response(
        STATUSES[error.kind], json_line({"message": error.text(), "kind": error.kind.value})
    )


def bug() -> Response:
    """The answer while a bug takes the daemon down: no details, they are in the log."""
    message = "the daemon has met a bug in itself and restarts; containers go on running"
    return Response(500, json_line({"message": message, "kind": ErrorKind.INTERNAL.value}))


def expected(error: BaseException) -> BakehouseError | HttpRefusedError | ClientGoneError | None:
    """The one thing to tell about ``error``, which may be a group; None when any part of it is a bug.

    The client's leaving outweighs whatever else went wrong, for nobody is left to be told.
    """
    told = [_translated(leaf) for leaf in leaves(error)]
    if any(one is None for one in told):
        return None
    known = [one for one in told if one is not None]
    return next((one for one in known if isinstance(one, ClientGoneError)), known[0])


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions inside groups of groups."""
    if not isinstance(error, BaseExceptionGroup):
        yield error
        return
    for inner in error.exceptions:
        yield from leaves(inner)


def _translated(error: BaseException) -> BakehouseError | HttpRefusedError | ClientGoneError | None:
    if isinstance(error, BakehouseError | HttpRefusedError | ClientGoneError):
        return error
    if isinstance(error, OSError) and error.errno in _FULL:
        return ResourceExhausted(
            "cannot do this: no space is left on the daemon's disk", "make room, then try again"
        )
    if isinstance(error, OSError) and error.errno in _TOO_MANY:
        return Unavailable(
            f"cannot do this now: {error.strerror}", "try again when the host is less busy"
        )
    if (
        isinstance(error, sqlite3.OperationalError)
        and error.sqlite_errorcode == sqlite3.SQLITE_FULL
    ):
        return ResourceExhausted(
            "cannot do this: no space is left for the daemon's records", "make room, then try again"
        )
    return None

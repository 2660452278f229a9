"""What goes over the wire of HTTP/1.1, as values: a request's head, its query, an answer.

Pure. Words: a *target* is what stands between method and version; a *head* is the request line and its fields. Rules:
one reading of every byte (what could be read in two ways is refused, so that nothing can be smuggled past the policy);
text is UTF-8 without NUL; a parameter given twice with two values is refused.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Mapping, Sequence
from http import HTTPStatus

import attrs
import h11
import orjson

from supervisor.errors import InvalidArgument

QUERY_FIELDS_MAX = 1_000
NUMBER_DIGITS_MAX = 20
FALSE_WORDS = frozenset({"", "0", "no", "false", "none"})

JsonObject = dict[str, object]


class HttpRefusedError(Exception):
    """The request cannot be served as HTTP: answer with this status and close the connection.

    Not a :class:`supervisor.errors.BakehouseError`: it says nothing about what was asked, only about how.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ClientGoneError(Exception):
    """The peer closed, broke or stalled the connection; there is nobody left to tell."""


@attrs.frozen
class Query:
    """The parameters after ``?``, decoded, in their order."""

    pairs: tuple[tuple[str, str], ...] = ()

    def all(self, name: str) -> tuple[str, ...]:
        """Every value given for ``name``."""
        return tuple(value for key, value in self.pairs if key == name)

    def has(self, name: str) -> bool:
        """Was ``name`` given at all, even with no value?"""
        return any(key == name for key, _ in self.pairs)

    def text(self, name: str, default: str = "") -> str:
        """The value of ``name``; of several the first, as dockerd takes it and docker-py relies on."""
        return next(iter(self.all(name)), default)

    def first(self, name: str) -> str:
        """The first value of ``name``, where Docker's clients are known to give more, and dockerd takes that one."""
        return next(iter(self.all(name)), "")

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A truth value, read as dockerd reads it: everything but ``0``, ``no``, ``false``, ``none`` is true."""
        if not self.has(name):
            return default
        return self.text(name).strip().lower() not in FALSE_WORDS

    def number(self, name: str, default: int = 0) -> int:
        """A whole number.

        Raises:
            InvalidArgument: It is not one, or does not fit 63 bits.
        """
        text = self.text(name)
        if not text:
            return default
        try:
            value = int(text) if len(text) <= NUMBER_DIGITS_MAX and text.isascii() else None
        except ValueError:
            value = None
        if value is None or abs(value) >= 2**63:
            raise InvalidArgument(
                f"cannot read the query: {name}={text[:40]!r} is not a whole number"
            )
        return value


@attrs.frozen
class Head:
    """A request without its body.

    Attributes:
        path: Decoded, always starting with ``/``; dots and doubled slashes are left as they are, and match no route.
        fields: Header fields by lower-case name; repeated ones joined by a comma.
        raw: Request line and fields as bytes, for a protocol that wants to read them again.
    """

    method: str
    path: str
    query: Query
    fields: Mapping[str, str]
    raw: bytes = b""

    def upgrade(self) -> str:
        """The protocol the client wants to switch to, lower case; empty if it does not."""
        words = {word.strip().lower() for word in self.fields.get("connection", "").split(",")}
        return self.fields.get("upgrade", "").strip().lower() if "upgrade" in words else ""


@attrs.frozen
class Response:
    """A whole answer, small enough to be held in memory."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    fields: Sequence[tuple[str, str]] = ()


def json_response(value: object, status: int = 200) -> Response:
    """``value`` as JSON, with a newline at its end as dockerd writes it."""
    return Response(status, json_line(value))


def empty_response(status: int = 204) -> Response:
    """No body: done (204), or already so (304)."""
    return Response(status)


def json_line(value: object) -> bytes:
    """One JSON document and a newline: one message of a stream of them."""
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def reason(status: int) -> bytes:
    """The words that go with a status."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b"Error"


def parse_head(event: h11.Request) -> Head:
    """Read a head that h11 has found to be well formed.

    Raises:
        HttpRefusedError: Another HTTP version, two ways to tell the body's length, or a target that is not text.
    """
    if event.http_version not in {b"1.0", b"1.1"}:
        raise HttpRefusedError(
            505, "this daemon speaks HTTP/1.1 only; for docker build, set DOCKER_BUILDKIT=0"
        )
    fields: dict[str, str] = {}
    for name, value in event.headers:
        key, text = name.decode("ascii"), value.decode("latin-1")
        fields[key] = f"{fields[key]}, {text}" if key in fields else text
    if "content-length" in fields and "transfer-encoding" in fields:
        raise HttpRefusedError(
            400, "cannot read the request: both Content-Length and Transfer-Encoding are given"
        )
    if "transfer-encoding" in fields and event.http_version == b"1.0":
        raise HttpRefusedError(
            400, "cannot read the request: Transfer-Encoding does not exist in HTTP/1.0"
        )
    path, query = _split_target(event.target)
    return Head(event.method.decode("ascii"), path, query, fields, _raw_head(event))


def _raw_head(event: h11.Request) -> bytes:
    lines = [b"%b %b HTTP/%b" % (event.method, event.target, event.http_version)]
    lines += [b"%b: %b" % (name, value) for name, value in event.headers.raw_items()]
    return b"\r\n".join([*lines, b"", b""])


def _split_target(target: bytes) -> tuple[str, Query]:
    """Only ``/path?query``: other forms of a target are for proxies."""
    if not target.startswith(b"/"):
        raise HttpRefusedError(400, "cannot read the request: its target does not begin with /")
    raw_path, _, raw_query = target.partition(b"?")
    try:
        path = urllib.parse.unquote_to_bytes(raw_path).decode()
        pairs = urllib.parse.parse_qsl(
            raw_query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=QUERY_FIELDS_MAX,
        )
    except ValueError as error:  # UnicodeDecodeError is one
        raise HttpRefusedError(
            400, "cannot read the request: its target is not UTF-8, or too long"
        ) from error
    if any("\0" in text for pair in ((path, ""), *pairs) for text in pair):
        raise HttpRefusedError(400, "cannot read the request: its target holds a NUL")
    return path, Query(tuple(pairs))

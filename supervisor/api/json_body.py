"""JSON from people we do not trust, read in one way only.

Refused: a key given twice in one object (two readers would see two requests), numbers that are none (NaN) or do not
fit 64 bits, text that is not Unicode or holds a NUL, and nesting deeper than any request needs.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence

import orjson

from supervisor.api.http import JsonObject
from supervisor.errors import InvalidArgument

_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


def parse_object(body: bytes) -> JsonObject:
    """The JSON object in ``body``; an empty body and ``null`` are the empty object.

    Raises:
        InvalidArgument: It is not JSON, not an object, or one of the refused things above.
    """
    if not body.strip():
        return {}
    value = parse(body)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidArgument("cannot read the request's body: it is not a JSON object")
    return value


def parse(body: bytes | str, what: str = "the request's body") -> object:
    """Any JSON document, called ``what`` in errors; see :func:`parse_object` for what is refused."""
    try:
        value: object = json.loads(
            body, object_pairs_hook=_no_key_twice, parse_constant=_no_constant, parse_float=_finite
        )
    except RecursionError as error:
        raise InvalidArgument(f"cannot read {what}: it is nested too deeply") from error
    except ValueError as error:
        raise InvalidArgument(f"cannot read {what} as JSON: {error}") from error
    _check_values(value, what)
    return value


def _check_values(value: object, what: str) -> None:
    """Let the strict encoder look at it: 64-bit numbers, Unicode, depth."""
    try:
        encoded = orjson.dumps(value)
    except TypeError as error:  # JSONEncodeError is one
        raise InvalidArgument(f"cannot read {what}: {error}") from error
    if _NUL.search(encoded):
        raise InvalidArgument(f"cannot read {what}: a text in it holds a NUL")


def _no_key_twice(pairs: Sequence[tuple[str, object]]) -> JsonObject:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        message = f"the key {twice!r} is given twice"
        raise ValueError(message)
    return value


def _no_constant(text: str) -> object:
    message = f"{text} is not a number"
    raise ValueError(message)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        return _fail(text)
    return value


def _fail(text: str) -> float:
    message = f"{text[:40]} is too large"
    raise ValueError(message)

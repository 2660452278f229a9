"""JSON from outside is read in one way only, or refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.api.json_body import parse_object
from supervisor.errors import InvalidArgument


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"text"',
        b'{"a": 1, "a": 2}',
        b'{"HostConfig": {"Privileged": false, "Privileged": true}}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": 99999999999999999999999}',
        b'{"a": ' + b"9" * 5_000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"a": "\\u0000"}',
        b'{"a\\\\\\u0000": 1}',
        b'{"a": ' * 100_000,
        b"[" * 100_000,
        b'{"a":' * 400 + b"1" + b"}" * 400,
        b"\xff\xfe{}",
        b'{"a": "\xff"}',
        b"{} {}",
    ],
)
def test_refused(body: bytes) -> None:
    with pytest.raises(InvalidArgument):
        parse_object(body)


@pytest.mark.parametrize("body", [b"", b" \n", b"null", b"{}"])
def test_nothing_is_the_empty_object(body: bytes) -> None:
    assert parse_object(body) == {}


def test_a_backslash_u_in_a_text_is_no_nul() -> None:
    assert parse_object(b'{"a": "\\\\u0000"}') == {"a": "\\u0000"}


@given(st.binary(max_size=200))
def test_a_value_or_invalid_argument(body: bytes) -> None:
    try:
        value = parse_object(body)
    except InvalidArgument:
        return
    assert isinstance(value, dict)

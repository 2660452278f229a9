"""Frames, packets, detach keys."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import InvalidArgument
from supervisor.runtime.stdio import (
    STDERR,
    STDOUT,
    DetachWatch,
    frame,
    parse_detach_keys,
    split_packet,
)


def test_a_frame_is_dockers() -> None:
    assert frame(STDERR, b"abc") == b"\x02\0\0\0\0\0\0\x03abc"


def test_packets_name_their_stream() -> None:
    assert split_packet(b"\x02out") == (STDOUT, b"out")
    assert split_packet(b"\x03err") == (STDERR, b"err")


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-a,d", b"\x01d"),
        ("x", b"x"),
        ("ctrl-@,ctrl-[", b"\x00\x1b"),
        ("ctrl-Z", b"\x1a"),
    ],
)
def test_detach_keys(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-pp", "ab", "a,,b", "ctrl-1", "é"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="detach keys"):
        parse_detach_keys(text)


def test_keys_typed_in_pieces_detach_and_what_is_before_goes_through() -> None:
    watch = DetachWatch(b"\x10\x11")
    assert watch.feed(b"ls\n\x10") == (b"ls\n", False)
    assert watch.feed(b"\x11rest") == (b"", True)


def test_a_broken_off_sequence_goes_through() -> None:
    watch = DetachWatch(b"\x10\x11")
    assert watch.feed(b"\x10x") == (b"\x10x", False)
    assert watch.feed(b"\x10\x10\x11") == (b"\x10", True)


@given(st.lists(st.binary(max_size=5)))
def test_without_the_keys_every_byte_goes_through(pieces: list[bytes]) -> None:
    typed = [piece.replace(b"\x11", b"") for piece in pieces]
    watch = DetachWatch(b"\x10\x11")
    through = b""
    for piece in [*typed, b"."]:
        told, left = watch.feed(piece)
        through += told
        assert not left
    assert through == b"".join(typed) + b"."

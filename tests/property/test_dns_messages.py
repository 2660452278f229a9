"""What the forwarder lets through, whatever bytes a container or a resolver sends."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.network.dns import answers, failure, is_query, question_of

labels = st.lists(st.binary(min_size=1, max_size=20), max_size=6)
shapes = st.tuples(st.integers(1, 0xFFFF), st.integers(1, 0xFFFF))


def message(number: int, flags: int, names: list[bytes], shape: tuple[int, int]) -> bytes:
    head = b"".join(part.to_bytes(2, "big") for part in (number, flags, 1, 0, 0, 0))
    name = b"".join(bytes([len(label)]) + label for label in names) + b"\0"
    return head + name + b"".join(part.to_bytes(2, "big") for part in shape)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_or_not(data: bytes) -> None:
    question = question_of(data)
    assert question is None or 17 <= question.end <= len(data)
    if is_query(data):
        assert question is not None
        assert len(failure(data)) == question.end


@given(number=st.integers(0, 0xFFFF), names=labels, shape=shapes, tail=st.binary(max_size=40))
def test_a_query_is_one_with_whatever_follows(
    number: int, names: list[bytes], shape: tuple[int, int], tail: bytes
) -> None:
    query = message(number, 0x0100, names, shape) + tail
    assert is_query(query)
    told = failure(query)
    question = question_of(query)
    assert question is not None
    assert answers(told, number, question)
    assert told[3] & 0xF == 2


@given(number=st.integers(0, 0xFFFF), names=labels, shape=shapes, flags=st.integers(0, 0xFFFF))
def test_responses_updates_and_notifications_are_no_queries(
    number: int, names: list[bytes], shape: tuple[int, int], flags: int
) -> None:
    assert is_query(message(number, flags, names, shape)) == (flags & 0xF800 == 0)


@given(
    number=st.integers(0, 0xFFFF),
    other=st.integers(0, 0xFFFF),
    names=labels,
    shape=shapes,
    asked=labels,
)
def test_only_the_answer_to_our_question_with_our_id_is_one(
    number: int, other: int, names: list[bytes], shape: tuple[int, int], asked: list[bytes]
) -> None:
    question = question_of(message(number, 0, asked, shape))
    assert question is not None
    reply = message(other, 0x8180, names, shape)
    same = [label.lower() for label in names] == [label.lower() for label in asked]
    assert answers(reply, number, question) == (same and other == number)
    assert not answers(message(number, 0x0100, asked, shape), number, question)

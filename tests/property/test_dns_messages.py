"""What the name server reads and writes, whatever bytes a container or a resolver sends.

Another implementation of the same documents reads what ours wrote.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.network.dns_message import (
    TTL_SECONDS,
    Code,
    Kind,
    address_records,
    answer,
    datagram_bytes_max,
    is_of_no_help,
    is_reply_to,
    is_truncated,
    name_records,
    number_of,
    numbered,
    query_of,
    question_of,
)
from supervisor.network.names import Address

labels = st.lists(st.binary(min_size=1, max_size=20), max_size=6)
shapes = st.tuples(st.integers(1, 0xFFFF), st.integers(1, 0xFFFF))
addresses: st.SearchStrategy[list[Address]] = st.lists(st.ip_addresses(), max_size=120)


def message(number: int, flags: int, names: list[bytes], shape: tuple[int, int]) -> bytes:
    head = b"".join(part.to_bytes(2, "big") for part in (number, flags, 1, 0, 0, 0))
    name = b"".join(bytes([len(label)]) + label for label in names) + b"\0"
    return head + name + b"".join(part.to_bytes(2, "big") for part in shape)


@given(st.binary(max_size=600))
def test_any_bytes_are_a_question_or_not(data: bytes) -> None:
    question = question_of(data)
    assert question is None or 17 <= question.end <= len(data)
    if question is not None:
        assert isinstance(question.name, str)
        assert question.reverse is None or question.reverse.version in {4, 6}
        assert 512 <= datagram_bytes_max(data, question) <= 1232
        assert len(answer(data, question)) in {question.end, question.end + 11}
        assert is_truncated(data) in {True, False}
        assert is_of_no_help(data) in {True, False}


@given(number=st.integers(0, 0xFFFF), names=labels, shape=shapes, tail=st.binary(max_size=40))
def test_a_query_is_one_with_whatever_follows(
    number: int, names: list[bytes], shape: tuple[int, int], tail: bytes
) -> None:
    query = message(number, 0x0100, names, shape) + tail
    question = query_of(query)
    assert question is not None
    assert (question.kind, question.internet) == (shape[0], shape[1] in {1, 255})
    assert question.name == b".".join(label.lower() for label in names).decode(errors="replace")
    told = answer(query, question, code=Code.SERVER_FAILURE)
    assert is_reply_to(told, number, question)
    assert is_of_no_help(told)
    assert number_of(numbered(told, number ^ 1)) == number ^ 1


@given(number=st.integers(0, 0xFFFF), names=labels, shape=shapes, flags=st.integers(0, 0xFFFF))
def test_responses_updates_and_notifications_are_no_queries(
    number: int, names: list[bytes], shape: tuple[int, int], flags: int
) -> None:
    is_query = query_of(message(number, flags, names, shape)) is not None
    assert is_query == (flags & 0xF800 == 0)


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
    assert is_reply_to(reply, number, question) == (same and other == number)
    assert not is_reply_to(message(number, 0x0100, asked, shape), number, question)


@given(st.ip_addresses())
def test_an_address_is_read_from_the_question_for_its_name(address: Address) -> None:
    names = [label.encode() for label in address.reverse_pointer.upper().split(".")]
    question = question_of(message(1, 0, names, (Kind.PTR, 1)))
    assert question is not None
    assert question.reverse == address


NO_ADDRESSES = [
    "in-addr.arpa",
    "1.2.3.in-addr.arpa",
    "1.2.3.256.in-addr.arpa",
    "01.2.3.4.in-addr.arpa",
    "a.b.c.d.in-addr.arpa",
    "4.3.2.1.5.in-addr.arpa",
    "4.3.2.1.in-addr.arpa.example",
    "ip6.arpa",
    "12.ip6.arpa",
    ".".join("g" * 32) + ".ip6.arpa",
    ".".join("1" * 33) + ".ip6.arpa",
]


@pytest.mark.parametrize("name", NO_ADDRESSES)
def test_what_asks_for_no_address_is_no_such_question(name: str) -> None:
    names = [label.encode() for label in name.split(".")]
    question = question_of(message(1, 0, names, (Kind.PTR, 1)))
    assert question is not None
    assert question.reverse is None


def test_a_name_that_no_message_holds_is_left_out() -> None:
    fine = "a" * 63 + ".front"
    names = [fine, "a" * 64 + ".front", "a..front", ".".join(["a" * 63] * 4)]
    assert name_records(Kind.PTR, names) == name_records(Kind.ANY, [fine])
    assert name_records(Kind.A, [fine]) == []


def read(wire: bytes) -> Any:  # noqa: ANN401  # that library's own
    return pytest.importorskip("dns.message").from_wire(wire)


def asked(kind: str, name: str, payload: int | None) -> bytes:
    made = pytest.importorskip("dns.message").make_query(
        name, kind, use_edns=False if payload is None else 0, payload=payload or 0
    )
    wire: bytes = made.to_wire()
    return wire


def said(reply: Any) -> list[Address]:  # noqa: ANN401  # that library's own
    return [ip_address(item.address) for group in reply.answer for item in group]


def of_kind(kind: str, all_of_them: Sequence[Address]) -> list[Address]:
    versions = {"A": {4}, "AAAA": {6}, "ANY": {4, 6}}[kind]
    return [address for address in all_of_them if address.version in versions]


@given(
    addresses,
    st.sampled_from(["A", "AAAA", "ANY"]),
    st.none() | st.integers(0, 0xFFFF),
    st.booleans(),
)
def test_another_implementation_reads_our_addresses(
    there: list[Address], kind: str, payload: int | None, stream: bool
) -> None:
    query = asked(kind, "Some.Name.example", payload)
    question = query_of(query)
    assert question is not None
    bytes_max = 65_535 if stream else datagram_bytes_max(query, question)
    wire = answer(query, question, address_records(question.kind, there), bytes_max=bytes_max)
    reply = read(wire)
    assert read(query).is_response(reply)
    assert len(wire) <= bytes_max
    assert str(reply.question[0].name) == "Some.Name.example."
    assert (reply.edns >= 0) == (payload is not None)
    assert all(group.ttl == TTL_SECONDS for group in reply.answer)
    wanted, got = of_kind(kind, there), said(reply)
    if is_truncated(wire):
        assert set(got) < set(wanted) or len(wanted) > len(set(wanted))
        assert not stream
    else:
        assert set(got) == set(wanted)


def test_another_implementation_reads_our_names() -> None:
    query = asked("PTR", "2.1.0.10.in-addr.arpa", 1232)
    question = query_of(query)
    assert question is not None
    assert question.reverse == IPv4Address("10.0.1.2")
    reply = read(answer(query, question, name_records(question.kind, ["web.front"])))
    assert [str(item.target) for item in reply.answer[0]] == ["web.front."]

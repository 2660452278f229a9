"""Messages, events and cursors: there and back again, and anything else is refused in one way."""

from __future__ import annotations

from contextlib import suppress

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import codec
from protocol.errors import ErrorKind, Refused
from protocol.events import EVENT_TYPES, Actor, Event, EventData, UnknownEvent
from protocol.ids import Anchor, Cursor, parse_cursor, parse_start
from protocol.messages import Batch, Bookmark, Gone, Hello, Sample, Snapshot, Want, Welcome
from protocol.times import format_time, parse_time

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SEQ = st.integers(0, 2**53)
TEXTS = st.dictionaries(TEXT, TEXT, max_size=3)
VALUES = {
    str: TEXT,
    int: st.integers(-(2**31), 2**53),
    bool: st.booleans(),
    float: st.floats(allow_nan=False, allow_infinity=False),
    tuple[str, ...]: st.lists(TEXT, max_size=3).map(tuple),
}


@st.composite
def data(draw: st.DrawFn) -> EventData:
    kind = draw(st.sampled_from(sorted(EVENT_TYPES)))
    fields = attrs.fields(attrs.resolve_types(EVENT_TYPES[kind]))
    return EVENT_TYPES[kind](**{field.name: draw(VALUES[field.type]) for field in fields})


@st.composite
def events(draw: st.DrawFn) -> Event:
    happened = draw(data())
    return Event(
        seq=draw(SEQ),
        id=draw(TEXT),
        source=draw(TEXT),
        type=happened.type,
        subject=draw(TEXT),
        time_ns=draw(st.integers(0, 2**62)),
        owner=draw(st.integers(0, 2**32 - 1)),
        actor=Actor(draw(TEXT), draw(TEXTS)),
        data=happened,
    )


WANTS = st.builds(
    Want,
    types=st.lists(TEXT, max_size=2).map(tuple),
    owners=st.lists(SEQ, max_size=2).map(tuple),
    subjects=st.lists(TEXT, max_size=2).map(tuple),
)
OBJECTS = st.dictionaries(TEXT, st.none() | SEQ | TEXT | st.lists(TEXT, max_size=2), max_size=3)
MESSAGES = st.one_of(
    st.builds(Hello, SEQ, WANTS, TEXT, st.booleans(), st.booleans()),
    st.builds(Welcome, SEQ, TEXT, SEQ, SEQ),
    st.builds(Snapshot, SEQ, OBJECTS),
    st.builds(Batch, SEQ, SEQ, st.lists(events(), max_size=3).map(tuple)),
    st.builds(Bookmark, SEQ),
    st.builds(Gone, SEQ),
    st.builds(Sample, OBJECTS, SEQ),
    st.builds(Refused, st.sampled_from(ErrorKind), TEXT, TEXT),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(MESSAGES)
def test_messages_there_and_back(message: codec.Message) -> None:
    assert codec.decode(codec.encode(message)) == message


@given(events())
def test_the_journals_short_way_is_the_same(event: Event) -> None:
    names = ("seq", "id", "source", "type", "subject", "owner")
    head = {name: getattr(event, name) for name in names}
    body = codec.encode_body(event.actor, event.data)
    joined = codec.join_event(head, event.time_ns, body)
    assert codec.decode_event(joined) == event == codec.decode_event(codec.encode_event(event))
    batch = codec.decode(codec.join_batch(0, event.seq, [joined, joined]))
    assert batch == Batch(0, event.seq, (event, event))


@given(st.binary(max_size=64) | JSON.map(orjson.dumps))
def test_anything_is_a_message_or_refused(raw: bytes) -> None:
    with suppress(codec.MalformedMessageError):
        codec.decode(raw)


@given(st.sampled_from(sorted(codec.MESSAGE_TYPES)), st.data())
def test_any_fields_are_a_message_or_refused(kind: str, given_data: st.DataObject) -> None:
    fields = attrs.fields(codec.MESSAGE_TYPES[kind])
    names = [{"from_": "from"}.get(field.name, field.name) for field in fields]
    table = {name: given_data.draw(JSON) for name in names}
    with suppress(codec.MalformedMessageError):
        codec.decode(orjson.dumps({"type": kind, **table}, default=str))


def test_what_a_newer_daemon_says_is_kept() -> None:
    raw = (
        b'{"specversion":"1.0","id":"e:1","source":"/x","type":"oven.cool","subject":"s","time":'
        b'"2026-01-01T00:00:00Z","seq":1,"owner":0,"actor":{"id":"a","attributes":{},"more":1},'
        b'"data":{"degrees":20},"extra":[]}'
    )
    event = codec.decode_event(raw)
    assert event.data == UnknownEvent("oven.cool", {"degrees": 20})
    assert codec.decode_event(codec.encode_event(event)) == event


def test_a_name_that_is_not_utf8_does_not_stop_an_event() -> None:
    body = codec.encode_body(Actor("a", {"name": "bad\udcff"}), UnknownEvent("x"))
    assert b"bad?" in body


@given(st.uuids(), SEQ)
def test_cursors_there_and_back(epoch: object, seq: int) -> None:
    cursor = Cursor(str(epoch).replace("-", ""), seq)
    assert parse_cursor(str(cursor)) == parse_start(str(cursor)) == cursor


@given(st.text(max_size=50))
def test_any_text_is_a_start_or_refused(text: str) -> None:
    try:
        start = parse_start(text)
    except ValueError:
        return
    assert str(start) == text
    assert isinstance(start, Anchor | Cursor)


@given(st.integers(0, 250_000_000_000_000_000_000 // 1_000))
def test_times_there_and_back(time_ns: int) -> None:
    assert parse_time(format_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("want", "accepted"),
    [
        (Want(), True),
        (Want(types=("container.*",)), True),
        (Want(types=("container.start", "image.tag")), True),
        (Want(types=("image.*",)), False),
        (Want(owners=(7,)), True),
        (Want(owners=(8,)), False),
        (Want(subjects=("a" * 12,)), True),
        (Want(subjects=("a" * 11,)), False),
        (Want(subjects=("a" * 64,), types=("image.*",)), False),
    ],
)
def test_what_is_wanted(want: Want, accepted: bool) -> None:
    assert want.accepts("container.start", 7, "a" * 64) is accepted


def test_every_kind_has_a_name_of_its_own() -> None:
    assert all(kind.type == name for name, kind in EVENT_TYPES.items())
    assert len(EVENT_TYPES) > 50

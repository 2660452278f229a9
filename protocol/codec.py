"""Messages to bytes and back: JSON by orjson, typed by cattrs.

Rules: what cannot be understood is a :class:`MalformedMessageError`, never another exception; unknown fields are
ignored and an unknown kind of event is kept as ``UnknownEvent``, so that either side may be the older one.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TypeVar

import orjson
from attrs import fields
from cattrs import transform_error
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.preconf.orjson import OrjsonConverter, make_converter

from protocol.errors import Refused
from protocol.events import EVENT_TYPES, SPEC_VERSION, Actor, Event, EventData, UnknownEvent
from protocol.messages import Batch, Bookmark, Gone, Hello, Sample, Snapshot, Welcome
from protocol.times import format_time, parse_time

T = TypeVar("T")

Message = Hello | Welcome | Snapshot | Batch | Bookmark | Gone | Sample | Refused

MESSAGE_TYPES: Mapping[str, type[Message]] = {
    "hello": Hello,
    "welcome": Welcome,
    "snapshot": Snapshot,
    "batch": Batch,
    "bookmark": Bookmark,
    "gone": Gone,
    "sample": Sample,
    "refused": Refused,
}
_NAMES = {kind: name for name, kind in MESSAGE_TYPES.items()}


class MalformedMessageError(ValueError):
    """The bytes are no message of this protocol; the text says what is wrong with them."""


@functools.cache
def converter() -> OrjsonConverter:
    """The one converter. It knows events, their data, and the messages."""
    made = make_converter()
    made.register_unstructure_hook(
        Hello, make_dict_unstructure_fn(Hello, made, from_=override(rename="from"))
    )
    made.register_structure_hook(
        Hello, make_dict_structure_fn(Hello, made, from_=override(rename="from"))
    )
    made.register_structure_hook_func(lambda kind: kind is object, lambda value, _: value)
    made.register_structure_hook(int, _whole_number)
    made.register_structure_hook(str, _text)
    made.register_structure_hook(bool, _truth)
    made.register_structure_hook(Event, _structure_event)
    made.register_unstructure_hook(Event, _unstructure_event)
    made.register_unstructure_hook(UnknownEvent, lambda data: dict(data.fields))
    return made


def encode(message: Message) -> bytes:
    """One message as JSON."""
    fields_of_it: Mapping[str, object] = converter().unstructure(message)
    return orjson.dumps({"type": _NAMES[type(message)], **fields_of_it})


def decode(data: bytes | str) -> Message:
    """The inverse of :func:`encode`.

    Raises:
        MalformedMessageError: They are no message.
    """
    table = load_object(data)
    kind = MESSAGE_TYPES.get(str(table.get("type")))
    if kind is None:
        message = f"{table.get('type')!r} is no type of message"
        raise MalformedMessageError(message)
    return structure(table, kind)


def encode_event(event: Event) -> bytes:
    """One event as JSON, as it stands in a batch."""
    return orjson.dumps(_unstructure_event(event))


def decode_event(data: bytes | str) -> Event:
    """The inverse of :func:`encode_event`.

    Raises:
        MalformedMessageError: It is no event.
    """
    return structure(load_object(data), Event)


def encode_body(actor: Actor, data: EventData) -> bytes:
    """The part of an event that is known before its place is: ``{"actor": …, "data": …}``."""
    body = {"actor": converter().unstructure(actor), "data": converter().unstructure(data)}
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError:  # a name that is not UTF-8, as a host's or an image's may be
        return orjson.dumps(_printable(body))


def _printable(value: object) -> object:
    """``value`` with everything that UTF-8 cannot say shown as a question mark."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_printable(key): _printable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_printable(inner) for inner in value]
    return value


def join_event(head: Mapping[str, object], time_ns: int, body: bytes) -> bytes:
    """An event from what the journal keeps of it; the same as :func:`encode_event` makes, without decoding ``body``."""
    return orjson.dumps(_head(head, time_ns))[:-1] + b"," + body[1:]


def join_batch(after: int, upto: int, events: list[bytes]) -> bytes:
    """A :class:`Batch` of encoded events."""
    return b'{"type":"batch","after":%d,"upto":%d,"events":[%b]}' % (after, upto, b",".join(events))


def load_object(data: bytes | str) -> dict[str, object]:
    """A JSON object.

    Raises:
        MalformedMessageError: It is none.
    """
    try:
        table: object = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        message = f"not JSON: {error}"
        raise MalformedMessageError(message) from error
    if not isinstance(table, dict):
        message = "not a JSON object"
        raise MalformedMessageError(message)
    return table


def structure(table: Mapping[str, object], kind: type[T]) -> T:
    """``table`` as a ``kind``; all that does not fit is told at once.

    Raises:
        MalformedMessageError: It does not fit.
    """
    try:
        return converter().structure(table, kind)
    except Exception as error:  # whatever strange values make a hook raise is the input's fault
        raise MalformedMessageError("; ".join(transform_error(error))) from error


def _head(head: Mapping[str, object], time_ns: int) -> dict[str, object]:
    return {"specversion": SPEC_VERSION, **head, "time": format_time(time_ns)}


def _unstructure_event(event: Event) -> dict[str, object]:
    names = ("seq", "id", "source", "type", "subject", "owner")
    head = _head({name: getattr(event, name) for name in names}, event.time_ns)
    head["specversion"] = event.specversion
    return {
        **head,
        "actor": converter().unstructure(event.actor),
        "data": converter().unstructure(event.data),
    }


def _structure_event(table: Mapping[str, object], _: type[Event]) -> Event:
    known = {field.name for field in fields(Event)} - {"time_ns", "actor", "data"}
    texts = {
        name: _text(value, str) for name, value in table.items() if name in known - {"seq", "owner"}
    }
    kind, data = texts["type"], table["data"]
    if not isinstance(data, dict):
        message = "the event's data is not an object"
        raise TypeError(message)
    data_type = EVENT_TYPES.get(kind)
    return Event(
        **texts,
        seq=_whole_number(table["seq"], int),
        owner=_whole_number(table["owner"], int),
        time_ns=parse_time(_text(table["time"], str)),
        actor=converter().structure(table["actor"], Actor),
        data=converter().structure(data, data_type) if data_type else UnknownEvent(kind, data),
    )


def _whole_number(value: object, _: type[int]) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    message = f"{value!r} is not a whole number"
    raise TypeError(message)


def _text(value: object, _: type[str]) -> str:
    if isinstance(value, str):
        return value
    message = f"{value!r} is not a text"
    raise TypeError(message)


def _truth(value: object, _: type[bool]) -> bool:
    if isinstance(value, bool):
        return value
    message = f"{value!r} is neither true nor false"
    raise TypeError(message)

"""``bakehouse events``: the journal, one event a line."""

from __future__ import annotations

import sys
from datetime import datetime

import attrs

from protocol import codec
from protocol.client import StreamLostError, StreamRefusedError, open_follower, open_stream
from protocol.events import Event
from protocol.ids import parse_start
from protocol.messages import Batch, Bookmark, Gone, Hello, Want
from protocol.times import format_time
from supervisor.errors import BakehouseError, InvalidArgument, PermissionDenied, Unavailable

FULL_ID, SHORT_ID = 64, 12


@attrs.frozen
class EventsWanted:
    """The command's options."""

    from_: str
    follow: bool
    as_json: bool
    want: Want


async def show_events(socket: str, wanted: EventsWanted) -> None:
    """Print events until the newest, or for ever, coming back by the cursor when the daemon restarts.

    Raises:
        InvalidArgument: The place to start from is none.
        Unavailable: There is no daemon.
    """
    try:
        parse_start(wanted.from_)
    except ValueError as error:
        raise InvalidArgument(
            f"cannot follow events: {error}", hint="now and oldest will do, too"
        ) from error
    try:
        await (_for_ever if wanted.follow else _to_the_newest)(socket, wanted)
    except StreamRefusedError as error:
        raise told(error) from error
    except StreamLostError as error:
        raise Unavailable(
            f"cannot follow events: {error}", hint="is bakehoused running?"
        ) from error


async def _for_ever(socket: str, wanted: EventsWanted) -> None:
    hello = Hello(want=wanted.want, from_=wanted.from_)
    async with open_follower(socket, hello) as messages:
        async for message in messages:
            _show(message, wanted)


async def _to_the_newest(socket: str, wanted: EventsWanted) -> None:
    async with open_stream(socket, want=wanted.want, from_=wanted.from_) as stream:
        async for message in stream:
            _show(message, wanted, upto=stream.welcome.last_seq)
            if isinstance(message, Batch | Bookmark) and message.upto >= stream.welcome.last_seq:
                return


def _show(message: codec.Message, wanted: EventsWanted, upto: int | None = None) -> None:
    if isinstance(message, Gone):
        sys.stderr.write(
            f"bakehouse: what happened before {message.first_seq} is no longer kept; going on from there\n"
        )
    if not isinstance(message, Batch):
        return
    for event in message.events:
        if upto is None or event.seq <= upto:
            sys.stdout.write(f"{_line(event, as_json=wanted.as_json)}\n")
    sys.stdout.flush()


def _line(event: Event, *, as_json: bool) -> str:
    if as_json:
        return codec.encode_event(event).decode()
    when = datetime.fromisoformat(format_time(event.time_ns)[:26] + "+00:00").astimezone()
    known = codec.converter().unstructure(event.data)
    details = {**event.actor.attributes, **{key: value for key, value in known.items() if value}}
    shown = ", ".join(f"{key}={value}" for key, value in sorted(details.items()))
    subject = event.subject.removeprefix("sha256:")
    short = subject[:SHORT_ID] if len(subject) == FULL_ID else subject  # a full id
    return f"{event.seq:>6} {when:%F %T.%f}"[:-3] + f" {event.type:<20} {short} ({shown})"


def told(error: StreamRefusedError) -> BakehouseError:
    """The stream's refusal as an error of ours."""
    kinds = {kind.kind: kind for kind in (InvalidArgument, PermissionDenied)}
    return kinds.get(error.refused.kind, Unavailable)(error.refused.message, error.refused.hint)

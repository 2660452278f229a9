"""What client and server say to each other on the stream, ``GET /bakehouse/v1/stream`` as a websocket.

The client says one :class:`Hello`. The server answers :class:`Welcome` (or ``Refused`` and closes), then a
:class:`Snapshot` if one was asked for, then for ever: :class:`Batch`, :class:`Bookmark`, :class:`Gone`,
:class:`Sample`. On the wire each is a JSON object whose ``type`` names it.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from protocol.events import Event

SUBPROTOCOL = "bakehouse.v1"
STREAM_PATH = "/bakehouse/v1/stream"
VERSION = 1

SUBJECT_PREFIX_MIN = 12


@attrs.frozen
class Want:
    """Which events a subscriber wants; an empty list means all.

    Attributes:
        types: Kinds (``container.start``) or families (``container.*``).
        owners: Host uids.
        subjects: Full ids or names, or the first 12 or more characters of an id.
    """

    types: tuple[str, ...] = ()
    owners: tuple[int, ...] = ()
    subjects: tuple[str, ...] = ()

    def accepts(self, kind: str, owner: int, subject: str) -> bool:
        """Whether an event of this kind, owner and subject is wanted."""
        if self.owners and owner not in self.owners:
            return False
        if (
            self.types
            and kind not in self.types
            and f"{kind.partition('.')[0]}.*" not in self.types
        ):
            return False
        return not self.subjects or any(_names(wanted, subject) for wanted in self.subjects)


def _names(wanted: str, subject: str) -> bool:
    return subject == wanted or (len(wanted) >= SUBJECT_PREFIX_MIN and subject.startswith(wanted))


@attrs.frozen
class Hello:
    """The client's first and only message.

    Attributes:
        version: The newest version of this protocol the client speaks.
        want: Which events.
        from_: ``epoch:seq``, ``now`` or ``oldest``; ``from`` on the wire.
        snapshot: Whether to tell first what there is.
        samples: Whether to tell resource samples too.
    """

    version: int = VERSION
    want: Want = Want()
    from_: str = "now"
    snapshot: bool = False
    samples: bool = False


@attrs.frozen
class Welcome:
    """The server's answer. What is kept of the caller's journal lies between ``first_seq`` and ``last_seq``."""

    version: int
    epoch: str
    first_seq: int
    last_seq: int


@attrs.frozen
class Snapshot:
    """What there is, as of ``seq`` at the earliest; events after ``seq`` follow and may repeat some of it."""

    seq: int
    objects: Mapping[str, object]


@attrs.frozen
class Batch:
    """Events in order. All of ``after`` < seq <= ``upto`` is accounted for: what is missing was not wanted, or not for you."""

    after: int
    upto: int
    events: tuple[Event, ...] = ()


@attrs.frozen
class Bookmark:
    """Nothing more up to ``upto``; also a sign of life, sent every few seconds when it is quiet."""

    upto: int


@attrs.frozen
class Gone:
    """Entries before ``first_seq`` that the subscriber had not seen are no longer kept; the stream goes on from there."""

    first_seq: int


@attrs.frozen
class Sample:
    """A resource sample (see ``protocol.samples``). Newest wins: ``skipped`` older ones were left out."""

    sample: Mapping[str, object]
    skipped: int = 0

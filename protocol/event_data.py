"""What all kinds of events have in common, and what becomes of a kind this version does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import attrs


@attrs.frozen
class EventData:
    """What all kinds have in common."""

    type: ClassVar[str] = ""
    docker: ClassVar[tuple[str, str]] = ("", "")

    def docker_action(self) -> tuple[str, str] | None:
        """Docker's (Type, Action); a few kinds say more in the action than their name."""
        return self.docker if self.docker[0] else None


@attrs.frozen
class UnknownEvent(EventData):
    """A kind this version does not know, kept as it came: old clients survive new daemons."""

    kind: str
    fields: Mapping[str, object] = attrs.field(factory=dict)

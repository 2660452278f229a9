"""Reading one JSON object of the Engine API, field by field, with every fault told at once.

Words: a *place* is a field's path in the request (``HostConfig.Memory``). Rules, those of dockerd's Go decoder: null and
a missing field are the type's zero; a value of another type is a fault. Unlike it, a key is known in its one spelling
only, and what was not read is remembered, so that policy can see what nobody thought about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from protocol.errors import Fault
from supervisor.errors import InvalidArgument, faulty

T = TypeVar("T")

INT64_MAX = 2**63 - 1
_ZEROES: tuple[object, ...] = (None, "", 0, False, [], {})


def is_default(value: object, *also: object) -> bool:
    """Does ``value`` say nothing: Go's zero, or one of ``also``?"""
    return any(value == zero and type(value) is type(zero) for zero in (*_ZEROES, *also))


class Fields:
    """One object, the place where it stands, and the list of faults shared with all objects of the request."""

    def __init__(self, value: object, place: str, faults: list[Fault]) -> None:
        self._place = place
        self._faults = faults
        self._read: set[str] = set()
        self._table: Mapping[str, object] = {}
        if isinstance(value, dict):
            self._table = value
        elif value is not None:
            self.fault("", "is not an object")

    @property
    def faults(self) -> list[Fault]:
        """The faults of the whole request so far."""
        return self._faults

    def fault(self, name: str, why: str, hint: str = "") -> None:
        """Note that the field is wrong."""
        self._faults.append(Fault(f"{self.at(name)} {why}", hint=hint))

    def at(self, name: str) -> str:
        """The place of a field."""
        return (
            f"{self._place}.{name}"
            if self._place and name
            else self._place or name or "the request"
        )

    def raw(self, name: str) -> object:
        """The value as it is; marks the field as read."""
        self._read.add(name)
        return self._table.get(name)

    def text(self, name: str) -> str:
        """A text; empty when missing."""
        value = self.raw(name)
        if value is None or isinstance(value, str):
            return value or ""
        self.fault(name, "is not a text")
        return ""

    def flag(self, name: str) -> bool:
        """A truth value; false when missing."""
        value = self.raw(name)
        if value is None or isinstance(value, bool):
            return bool(value)
        self.fault(name, "is neither true nor false")
        return False

    def number(self, name: str, low: int = -INT64_MAX, high: int = INT64_MAX) -> int:
        """A whole number between ``low`` and ``high``; 0 when missing."""
        return self.number_or_none(name, low, high) or 0

    def number_or_none(self, name: str, low: int = -INT64_MAX, high: int = INT64_MAX) -> int | None:
        """A whole number; None when missing."""
        value = self.raw(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int):
            self.fault(name, "is not a whole number")
            return None
        if not low <= value <= high:
            self.fault(name, f"is {value}, which is not between {low} and {high}")
            return None
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; empty when missing."""
        return self.texts_or_none(name) or ()

    def texts_or_none(self, name: str, *, one: bool = False) -> tuple[str, ...] | None:
        """A list of texts; None when missing. With ``one``, a single text will do for a list of it."""
        value = self.raw(name)
        if value is None:
            return None
        if one and isinstance(value, str):
            return (value,)
        if not isinstance(value, list):
            self.fault(name, "is not a list of texts")
            return None
        if not all(isinstance(item, str) for item in value):
            self.fault(name, "holds something else than texts")
            return None
        return tuple(value)

    def keys(self, name: str) -> tuple[str, ...]:
        """The keys of an object whose values say nothing (Go's sets); sorted."""
        return tuple(sorted(self.table(name)))

    def table(self, name: str) -> Mapping[str, object]:
        """An object with any keys; empty when missing."""
        value = self.raw(name)
        if value is None:
            return {}
        if isinstance(value, dict):
            return value
        self.fault(name, "is not an object")
        return {}

    def mapping(self, name: str) -> Mapping[str, str]:
        """Texts by text; empty when missing."""
        found: dict[str, str] = {}
        for key, value in self.table(name).items():
            if isinstance(value, str):
                found[key] = value
            else:
                self.fault(f"{name}.{key}", "is not a text")
        return found

    def child(self, name: str) -> Fields:
        """The object in a field; an empty one when missing."""
        return Fields(self.raw(name), self.at(name), self._faults)

    def child_or_none(self, name: str) -> Fields | None:
        """The object in a field; None when missing."""
        return None if self.raw(name) is None else self.child(name)

    def children(self, name: str) -> Sequence[Fields]:
        """The objects in a list."""
        value = self.raw(name)
        if value is None:
            return []
        if not isinstance(value, list):
            self.fault(name, "is not a list")
            return []
        return [
            Fields(item, f"{self.at(name)}[{index}]", self._faults)
            for index, item in enumerate(value)
        ]

    def read(self, name: str, parse: Callable[[str], T], text: str) -> T | None:
        """``parse(text)``; its InvalidArgument becomes a fault of the field."""
        try:
            return parse(text)
        except InvalidArgument as error:
            self._faults.append(Fault(f"{self.at(name)}: {error.message}", hint=error.hint))
            return None

    def known(self, *names: str) -> None:
        """These mean nothing to us, and change nothing: mark them as read."""
        self._read.update(names)

    def refuse(self, names: Mapping[str, Sequence[object]]) -> None:
        """These would change what happens, and are not supported: a fault each, unless at a default.

        Args:
            names: By field, the values beside zero that say nothing.
        """
        for name, also in names.items():
            if not is_default(self.raw(name), *also):
                self.fault(name, "is not supported", "leave it out")

    def unread(self) -> tuple[str, ...]:
        """Places of the fields nobody read and that say something."""
        return tuple(
            self.at(name)
            for name, value in self._table.items()
            if name not in self._read and not is_default(value)
        )


def check(faults: Sequence[Fault], what: str) -> None:
    """Raise if there are faults.

    Raises:
        InvalidArgument: ``cannot <what>``, with every fault.
    """
    if faults:
        raise faulty(f"cannot {what}", faults, "the request makes no sense")

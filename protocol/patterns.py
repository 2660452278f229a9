r"""Regular expressions as people put them into filters, matched in time linear in the text. Pure.

Words: a *step* is one instruction of the little machine that an expression becomes; the machine is at many steps at once
and reads each character once, so that no expression takes longer than steps times characters. Known are literals, ``.``,
classes, ``\d \w \s`` and their opposites, groups, ``|``, ``* + ? {m,n}``, ``^`` and ``$``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from attrs import define, field, frozen

LENGTH_MAX = 256
STEPS_MAX = 128
REPEATS_MAX = 64
DEPTH_MAX = 16

_Test = Callable[[str], bool]
_SPECIAL = frozenset("\\^$.|?*+()[]{}")
_CLASSES: dict[str, _Test] = {
    "d": lambda c: c.isdecimal(),
    "w": lambda c: c.isalnum() or c == "_",
    "s": lambda c: c.isspace(),
    "D": lambda c: not c.isdecimal(),
    "W": lambda c: not (c.isalnum() or c == "_"),
    "S": lambda c: not c.isspace(),
}


@frozen
class _Read:
    """One character that passes the test, then on."""

    test: _Test
    after: int


@frozen
class _Both:
    """On at each of these; ``at`` says where in the text one must be (``^``, ``$``)."""

    after: Sequence[int]
    at: str = ""


@define(eq=False)
class Pattern:
    """An expression, ready to be looked for; see :func:`compiled`."""

    _steps: list[_Read | _Both] = field(factory=list)
    _first: int = 0

    def found_in(self, text: str) -> bool:
        """Whether some part of ``text`` matches."""
        places: set[int] = set()
        for position in range(len(text) + 1):
            edge = ("^" if position == 0 else "") + ("$" if position == len(text) else "")
            places = self._closed({*places, self._first}, edge)
            if len(self._steps) in places:
                return True
            if position < len(text):
                places = set(self._read(places, text[position]))
        return False

    def _read(self, places: set[int], character: str) -> Iterator[int]:
        for place in places:
            step = self._steps[place]
            if isinstance(step, _Read) and step.test(character):
                yield step.after

    def _closed(self, places: set[int], edge: str) -> set[int]:
        """These places and all that can be reached from them without reading."""
        closed: set[int] = set()
        waiting = [*places]
        while waiting:
            place = waiting.pop()
            if place in closed:
                continue
            closed.add(place)
            step = self._steps[place] if place < len(self._steps) else None
            if isinstance(step, _Both) and (not step.at or step.at in edge):
                waiting += step.after
        return closed


def compiled(text: str) -> Pattern:
    """The expression as a machine.

    Raises:
        ValueError: It is none, or a long one.
    """
    parser = _Parser(text[: LENGTH_MAX + 1])
    make = parser.alternatives()
    if parser.rest or len(text) > LENGTH_MAX:
        raise parser.wrong()
    return _assembled(make)


def is_plain(text: str) -> bool:
    """Whether ``text`` stands for itself."""
    return _SPECIAL.isdisjoint(text)


_Make = Callable[["_Machine", int], int]
"""Puts steps before the one with this number, and tells the number of their first."""


class _Machine:
    """Steps, numbered from the last to the first while they are made; -1 is the end."""

    def __init__(self) -> None:
        self.steps: list[_Read | _Both] = []

    def add(self, step: _Read | _Both) -> int:
        if len(self.steps) >= STEPS_MAX:
            raise ValueError(f"cannot use an expression of more than {STEPS_MAX} steps")
        self.steps.append(step)
        return len(self.steps) - 1


def _assembled(make: _Make) -> Pattern:
    machine = _Machine()
    first = make(machine, -1)
    end = len(machine.steps)

    def placed(number: int) -> int:
        return end if number == -1 else number

    steps: list[_Read | _Both] = [
        _Read(step.test, placed(step.after))
        if isinstance(step, _Read)
        else _Both([placed(number) for number in step.after], step.at)
        for step in machine.steps
    ]
    return Pattern(steps, placed(first))


def _nothing(_: _Machine, after: int) -> int:
    return after


def _one(test: _Test) -> _Make:
    return lambda machine, after: machine.add(_Read(test, after))


def _edge(at: str) -> _Make:
    return lambda machine, after: machine.add(_Both([after], at))


def _sequence(parts: Sequence[_Make]) -> _Make:
    def make(machine: _Machine, after: int) -> int:
        for part in reversed(parts):
            after = part(machine, after)
        return after

    return make


def _either(parts: Sequence[_Make]) -> _Make:
    if len(parts) == 1:
        return parts[0]
    return lambda machine, after: machine.add(_Both([part(machine, after) for part in parts]))


def _repeated(part: _Make, least: int, most: int | None) -> _Make:
    def make(machine: _Machine, after: int) -> int:
        if most is None:
            loop = machine.add(_Both([]))
            machine.steps[loop] = _Both([part(machine, loop), after])
            after = loop
        for _ in range((most or least) - least):
            after = machine.add(_Both([part(machine, after), after]))
        for _ in range(least):
            after = part(machine, after)
        return after

    return make


class _Parser:
    """Reads an expression from the left."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.rest = text
        self._depth = 0

    def wrong(self) -> ValueError:
        return ValueError(f"cannot read the expression {self._text[:80]!r}")

    def _take(self, starts: str) -> bool:
        if self.rest.startswith(starts):
            self.rest = self.rest.removeprefix(starts)
            return True
        return False

    def _next(self) -> str:
        if not self.rest:
            raise self.wrong()
        character, self.rest = self.rest[0], self.rest[1:]
        return character

    def alternatives(self) -> _Make:
        parts = [self._in_sequence()]
        while self._take("|"):
            parts.append(self._in_sequence())
        return _either(parts)

    def _in_sequence(self) -> _Make:
        parts: list[_Make] = []
        while self.rest and self.rest[0] not in "|)":
            parts.append(self._with_repeats(self._atom()))
        return _sequence(parts) if parts else _nothing

    def _with_repeats(self, part: _Make) -> _Make:
        if self._take("*"):
            part = _repeated(part, 0, None)
        elif self._take("+"):
            part = _repeated(part, 1, None)
        elif self._take("?"):
            part = _repeated(part, 0, 1)
        elif self._take("{"):
            part = _repeated(part, *self._bounds())
        else:
            return part
        self._take("?")  # taking as little as possible finds the same texts
        if self.rest[:1] in {"*", "+", "?", "{"}:
            raise self.wrong()
        return part

    def _bounds(self) -> tuple[int, int | None]:
        inside, closed, self.rest = self.rest.partition("}")
        least, comma, most = inside.partition(",")
        numbers = [part for part in (least, most) if part]
        if not (closed and least) or not all(
            part.isascii() and part.isdigit() and int(part[:4]) <= REPEATS_MAX for part in numbers
        ):
            raise self.wrong()
        upper = int(most) if most else None if comma else int(least)
        if upper is not None and (upper < int(least) or not upper):
            raise self.wrong()
        return int(least), upper

    def _atom(self) -> _Make:
        character = self._next()
        if character in "*+?{":
            raise self.wrong()
        if character in "^$":
            return _edge(character)
        if character == "(":
            return self._group()
        return _one(self._test(character))

    def _group(self) -> _Make:
        if self._take("?") and not self._take(":"):
            raise self.wrong()
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise self.wrong()
        inside = self.alternatives()
        self._depth -= 1
        if not self._take(")"):
            raise self.wrong()
        return inside

    def _test(self, character: str) -> _Test:
        match character:
            case "[":
                return self._set()
            case ".":
                return lambda c: c != "\n"
            case "\\":
                return self._escaped()
            case _:
                return character.__eq__

    def _escaped(self) -> _Test:
        character = self._next()
        if character in _CLASSES:
            return _CLASSES[character]
        if character.isalnum():
            raise self.wrong()
        return character.__eq__

    def _set(self) -> _Test:
        other = self._take("^")
        tests: list[_Test] = []
        while not self._take("]") or not tests:
            tests.append(self._range())
        if other:
            return lambda c: not any(test(c) for test in tests)
        return lambda c: any(test(c) for test in tests)

    def _range(self) -> _Test:
        first = self._next()
        if first == "\\":
            return self._escaped()
        if self.rest[:1] != "-" or self.rest[1:2] in {"]", ""}:
            return first.__eq__
        self._next()
        last = self._next()
        if last < first:
            raise self.wrong()
        return lambda c: first <= c <= last

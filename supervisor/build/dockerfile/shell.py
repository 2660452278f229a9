"""Word expansion as Dockerfiles have it: variables, quotes, escapes.

First a word is parsed to *parts* (which finds what is malformed, before anything is built), then the parts are
evaluated with the variables of their moment. Served: ``$v ${v} ${v:-d} ${v-d} ${v:+d} ${v+d} ${v:?e} ${v?e} ${v#p}
${v##p} ${v%p} ${v%%p} ${v/p/r} ${v//p/r}``; patterns know ``*``, ``?`` and escapes. Follows the Dockerfile reference,
"Environment replacement".

Rules: time and space are bounded whatever the word says: nesting, the size of a result, and of what patterns work on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import attrs

from supervisor.build.dockerfile.patterns import Pattern, PatternMark
from supervisor.errors import InvalidArgument

NESTING_MAX = 32
RESULT_CHARACTERS_MAX = 1_048_576
PATTERN_STEPS_MAX = 1_048_576
"""Length of a pattern times length of what it is matched with."""

WORK_CHARACTERS_MAX = 16_777_216
"""What all expansions of one file may cost; a step of a pattern counts as several characters."""

_CHARACTERS_PER_STEP = 4

_BLANK = re.compile(r"[ \t\r\v\f\n]+")
_SPECIAL = "@*#?-$!"
_WHEN_UNSET = "-+?"


class Unexpandable(InvalidArgument):
    """A word that cannot be expanded; ``offset`` is where in the word."""

    def __init__(self, message: str, offset: int, hint: str = "") -> None:
        super().__init__(message, hint)
        self.offset = offset


@attrs.frozen
class Literal:
    """Characters that stand for themselves; ``quoted`` ones never split words and are no pattern."""

    text: str
    quoted: bool


@attrs.frozen
class Variable:
    """``$name`` or ``${name<operator>operand}``.

    Attributes:
        operator: ``""``, or one of ``- + ? :- :+ :? # ## % %% / //``.
        operand: The word after the operator.
        replacement: The second word of ``/`` and ``//``.
        quoted: It stands in double quotes: its value is not split.
        offset: Where its ``$`` stands.
    """

    name: str
    operator: str
    operand: tuple[Part, ...]
    replacement: tuple[Part, ...]
    quoted: bool
    offset: int


Part = Literal | Variable


def parse(word: str, escape: str) -> tuple[Part, ...]:
    """The parts of ``word``.

    Raises:
        Unexpandable: A quote or brace never ends, a name is missing, an operator is none, or it nests too deeply.
    """
    reader = _Reader(word, escape)
    return reader.parts("", depth=0)


@attrs.define
class Work:
    """What one Dockerfile may cost in all: characters that expansion may still produce or match."""

    left: int = WORK_CHARACTERS_MAX

    def spend(self, characters: int, offset: int) -> None:
        """Take from what is left.

        Raises:
            Unexpandable: Nothing is left.
        """
        self.left -= characters
        if self.left < 0:
            message = f"the variables of this file expand to more than {WORK_CHARACTERS_MAX} characters in all"
            raise Unexpandable(message, offset)


def expand(
    word: str, variables: Mapping[str, str], escape: str = "\\", work: Work | None = None
) -> str:
    """``word`` with its variables replaced and its quotes and escapes taken off; an unset variable is empty.

    Raises:
        Unexpandable: It is malformed, demands a variable that is not set (``:?``), or grows too large.
    """
    return _Evaluation(variables, work or Work()).text(parse(word, escape))


def expand_text(
    text: str, variables: Mapping[str, str], escape: str = "\\", work: Work | None = None
) -> str:
    """A here-document's body with its variables replaced; quotes stay, an escape only frees ``$`` and itself.

    Raises:
        Unexpandable: As :func:`expand`.
    """
    return _Evaluation(variables, work or Work()).text(_Reader(text, escape).body())


def expand_words(
    word: str, variables: Mapping[str, str], escape: str = "\\", work: Work | None = None
) -> list[str]:
    """The same, split at blanks outside quotes, those in the variables' values included.

    Raises:
        Unexpandable: As :func:`expand`.
    """
    words: list[str] = []
    open_word: list[str] | None = None
    evaluation = _Evaluation(variables, work or Work())
    for part in parse(word, escape):
        text = evaluation.part(part)
        pieces = [text] if part.quoted else _BLANK.split(text)
        for index, piece in enumerate(pieces):
            if index and open_word is not None:
                words.append("".join(open_word))
                open_word = None
            if piece or part.quoted:
                open_word = [] if open_word is None else open_word
                open_word.append(piece)
    if open_word is not None:
        words.append("".join(open_word))
    return words


def variables_in(parts: Sequence[Part]) -> set[str]:
    """The names that ``parts`` depend on."""
    names: set[str] = set()
    for part in parts:
        if isinstance(part, Variable):
            names |= {part.name} | variables_in(part.operand) | variables_in(part.replacement)
    return names


@attrs.define
class _Reader:
    """A recursive descent over one word."""

    word: str
    escape: str
    at: int = 0

    def parts(self, stops: str, depth: int) -> tuple[Part, ...]:
        """Parts up to an unquoted character of ``stops``, which is not consumed; without stops, to the end."""
        if depth > NESTING_MAX:
            message = f"variables nest more than {NESTING_MAX} deep"
            raise Unexpandable(message, self.at)
        found: list[Part] = []
        plain: list[str] = []
        while self.at < len(self.word) and self.word[self.at] not in stops:
            mark = self.word[self.at]
            if mark not in ("'", '"', "$", self.escape):
                plain.append(mark)
                self.at += 1
                continue
            if plain:
                found.append(Literal("".join(plain), quoted=False))
                plain = []
            found.extend(self._special(mark, depth))
        if plain:
            found.append(Literal("".join(plain), quoted=False))
        return tuple(found)

    def body(self) -> tuple[Part, ...]:
        """The parts of a text that is not a word: only variables and escapes mean something in it."""
        found: list[Part] = []
        while self.at < len(self.word):
            if self.word[self.at] == "$":
                found.append(self._dollar(0, quoted=True))
                continue
            start = self.at
            while self.at < len(self.word) and self.word[self.at] != "$":
                freed = self.word[self.at + 1 : self.at + 2]
                if self.word[self.at] == self.escape and freed and freed in {"$", self.escape}:
                    found.append(Literal(self.word[start : self.at], quoted=True))
                    start = self.at + 1
                    self.at += 1
                self.at += 1
            found.append(Literal(self.word[start : self.at], quoted=True))
        return tuple(found)

    def _special(self, mark: str, depth: int) -> list[Part]:
        if mark == "'":
            return [self._single()]
        if mark == '"':
            return self._double(depth)
        if mark == "$":
            return [self._dollar(depth, quoted=False)]
        self.at += 2
        return [Literal(self.word[self.at - 1 : self.at], quoted=True)]

    def _single(self) -> Literal:
        start = self.at
        end = self.word.find("'", start + 1)
        if end < 0:
            message = "the single quote never ends"
            raise Unexpandable(message, start)
        self.at = end + 1
        return Literal(self.word[start + 1 : end], quoted=True)

    def _double(self, depth: int) -> list[Part]:
        start = self.at
        self.at += 1
        found: list[Part] = [Literal("", quoted=True)]
        plain: list[str] = []
        while self.at < len(self.word):
            mark = self.word[self.at]
            if mark == '"':
                self.at += 1
                return [*found, Literal("".join(plain), quoted=True)]
            if mark == "$":
                found += [Literal("".join(plain), quoted=True), self._dollar(depth, quoted=True)]
                plain = []
                continue
            if mark == self.escape and self.word[self.at + 1 : self.at + 2] in (
                '"',
                "$",
                self.escape,
            ):
                self.at += 1
                mark = self.word[self.at]
            plain.append(mark)
            self.at += 1
        message = "the double quote never ends"
        raise Unexpandable(message, start)

    def _dollar(self, depth: int, *, quoted: bool) -> Part:
        start = self.at
        self.at += 1
        if self.word[self.at : self.at + 1] == "{":
            self.at += 1
            return self._braces(start, depth, quoted=quoted)
        name = self._name()
        return Variable(name, "", (), (), quoted, start) if name else Literal("$", quoted=True)

    def _name(self) -> str:
        start = self.at
        first = self.word[start : start + 1]
        if first and first in _SPECIAL:
            self.at += 1
            return first
        digits = first.isdecimal()
        while self.at < len(self.word) and _in_name(self.word[self.at], digits=digits):
            self.at += 1
        return self.word[start : self.at]

    def _braces(self, start: int, depth: int, *, quoted: bool) -> Variable:
        name = self._name()
        if not name:
            message = "a variable's name is missing"
            raise Unexpandable(message, start, "write ${name}")
        operator = self._operator(start)
        operand: tuple[Part, ...] = ()
        replacement: tuple[Part, ...] = ()
        if operator in {"/", "//"}:
            operand = self.parts("/}", depth + 1)
            if self.word[self.at : self.at + 1] == "/":
                self.at += 1
                replacement = self.parts("}", depth + 1)
        elif operator:
            operand = self.parts("}", depth + 1)
        if self.word[self.at : self.at + 1] != "}":
            message = "the brace never ends"
            raise Unexpandable(message, start, "close it with }")
        self.at += 1
        return Variable(name, operator, operand, replacement, quoted, start)

    def _operator(self, start: int) -> str:
        rest = self.word[self.at : self.at + 2]
        if not rest or rest[0] == "}":
            return ""
        if (rest[0] == ":" and rest[1:] and rest[1] in _WHEN_UNSET) or rest in {"##", "%%", "//"}:
            self.at += 2
            return rest
        if rest[0] in _WHEN_UNSET or rest[0] in "#%/":
            self.at += 1
            return rest[0]
        message = f"{rest[0]} is no operator on a variable"
        raise Unexpandable(message, start, "known are - + ? :- :+ :? # ## % %% / //")


def _in_name(mark: str, *, digits: bool) -> bool:
    return mark.isdecimal() if digits else mark.isalnum() or mark == "_"


@attrs.frozen
class _Evaluation:
    """One expansion, with the variables of its moment."""

    variables: Mapping[str, str]
    work: Work

    def text(self, parts: Sequence[Part]) -> str:
        total, texts = 0, []
        for part in parts:
            texts.append(self.part(part))
            total += len(texts[-1])
            if total > RESULT_CHARACTERS_MAX:
                message = f"it expands to more than {RESULT_CHARACTERS_MAX} characters"
                raise Unexpandable(message, part.offset if isinstance(part, Variable) else 0)
        return "".join(texts)

    def part(self, part: Part) -> str:
        if isinstance(part, Literal):
            self.work.spend(len(part.text), 0)
            return part.text
        text = self._variable(part)
        self.work.spend(len(text) + 1, part.offset)
        return text

    def _variable(self, part: Variable) -> str:
        value = self.variables.get(part.name)
        operator = part.operator
        if operator.removeprefix(":") in _WHEN_UNSET and operator:
            return self._default(part, value if value or ":" not in operator else None)
        if operator and value:
            return self._edited(part, value)
        return value or ""

    def _default(self, part: Variable, value: str | None) -> str:
        match part.operator[-1]:
            case "-":
                return self.text(part.operand) if value is None else value
            case "+":
                return "" if value is None else self.text(part.operand)
            case _:
                if value is not None:
                    return value
                reason = self.text(part.operand) or "it is not set"
                message = f"the variable {part.name} is needed: {reason}"
                raise Unexpandable(
                    message, part.offset, f"give it with ARG, ENV or --build-arg {part.name}=…"
                )

    def _edited(self, part: Variable, value: str) -> str:
        pattern = self._pattern(part)
        steps = len(value) * (len(pattern.marks) + 1)
        if steps > PATTERN_STEPS_MAX:
            message = f"the value of {part.name} is too long for this pattern"
            raise Unexpandable(message, part.offset)
        self.work.spend(steps * _CHARACTERS_PER_STEP, part.offset)
        edit: dict[str, Callable[[], str]] = {
            "#": lambda: pattern.without_prefix(value, longest=False),
            "##": lambda: pattern.without_prefix(value, longest=True),
            "%": lambda: pattern.without_suffix(value, longest=False),
            "%%": lambda: pattern.without_suffix(value, longest=True),
            "/": lambda: pattern.replaced(
                value, self.text(part.replacement), RESULT_CHARACTERS_MAX, every=False
            ),
            "//": lambda: pattern.replaced(
                value, self.text(part.replacement), RESULT_CHARACTERS_MAX, every=True
            ),
        }
        result = edit[part.operator]()
        if len(result) > RESULT_CHARACTERS_MAX:
            message = f"it expands to more than {RESULT_CHARACTERS_MAX} characters"
            raise Unexpandable(message, part.offset)
        return result

    def _pattern(self, part: Variable) -> Pattern:
        marks: list[PatternMark] = []
        for piece in part.operand:
            plain = isinstance(piece, Literal) and piece.quoted
            marks += [
                PatternMark(mark, wild=not plain and mark in "*?") for mark in self.part(piece)
            ]
            if len(marks) > PATTERN_STEPS_MAX:
                message = f"the pattern for {part.name} is too long"
                raise Unexpandable(message, part.offset)
        return Pattern.of(marks)

"""The text of a Dockerfile: lines, places in it, and the directives at its top.

A *place* is file, line and column, both counted from 1. A *directive* is a comment of the form ``# name=value`` before
anything else in the file; the first line that is none ends them. Follows the Dockerfile reference, "Parser directives".
"""

from __future__ import annotations

import bisect
import difflib
import re
from collections.abc import Iterable, Sequence

import attrs

from protocol.errors import Fault, Place
from supervisor.errors import InvalidArgument

BLANKS = " \t\r\v\f"
"""What separates words."""

_DIRECTIVE = re.compile(r"^#[ \t]*([A-Za-z][A-Za-z0-9]*)[ \t]*=[ \t]*(.+?)[ \t]*$")
_DIRECTIVES = ("syntax", "escape", "check")
_EXCERPT_CHARACTERS_MAX = 160


class Misread(InvalidArgument):
    """One thing that is wrong, with its place; collected so that all of them are told at once."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.message, faults=(fault,))


@attrs.frozen
class Source:
    """A Dockerfile's lines, without their ends, and the name its owner knows it by."""

    name: str
    lines: tuple[str, ...]

    def fault(self, message: str, line: int, column: int = 0, hint: str = "") -> Fault:
        """A fault at a place in this text, with the line quoted and a caret below the column."""
        return Fault(message, Place(self.name, line, column), hint, self._excerpt(line, column))

    def _excerpt(self, line: int, column: int) -> str:
        if not 1 <= line <= len(self.lines):
            return ""
        first = max(0, column - 1 - _EXCERPT_CHARACTERS_MAX // 2)
        shown = self.lines[line - 1][first : first + _EXCERPT_CHARACTERS_MAX]
        text = "".join(
            mark if mark.isprintable() or mark == "\t" else "\N{REPLACEMENT CHARACTER}"
            for mark in shown
        )
        if not column:
            return f"  {text}"
        lead = "".join("\t" if mark == "\t" else " " for mark in text[: column - 1 - first])
        return f"  {text}\n  {lead}^"


@attrs.frozen
class Text:
    """Several lines joined to one, which still knows where each character stood.

    Attributes:
        source: Where it comes from.
        value: The joined characters.
        marks: For each piece its offset in ``value``, its line and the column of its first character.
    """

    source: Source
    value: str
    marks: tuple[tuple[int, int, int], ...]

    def fault(self, message: str, offset: int = 0, hint: str = "") -> Fault:
        """A fault at the character ``offset``."""
        return self.source.fault(message, *self.at(offset), hint)

    def misread(self, message: str, offset: int = 0, hint: str = "") -> Misread:
        """The same, to be raised."""
        return Misread(self.fault(message, offset, hint))

    def at(self, offset: int) -> tuple[int, int]:
        """Line and column of the character ``offset``."""
        index = bisect.bisect_right(self.marks, offset, key=lambda mark: mark[0]) - 1
        start, line, column = self.marks[max(0, index)]
        return line, column + max(0, offset - start)

    def part(self, start: int, end: int | None = None) -> Text:
        """The characters from ``start`` to ``end``, without blanks at either end, still in their places."""
        value = self.value[start:end]
        kept = value.lstrip(BLANKS)
        first = start + len(value) - len(kept)
        inner = [(at - first, line, column) for at, line, column in self.marks if at > first]
        line, column = self.at(first)
        return Text(self.source, kept.rstrip(BLANKS), ((0, line, column), *inner))


@attrs.frozen
class Directives:
    """What the top of the file says about how to read it.

    Attributes:
        syntax: A BuildKit frontend image; noted, never fetched: this parser reads the file.
        escape: The character that escapes and continues lines.
        check: Options for lint checks, as given.
        lines: How many lines they take.
    """

    syntax: str = ""
    escape: str = "\\"
    check: str = ""
    lines: int = 0


def read(data: bytes, name: str) -> Source:
    """The lines of a Dockerfile; a byte order mark is dropped, ``CR LF`` ends lines as ``LF`` does.

    Raises:
        InvalidArgument: It is not UTF-8, or holds a NUL; with the place.
    """
    body = data.removeprefix(b"\xef\xbb\xbf")
    text = body.decode("utf-8", "replace")
    source = Source(name, tuple(line.removesuffix("\r") for line in text.split("\n")))
    bad = _undecodable(body)
    if bad is not None:
        line, column = bad
        fault = source.fault("this is not UTF-8 text", line, column, "save the file as UTF-8")
        raise refused(name, [fault])
    return source


def _undecodable(body: bytes) -> tuple[int, int] | None:
    """Line and column of the first byte that no text holds."""
    at = body.find(b"\0")
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.start if at < 0 else min(at, error.start)
    if at < 0:
        return None
    start = body.rfind(b"\n", 0, at) + 1
    return body.count(b"\n", 0, at) + 1, len(body[start:at].decode("utf-8", "replace")) + 1


def directives(source: Source) -> Directives:
    """The parser directives at the top of ``source``.

    Raises:
        InvalidArgument: One is given twice, or the escape character is none.
    """
    found: dict[str, str] = {}
    count = 0
    for number, line in enumerate(source.lines, 1):
        match = _DIRECTIVE.match(line.strip(BLANKS))
        if match is None and number == 1 and line.startswith("#!"):
            count = 1
            continue
        if match is None or match[1].lower() not in _DIRECTIVES:
            break
        name, value = match[1].lower(), match[2]
        _check_directive(source, number, name, value, found)
        found[name] = value
        count = number
    return Directives(
        found.get("syntax", ""), found.get("escape", "\\"), found.get("check", ""), count
    )


def _check_directive(
    source: Source, line: int, name: str, value: str, found: dict[str, str]
) -> None:
    column = source.lines[line - 1].lower().index(name) + 1
    if name in found:
        raise refused(
            source.name, [source.fault(f"the directive {name} is given twice", line, column)]
        )
    if name == "escape" and value not in {"\\", "`"}:
        hint = "the escape character is \\ or `"
        raise refused(
            source.name,
            [source.fault(f"{value} cannot be the escape character", line, column, hint)],
        )


def refused(name: str, faults: Sequence[Fault]) -> InvalidArgument:
    """The error that tells all faults of the file ``name`` at once."""
    count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
    return InvalidArgument(f"cannot build from {name}: {count}", faults=faults)


def likely(word: str, known: Iterable[str]) -> str:
    """The name that was probably meant by ``word``, or nothing."""
    return next(iter(difflib.get_close_matches(word[:64], list(known), n=1)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The same as a hint."""
    meant = likely(word, known)
    return f"did you mean {meant}?" if meant else ""

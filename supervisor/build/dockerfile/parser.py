"""Lines to nodes: one node per instruction, with its continuation lines joined and its here-documents read.

Words: a *node* is keyword, flags and the rest; a *flag* is ``--name`` or ``--name=value`` between the keyword and its
arguments. Rules: comment and blank lines between continuation lines vanish; only RUN, COPY and ADD (also below
ONBUILD) have here-documents; nothing is expanded here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import attrs

from protocol.errors import Fault
from supervisor.build.dockerfile.source import BLANKS, Directives, Misread, Source, Text

_KEYWORD = re.compile(r"[^ \t\r\v\f]+")
_HEREDOC = re.compile(r"^(\d*)<<(-?)(['\"]?)([A-Za-z_][A-Za-z0-9_.-]*)\3$")
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")


@attrs.frozen
class Word:
    """Characters between blanks, quotes and escapes kept, and their offset in the node's text."""

    value: str
    offset: int


@attrs.frozen
class Flag:
    """``--name=value``; ``value`` is ``None`` for a bare ``--name``."""

    name: str
    value: str | None
    offset: int


@attrs.frozen
class Heredoc:
    """A here-document.

    Attributes:
        word: How the instruction names it, e.g. ``<<-EOF``.
        name: The word that ends it, which is also the file name when it is copied.
        expand: Variables in it are expanded (the name was not quoted).
        chomp: Leading tabs are taken off every line (``<<-``).
        content: Its lines as they stand in the file, each with its newline.
        line: The line of its first content.
    """

    word: str
    name: str
    expand: bool
    chomp: bool
    content: str
    line: int

    @property
    def text(self) -> str:
        """The content as it is to be used: without the leading tabs that ``<<-`` takes off."""
        return re.sub(r"(?m)^\t+", "", self.content) if self.chomp else self.content


@attrs.frozen
class Node:
    """One instruction as it is written.

    Attributes:
        keyword: In capitals.
        whole: The instruction from its keyword on, lines joined: how progress and history show it.
        flags: In the order given.
        rest: What follows the flags.
        start: Where in ``whole`` that begins.
        heredocs: In the order they are named.
        escape: The file's escape character.
        line: Where it begins.
    """

    keyword: str
    whole: Text
    flags: tuple[Flag, ...]
    rest: str
    start: int
    heredocs: tuple[Heredoc, ...]
    escape: str
    line: int

    def misread(self, message: str, offset: int | None = None, hint: str = "") -> Misread:
        """A fault at the character ``offset`` of the whole, or where the arguments begin."""
        return self.whole.misread(message, self.start if offset is None else offset, hint)

    def below(self) -> Node:
        """The instruction that stands as argument of this one (ONBUILD).

        Raises:
            InvalidArgument: As when it stood alone.
        """
        return _node(self.whole.part(self.start), self.heredocs, self.escape)


@attrs.define
class _Lines:
    """Where the reader is in the file."""

    source: Source
    escape: str
    next: int = 0
    faults: list[Fault] = attrs.field(factory=list)
    warnings: list[Fault] = attrs.field(factory=list)


def parse(source: Source, head: Directives) -> tuple[list[Node], list[Fault], list[Fault]]:
    """All instructions of the file, what is wrong with the others, and what is merely unwise."""
    lines = _Lines(source, head.escape, head.lines)
    nodes: list[Node] = []
    while (text := _logical_line(lines)) is not None:
        try:
            heredocs = _read_heredocs(lines, text)
            nodes.append(_node(text, heredocs, head.escape))
        except Misread as error:
            lines.faults.extend(error.faults)
    return nodes, lines.faults, lines.warnings


def _logical_line(lines: _Lines) -> Text | None:
    """The next instruction with its continuation lines joined; None at the end of the file."""
    continued = re.compile(rf"(^|[^{re.escape(lines.escape)}]){re.escape(lines.escape)}[ \t]*$")
    pieces: list[str] = []
    marks: list[tuple[int, int, int]] = []
    length, warned = 0, False
    while lines.next < len(lines.source.lines):
        line = lines.source.lines[lines.next]
        lines.next += 1
        kept = line.lstrip(BLANKS)
        if not kept or kept.startswith("#"):
            if not kept and pieces and not warned and lines.next < len(lines.source.lines):
                warned = True
                lines.warnings.append(
                    lines.source.fault("an empty line inside a continued instruction", lines.next)
                )
            continue
        column = 1 if pieces else len(line) - len(kept) + 1
        piece = line if pieces else kept
        end = continued.search(piece)
        body = piece[: end.end(1)] if end else piece
        marks.append((length, lines.next, column))
        pieces.append(body)
        length += len(body)
        if not end:
            break
    if not pieces:
        return None
    return Text(lines.source, "".join(pieces).rstrip(BLANKS), tuple(marks))


def _read_heredocs(lines: _Lines, text: Text) -> tuple[Heredoc, ...]:
    """Read the here-documents that ``text`` names from the lines after it."""
    first = text.value.split(maxsplit=2)
    keyword = first[0].upper() if first else ""
    if keyword == "ONBUILD" and len(first) > 1:
        keyword = first[1].upper()
    if keyword not in _WITH_HEREDOCS or "<<" not in text.value:
        return ()
    found = [(word, _HEREDOC.match(word.value)) for word in split_words(text.value, lines.escape)]
    return tuple(_read_heredoc(lines, text, word, match) for word, match in found if match)


def _read_heredoc(lines: _Lines, text: Text, word: Word, match: re.Match[str]) -> Heredoc:
    chomp, name, start = match[2] == "-", match[4], lines.next
    for at in range(start, len(lines.source.lines)):
        line = lines.source.lines[at]
        if (line.lstrip("\t") if chomp else line) == name:
            content = "".join(f"{line}\n" for line in lines.source.lines[start:at])
            lines.next = at + 1
            return Heredoc(word.value, name, not match[3], chomp, content, start + 1)
    lines.next = len(lines.source.lines)
    message = f"the here-document {name} never ends"
    raise text.misread(message, word.offset, f"end it with a line that holds nothing but {name}")


def _node(text: Text, heredocs: tuple[Heredoc, ...], escape: str) -> Node:
    match = _KEYWORD.match(text.value)
    keyword = match[0].upper() if match else ""
    start = len(keyword)
    flags, end = _flags(text, start, escape)
    behind = text.value[end:]
    rest = behind.lstrip(BLANKS)
    start = end + len(behind) - len(rest)
    return Node(keyword, text, flags, rest, start, heredocs, escape, text.at(0)[0])


def _flags(text: Text, start: int, escape: str) -> tuple[tuple[Flag, ...], int]:
    """The flags from ``start`` on, and where they end."""
    flags: list[Flag] = []
    end = start
    for word in _words_from(text.value, start, escape):
        if not word.value.startswith("--"):
            break
        end = word.offset + len(word.value)
        if word.value == "--":
            break
        name, equals, value = word.value[2:].partition("=")
        flags.append(Flag(name, unquote(value, escape) if equals else None, word.offset))
    return tuple(flags), end


def split_words(text: str, escape: str) -> list[Word]:
    """Words between blanks; quotes hold blanks together and, with escapes, stay in the word."""
    return list(_words_from(text, 0, escape))


def _words_from(text: str, start: int, escape: str) -> Iterator[Word]:
    at, first, quote = start, -1, ""
    while at < len(text):
        mark = text[at]
        if not quote and mark in BLANKS:
            if first >= 0:
                yield Word(text[first:at], first)
            first = -1
        else:
            first = at if first < 0 else first
            if mark == escape and quote != "'":
                at += 1
            elif mark == quote:
                quote = ""
            elif not quote and mark in "\"'":
                quote = mark
        at += 1
    if first >= 0:
        yield Word(text[first:], first)


def unquote(text: str, escape: str) -> str:
    """``text`` without its quotes and escapes; a quote that never ends is taken as it stands."""
    parts: list[str] = []
    at, quote = 0, ""
    while at < len(text):
        mark = text[at]
        if mark == escape and quote != "'" and at + 1 < len(text):
            at += 1
            parts.append(text[at])
        elif mark == quote:
            quote = ""
        elif not quote and mark in "\"'" and text.find(mark, at + 1) > 0:
            quote = mark
        else:
            parts.append(mark)
        at += 1
    return "".join(parts)


def json_words(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array, or None when ``text`` is not exactly that."""
    if not text.startswith("["):
        return None
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list):
        return None
    words = [str(word) for word in value if isinstance(word, str)]
    if len(words) != len(value) or any("\0" in word for word in words):
        return None
    return tuple(
        word.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for word in words
    )

"""Manual pages in the language of man(7): text in, roff out; pure.

Rules: no text of ours becomes a request or an escape of roff's; what is marked ``like this`` is set bold.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

import attrs

_LITERAL = re.compile(r"``([^`]+)``|`([^`]+)`")


@attrs.define
class Page:
    """One page, written from top to bottom.

    Attributes:
        name: What it is about.
        section: 1 for commands, 5 for files, 8 for daemons.
        brief: What that is, in a line.
        version: Of Bakehouse.
    """

    name: str
    section: int
    brief: str
    version: str
    _lines: list[str] = attrs.field(factory=list)

    def heading(self, title: str) -> None:
        """A section of the page."""
        self._lines.append(f".SH {quoted(title.upper())}")

    def part(self, title: str) -> None:
        """A part of a section."""
        self._lines.append(f".SS {quoted(title)}")

    def text(self, *paragraphs: str) -> None:
        """Paragraphs of running text."""
        for paragraph in paragraphs:
            self._lines += [".PP", marked(paragraph)]

    def literal(self, text: str) -> None:
        """Lines that stand as they are: commands, examples."""
        shown = textwrap.dedent(text).strip("\n")
        lines = [_guarded(escaped(line)) for line in shown.splitlines()]
        self._lines += [".PP", ".RS 4", ".nf", *lines, ".fi", ".RE"]

    def terms(self, terms: Iterable[tuple[str, str]]) -> None:
        """Terms, each with what it means below it."""
        for term, meaning in terms:
            self._lines += [".TP", f"\\fB{escaped(term)}\\fR", marked(meaning)]

    def see_also(self, pages: Sequence[tuple[str, int]]) -> None:
        """Other pages, by name and section."""
        self.heading("See also")
        self._lines.append(
            ", ".join(f"\\fB{escaped(name)}\\fR({section})" for name, section in pages)
        )

    def render(self) -> str:
        """The page's source."""
        title = f'.TH {quoted(self.name.upper())} {self.section} "" {quoted(f"Bakehouse {self.version}")} ""'
        head = [
            '.\\" Printed from the code by deploy/manuals; do not edit.',
            title,
            ".SH NAME",
            f"{escaped(self.name)} \\- {escaped(self.brief)}",
        ]
        return "\n".join([*head, *self._lines]) + "\n"


def escaped(text: str) -> str:
    """The text with nothing in it that roff reads as more than text."""
    plain = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    )
    return plain.replace("^", "\\(ha").replace("~", "\\(ti")


def quoted(text: str) -> str:
    """One argument of a request."""
    return '"' + escaped(text).replace('"', "\\(dq") + '"'


def marked(text: str) -> str:
    """Running text on lines of their own, with what is in backticks set bold."""
    words = " ".join(text.split())
    pieces = _LITERAL.split(words)
    shown: list[str] = []
    for index in range(0, len(pieces), 3):
        shown.append(escaped(pieces[index]))
        if index + 1 < len(pieces):
            shown.append(f"\\fB{escaped(pieces[index + 1] or pieces[index + 2])}\\fR")
    return _guarded("".join(shown))


def _guarded(line: str) -> str:
    """A line that begins with a dot or an apostrophe is a request, unless something of no width is before it."""
    return f"\\&{line}" if line.startswith((".", "'")) else line

"""What a ``.dockerignore`` leaves out of a build's context.

Patterns as moby's patternmatcher has them: Go's ``filepath.Match`` plus ``**``; ``!`` lets back in; the last pattern
that matches decides; a pattern that matches a directory matches all below it. Paths are relative, with ``/``.
The Dockerfile and the ``.dockerignore`` themselves are always sent: the daemon needs them, and leaves them out of
``COPY`` by itself.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence

import attrs

_SPECIAL = re.compile(r"[*?\[\\]")


class BadPatternError(ValueError):
    """A line of the file is no pattern; the text says which and why."""


@attrs.frozen
class Pattern:
    """One line.

    Attributes:
        text: The pattern, cleaned, without its ``!``.
        lets_in: It began with ``!``.
        regex: The same, for whole paths.
    """

    text: str
    lets_in: bool
    regex: re.Pattern[str]

    def matches(self, path: str) -> bool:
        """Whether it matches ``path`` or a directory above it."""
        if self.regex.fullmatch(path):
            return True
        return any(self.regex.fullmatch(parent) for parent in _parents(path))


@attrs.frozen
class Ignore:
    """The patterns of one file, in order."""

    patterns: tuple[Pattern, ...] = ()
    always_sent: tuple[str, ...] = ()

    def excludes(self, path: str) -> bool:
        """Whether ``path`` (relative, cleaned) is left out."""
        if path in self.always_sent:
            return False
        out = False
        for pattern in self.patterns:
            if pattern.lets_in == out and pattern.matches(path):
                out = not pattern.lets_in
        return out

    def prunes(self, directory: str) -> bool:
        """Whether ``directory`` is left out with all below it, so that one need not look inside."""
        if not self.excludes(directory):
            return False
        below = f"{directory}/"
        if any(path.startswith(below) for path in self.always_sent):
            return False
        return not any(
            _may_match_below(pattern, below) for pattern in self.patterns if pattern.lets_in
        )


def parse_ignore(text: str, always_sent: Sequence[str] = ()) -> Ignore:
    """The patterns in ``text``, a ``.dockerignore``.

    Args:
        text: With or without a byte order mark; ``#`` in the first column begins a comment.
        always_sent: Paths that no pattern leaves out.

    Raises:
        BadPatternError: A line is no pattern.
    """
    lines = text.removeprefix("\ufeff").splitlines()
    patterns = [
        _parse(line.strip(), number)
        for number, line in enumerate(lines, 1)
        if not line.startswith("#")
    ]
    return Ignore(
        tuple(pattern for pattern in patterns if pattern is not None),
        tuple(posixpath.normpath(path) for path in always_sent),
    )


def _parse(line: str, number: int) -> Pattern | None:
    lets_in = line.startswith("!")
    text = line[1:].strip() if lets_in else line
    if not text:
        if lets_in:
            message = f".dockerignore:{number}: a lone ! lets nothing in"
            raise BadPatternError(message)
        return None
    text = _clean(text)
    try:
        return Pattern(text, lets_in, re.compile(to_regex(text), re.DOTALL))
    except (ValueError, re.error) as error:
        message = f".dockerignore:{number}: {line!r} is no pattern: {error}"
        raise BadPatternError(message) from error


def _clean(text: str) -> str:
    """Go's ``filepath.Clean``, then without the slash in front: all paths are relative to the context."""
    cleaned = posixpath.normpath(text)
    stripped = cleaned.lstrip("/")
    return stripped or "."


def _parents(path: str) -> list[str]:
    names = path.split("/")[:-1]
    return ["/".join(names[:depth]) for depth in range(len(names), 0, -1)]


def _may_match_below(pattern: Pattern, below: str) -> bool:
    """Whether the pattern could match something under the directory; never wrongly no."""
    special = _SPECIAL.search(pattern.text)
    plain = pattern.text[: special.start()] if special else f"{pattern.text}/"
    return plain.startswith(below) or below.startswith(plain)


def to_regex(pattern: str) -> str:
    """A cleaned pattern as a regular expression for whole paths.

    Raises:
        ValueError: It is no pattern.
    """
    parts: list[str] = []
    at = 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 2
            if pattern.startswith("/", at):  # "**/" also matches no directory at all
                at += 1
            parts.append(".*" if at == len(pattern) else "(?:.*/)?")
            continue
        piece, at = _piece(pattern, at)
        parts.append(piece)
    return "".join(parts)


def _piece(pattern: str, at: int) -> tuple[str, int]:
    char = pattern[at]
    if char == "*":
        return "[^/]*", at + 1
    if char == "?":
        return "[^/]", at + 1
    if char == "[":
        return _char_class(pattern, at)
    if char == "\\":
        if at + 1 == len(pattern):
            message = "it ends in a backslash"
            raise ValueError(message)
        return re.escape(pattern[at + 1]), at + 2
    return re.escape(char), at + 1


def _char_class(pattern: str, at: int) -> tuple[str, int]:
    """``[a-z]``, ``[^a-z]``; a backslash takes the next character as it is (Go's filepath.Match)."""
    at += 1
    negated = pattern.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (ranges and pattern.startswith("]", at)):
        low, at = _char(pattern, at)
        high = low
        if pattern.startswith("-", at):
            high, at = _char(pattern, at + 1)
        if high < low:
            message = f"the range {low}-{high} is upside down"
            raise ValueError(message)
        ranges.append(f"{re.escape(low)}-{re.escape(high)}")
    body = "".join(ranges)
    return (f"[^{body}]" if negated else f"[{body}]"), at + 1


def _char(pattern: str, at: int) -> tuple[str, int]:
    escaped = pattern.startswith("\\", at)
    at += escaped
    if at >= len(pattern) or (not escaped and pattern[at] in "-]"):
        message = "the bracket is not closed, or empty"
        raise ValueError(message)
    return pattern[at], at + 1

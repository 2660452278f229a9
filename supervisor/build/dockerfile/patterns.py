"""Shell patterns (``*``, ``?``) matched in one pass, whatever they look like.

Every position the pattern can be at is one bit of an integer, so that no pattern makes matching slower than the length
of the text times the length of the pattern: a Dockerfile cannot buy backtracking.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import attrs


@attrs.frozen
class PatternMark:
    """One character of a pattern; ``wild`` when it is the wildcard and not the character."""

    character: str
    wild: bool


@attrs.frozen
class Pattern:
    """A pattern as bit sets over its positions.

    Attributes:
        literal: For each character, the positions that take it.
        single: The positions that take any one character.
        star: The positions that take any number of characters.
        accept: The bit of the position behind the last.
        marks: What it was made from.
    """

    literal: Mapping[str, int]
    single: int
    star: int
    accept: int
    marks: tuple[PatternMark, ...]

    @classmethod
    def of(cls, marks: Sequence[PatternMark]) -> Pattern:
        """The pattern of these characters; neighbouring stars count as one."""
        literal: defaultdict[str, int] = defaultdict(int)
        single = star = position = 0
        kept: list[PatternMark] = []
        for mark in marks:
            bit = 1 << position
            if mark.wild and mark.character == "*":
                if kept and kept[-1] == mark:
                    continue
                star |= bit
            elif mark.wild:
                single |= bit
            else:
                literal[mark.character] |= bit
            kept.append(mark)
            position += 1
        return cls(dict(literal), single, star, 1 << position, tuple(kept))

    def ends(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """Where the shortest and the longest match that begin at ``start`` end; None when none does."""
        state = self._through_stars(1)
        shortest = longest = start if state & self.accept else -1
        for at in range(start, len(text)):
            taken = state & (self.literal.get(text[at], 0) | self.single)
            state = self._through_stars(taken << 1 | state & self.star)
            if not state:
                break
            if state & self.accept:
                shortest = at + 1 if shortest < 0 else shortest
                longest = at + 1
        return (shortest, longest) if shortest >= 0 else None

    def _through_stars(self, state: int) -> int:
        return state | (state & self.star) << 1

    def without_prefix(self, text: str, *, longest: bool) -> str:
        """``text`` without the prefix that matches."""
        ends = self.ends(text)
        return text if ends is None else text[ends[longest] :]

    def without_suffix(self, text: str, *, longest: bool) -> str:
        """``text`` without the suffix that matches."""
        return Pattern.of(self.marks[::-1]).without_prefix(text[::-1], longest=longest)[::-1]

    def replaced(self, text: str, replacement: str, characters_max: int, *, every: bool) -> str:
        """``text`` with its first match, the longest there, replaced; or all, until it is longer than asked for."""
        parts: list[str] = []
        at = kept = 0
        while at < len(text):
            ends = self.ends(text, at)
            if ends is None or ends[1] == at:
                if ends is None and self._hopeless(text, at):
                    break
                at += 1
                continue
            parts += [text[kept:at], replacement]
            at = kept = ends[1]
            if not every or len(replacement) * len(parts) > 2 * characters_max:
                break
        return "".join([*parts, text[kept:]])

    def _hopeless(self, text: str, at: int) -> bool:
        """The part before the first star matches here, yet the whole does not: then it cannot further on either."""
        if not self.star:
            return False
        head = (self.star & -self.star).bit_length() - 1
        return Pattern.of(self.marks[:head]).ends(text[: at + head], at) is not None

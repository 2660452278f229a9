"""Patterns of COPY: a match or InvalidArgument, never slow, and the same as the shell's where both know them."""

from __future__ import annotations

import fnmatch
import time

from hypothesis import given
from hypothesis import strategies as st

from supervisor.build.sources import compiled
from supervisor.errors import InvalidArgument


@given(st.text(alphabet="ab*?[]^-\\!", max_size=12), st.text(alphabet="ab*?[]^-!", max_size=8))
def test_an_answer_or_invalid_argument(pattern: str, name: str) -> None:
    try:
        found = compiled(pattern)
    except InvalidArgument:
        return
    assert found.match(name) is None or name is not None


@given(st.text(alphabet="ab*?", max_size=8), st.text(alphabet="ab", max_size=8))
def test_stars_and_marks_are_the_shells(pattern: str, name: str) -> None:
    assert bool(compiled(pattern).match(name)) == fnmatch.fnmatchcase(name, pattern)


def test_no_pattern_takes_long() -> None:
    start = time.thread_time()
    assert not compiled("*a" * 100 + "b").match("a" * 255)
    assert time.thread_time() - start < 1


def test_classes_and_escapes() -> None:
    assert compiled("[^a-c]x").match("dx")
    assert not compiled("[^a-c]x").match("bx")
    assert compiled("\\*").match("*")
    assert not compiled("\\*").match("a")

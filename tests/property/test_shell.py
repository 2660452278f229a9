"""Word expansion: a text or InvalidArgument, in bounded time; and what a plain word means."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.build.dockerfile import shell
from supervisor.build.dockerfile.patterns import Pattern, PatternMark
from supervisor.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

MARKS = st.lists(
    st.sampled_from(
        [
            "$",
            "{",
            "}",
            "a",
            "b",
            ":",
            "-",
            "+",
            "?",
            "#",
            "%",
            "/",
            "*",
            "'",
            '"',
            "\\",
            " ",
            "${a",
            "$b",
        ]
    ),
    max_size=30,
).map("".join)
VALUES = st.dictionaries(st.sampled_from(["a", "b", "ab"]), st.text(alphabet="ab/. *", max_size=12))


def outcome(
    work: Callable[[str, dict[str, str]], str | list[str]], word: str, values: dict[str, str]
) -> str | list[str] | shell.Unexpandable:
    try:
        return work(word, values)
    except shell.Unexpandable as error:
        return error


@given(MARKS | st.text(max_size=30), VALUES)
def test_a_text_or_invalid_argument(word: str, values: dict[str, str]) -> None:
    for work in (shell.expand, shell.expand_words):
        found = outcome(work, word, values)
        assert isinstance(found, str | list) or (found.message and 0 <= found.offset <= len(word))


@given(st.text())
def test_single_quotes_keep_everything(text: str) -> None:
    body = text.replace("'", "")
    assert shell.expand(f"'{body}'", {"a": "b"}) == body


@given(st.text(alphabet="ab*?", max_size=6), st.text(alphabet="ab", max_size=10))
def test_patterns_agree_with_regular_expressions(pattern: str, text: str) -> None:
    made = Pattern.of([PatternMark(mark, wild=mark in "*?") for mark in pattern])
    expression = "".join({"*": ".*", "?": "."}.get(mark, mark) for mark in pattern)
    ends = [end for end in range(len(text) + 1) if re.fullmatch(expression, text[:end])]
    assert made.ends(text) == ((ends[0], ends[-1]) if ends else None)
    starts = [start for start in range(len(text) + 1) if re.fullmatch(expression, text[start:])]
    assert made.without_suffix(text, longest=True) == (text[: starts[0]] if starts else text)
    nonempty = [
        (start, max(ends))
        for start in range(len(text))
        if (
            ends := [
                end
                for end in range(start + 1, len(text) + 1)
                if re.fullmatch(expression, text[start:end])
            ]
        )
    ]
    wanted = text[: nonempty[0][0]] + "X" + text[nonempty[0][1] :] if nonempty else text
    assert made.replaced(text, "X", 100, every=False) == wanted


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("$v", "x.tar.gz"),
        ("${v}y", "x.tar.gzy"),
        ("${u:-d$v}", "dx.tar.gz"),
        ("${e:-d}", "d"),
        ("${e-d}", ""),
        ("${v:+set}${u+set}${e+set}", "setset"),
        ("${v#*.}", "tar.gz"),
        ("${v##*.}", "gz"),
        ("${v%.*}", "x.tar"),
        ("${v%%.*}", "x"),
        ("${v/./-}", "x-tar.gz"),
        ("${v//./-}", "x-tar-gz"),
        (r"\$v '$v' \"$v\"", '$v $v "x.tar.gz"'),
        ("\"$v 'q'\" $", "x.tar.gz 'q' $"),
        ("$undefined.", "."),
        ("${v:?no}", "x.tar.gz"),
    ],
)
def test_expansion(word: str, wanted: str) -> None:
    assert shell.expand(word, {"v": "x.tar.gz", "e": ""}) == wanted


def test_words_split_outside_quotes() -> None:
    assert shell.expand_words("a $v \"$v\" '' b", {"v": "1 2"}) == ["a", "1", "2", "1 2", "", "b"]


def test_a_needed_variable_is_named() -> None:
    with pytest.raises(InvalidArgument, match="the variable V is needed: give me"):
        shell.expand("${V:?give me}", {})


@pytest.mark.parametrize(
    "word",
    [
        "${a:-" * 1000,
        "${v//aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab/x}" * 200,
        "${v//a/$v}" * 50,
        "$v" * 100_000,
        "${v//*a*a*a*a*a*a*a*a*a*b/x}" * 100,
        "${v//?/" + "y" * 60_000 + "}",
    ],
)
def test_no_word_takes_long(word: str) -> None:
    start = time.thread_time()
    for work in (shell.expand, shell.expand_words):
        try:
            assert work(word, {"v": "a" * 20_000})
        except InvalidArgument:
            continue
    assert time.thread_time() - start < 10

"""Expressions of filters: the same answers as Python's, and no expression that takes for ever."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.patterns import compiled, is_plain

ATOMS = st.sampled_from(["a", "b", "-", ".", "[ab]", "[^a]", "[a-c_]", r"\d", r"\W", r"\.", "1"])
REPEATS = st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{1,}", "+?"])
EXPRESSIONS = st.recursive(
    st.builds(str.__add__, ATOMS, REPEATS),
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("({}|{}){}".format, inner, inner, REPEATS),
        st.builds("^{}".format, inner),
        st.builds("{}$".format, inner),
    ),
    max_leaves=5,
)


@given(EXPRESSIONS, st.text("ab1-._c", max_size=12))
def test_they_find_what_pythons_find(expression: str, text: str) -> None:
    try:
        pattern = compiled(expression)
    except ValueError:
        return  # too many steps
    assert pattern.found_in(text) is bool(re.search(expression, text))


@given(st.text("ab1()[]{}*+?|^$.\\-,", max_size=20))
def test_any_text_is_an_expression_or_is_refused(text: str) -> None:
    try:
        compiled(text).found_in("aab1-b")
    except ValueError:
        return


@pytest.mark.parametrize(
    "text",
    ["(", "[a", "a**", "*a", "a{2,1}", "a{0}", "(?i)a", "\\", "a" * 300, "(" * 17 + ")" * 17],
)
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expression"):
        compiled(text)


def test_what_makes_others_hang_is_answered_at_once() -> None:
    began = time.thread_time()
    assert not compiled("^(a+)+$").found_in("a" * 128 + "!")
    assert not compiled("(a|a?){30}b$").found_in("a" * 128)
    assert time.thread_time() - began < 1


def test_plain_texts_are_told_from_expressions() -> None:
    assert is_plain("web-1_x")
    assert not is_plain("^web$")

"""What .dockerignore leaves out: moby's own examples, and laws that hold for any pattern."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.ignore import BadPatternError, parse_ignore

NAMES = st.text(alphabet="ab.-[", min_size=1, max_size=3).filter(
    lambda name: name not in {".", ".."}
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
LINES = st.text(alphabet="ab.*?![]^-/\\# ", max_size=8)


# From moby's patternmatcher tests: pattern, path, whether it is left out.
@pytest.mark.parametrize(
    ("pattern", "path", "out"),
    [
        ("**", "file", True),
        ("**", "dir/file", True),
        ("**/", "file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/file", True),
        ("dir/**", "dir", False),
        ("dir/**", "dir/dir2/file", True),
        ("**/dir", "dir", True),
        ("**/dir", "dir/file", True),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**/dir2/**", "dir/dir2/dir2/file", True),
        ("**file", "dir/file", True),
        ("**file", "dir/dir/file", True),
        ("**/file*txt", "dir/dir/file.txt", True),
        ("**/file*.txt*", "dir/dir/file.txt", True),
        ("**/**/*.txt2", "dir/file.txt", False),
        ("a**/*.txt", "a/file.txt", True),
        ("a**/*.txt", "a/dir/dir/file.txt", True),
        ("a[b-d]e", "ace", True),
        ("a[b-d]e", "aae", False),
        ("a[^b-d]e", "aze", True),
        (".*", ".foo", True),
        (".*", "foo", False),
        ("abc.def", "abcZdef", False),
        ("abc?def", "abcZdef", True),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("**/foo/bar", "in1/foo/bar", True),
        ("abc/**", "abc/def/ghi", True),
        ("**/.foo", "test.foo", False),
        ("a(b)c/def", "a(b)c/def", True),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", True),
        ("/top", "top/x", True),
        ("dir/", "dir/x", True),
        ("./a/../b", "b", True),
        ("*", "a/b/c", True),
        ("*/b", "a/b/c", True),
        ("*/c", "a/b/c", False),
        (".", "a", False),
        ("# comment", "# comment", False),
        ("", "a", False),
    ],
)
def test_mobys_examples(pattern: str, path: str, out: bool) -> None:
    assert parse_ignore(pattern).excludes(path) is out


def test_the_last_match_decides() -> None:
    ignore = parse_ignore("*\n!docs\ndocs/*.tmp\n!docs/keep.tmp\n")
    left_out = {
        path for path in ("a", "docs/x", "docs/a.tmp", "docs/keep.tmp") if ignore.excludes(path)
    }
    assert left_out == {"a", "docs/a.tmp"}


def test_what_the_daemon_needs_is_always_sent() -> None:
    ignore = parse_ignore("*", always_sent=("./sub/Dockerfile", ".dockerignore"))
    assert not ignore.excludes("sub/Dockerfile")
    assert not ignore.excludes(".dockerignore")
    assert ignore.excludes("sub/other")
    assert not ignore.prunes("sub")
    assert ignore.prunes("other")


def test_a_byte_order_mark_is_no_part_of_a_pattern() -> None:
    assert parse_ignore("\ufeffa\r\nb").excludes("a")


@pytest.mark.parametrize("text", ["!", "[", "a[]", "[b-a]", "x\\", "[a-]"])
def test_what_is_no_pattern_is_told_with_its_line(text: str) -> None:
    with pytest.raises(BadPatternError, match=r"^\.dockerignore:2: "):
        parse_ignore(f"fine\n{text}\n")


@given(text=st.lists(LINES, max_size=4).map("\n".join), path=PATHS)
def test_any_text_is_patterns_or_told(text: str, path: str) -> None:
    try:
        ignore = parse_ignore(text)
    except BadPatternError:
        return
    assert isinstance(ignore.excludes(path), bool)


@given(text=st.lists(LINES, max_size=4).map("\n".join), path=PATHS)
def test_nothing_is_wanted_below_what_is_pruned(text: str, path: str) -> None:
    try:
        ignore = parse_ignore(text)
    except BadPatternError:
        return
    parts = path.split("/")
    for depth in range(1, len(parts)):
        if ignore.prunes("/".join(parts[:depth])):
            assert ignore.excludes(path)


@given(path=PATHS)
def test_everything_and_back_again_is_everything(path: str) -> None:
    assert parse_ignore("**").excludes(path)
    assert not parse_ignore("**\n!**").excludes(path)

"""References: what is parsed is printed, and printed is parsed the same."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from supervisor.errors import InvalidArgument
from supervisor.oci import reference

COMPONENT = st.from_regex(r"[a-z0-9]{1,8}([._-][a-z0-9]{1,4}){0,2}", fullmatch=True)
PATH = st.lists(COMPONENT, min_size=1, max_size=3).map("/".join)
DOMAIN = st.sampled_from(
    ["", "localhost/", "registry.lab:5000/", "ghcr.io/", "docker.io/", "[::1]:5000/"]
)
TAG = st.from_regex(r"(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,20})?", fullmatch=True)
DIGEST = st.sampled_from(["", "@sha256:" + "0f" * 32])


@given(DOMAIN, PATH, TAG, DIGEST)
@example("docker.io/", "0.0/0", "", "")
def test_familiar_and_canonical_name_the_same(
    domain: str, path: str, tag: str, digest: str
) -> None:
    first, slash, _ = path.partition("/")
    # Without a host a first part with a dot is read as one, and a host has no underscore: Docker refuses these too.
    assume(domain or not slash or "." not in first or "_" not in first)
    parsed = reference.parse(domain + path + tag + digest)
    assert reference.parse(parsed.familiar) == parsed
    assert reference.parse(parsed.canonical) == parsed


@given(st.text(max_size=80) | st.text(alphabet="aA0/:@._-[]", max_size=40))
def test_any_text_is_a_reference_or_an_invalid_argument(text: str) -> None:
    try:
        parsed = reference.parse(text)
    except InvalidArgument:
        return
    assert reference.parse(parsed.canonical) == parsed


@pytest.mark.parametrize(
    ("typed", "canonical", "familiar"),
    [
        ("web", "docker.io/library/web:latest", "web:latest"),
        ("web:2", "docker.io/library/web:2", "web:2"),
        ("lab/web", "docker.io/lab/web:latest", "lab/web:latest"),
        ("docker.io/library/web", "docker.io/library/web:latest", "web:latest"),
        ("index.docker.io/web", "docker.io/library/web:latest", "web:latest"),
        ("localhost/web", "localhost/web:latest", "localhost/web:latest"),
        ("r.lab:5000/a/b:t", "r.lab:5000/a/b:t", "r.lab:5000/a/b:t"),
        ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
    ],
)
def test_known_names(typed: str, canonical: str, familiar: str) -> None:
    parsed = reference.parse(typed).tagged
    assert (parsed.canonical, parsed.familiar) == (canonical, familiar)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Web",
        "a//b",
        "web:",
        "web@sha256:12",
        "../x",
        "-a",
        "a" * 64,
        "a/" + "b" * 255,
        "web:" + "t" * 129,
        "a b",
        "é",
    ],
)
def test_no_names(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid reference format"):
        reference.parse(text)


def test_ids() -> None:
    assert reference.id_prefix("sha256:0af") == "0af"
    assert reference.id_prefix("0af") == "0af"
    assert not reference.id_prefix("web")
    assert reference.short_id("sha256:" + "ab" * 32) == "ab" * 6

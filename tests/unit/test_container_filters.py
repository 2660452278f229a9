"""The filters of lists and prunes, on what clients are shown."""

from __future__ import annotations

import pytest

from supervisor.api.docker.container_filters import Listed, Named, shows_all, wanted_by
from supervisor.api.docker.filter_tests import named, passes_labels, ports
from supervisor.api.docker.times import parse_moment
from supervisor.api.http import JsonObject
from supervisor.errors import InvalidArgument

SECOND = 1_000_000_000
ENTRY: JsonObject = {
    "Id": "ab" * 32,
    "Names": ["/web-1"],
    "State": "exited",
    "Labels": {"tier": "front", "team": "x"},
    "Ports": [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
    ],
    "NetworkSettings": {
        "Networks": {"bridge": {"NetworkID": "cd" * 32}, "none": {"NetworkID": ""}}
    },
    "Mounts": [
        {"Type": "volume", "Name": "data", "Source": "/x/data", "Destination": "/var/data"},
        {"Type": "bind", "Source": "/home/ada", "Destination": "/home"},
    ],
}
WEB = Listed(ENTRY, 50 * SECOND, ("l1", "l2"), exit_code=3, health="healthy")
LOOKED_UP = Named(before_ns=60 * SECOND, since_ns=40 * SECOND, ancestors=[("l1",), ("x",)])


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("ancestor", "base", True),
        ("before", "later", True),
        ("since", "earlier", True),
        ("exited", "3", True), ("exited", "0", False), ("exited", "-1", False),
        ("expose", "80", True), ("expose", "53/udp", True), ("expose", "53", False), ("expose", "79-81/tcp", True),
        ("publish", "8080", True), ("publish", "80", False), ("publish", "8000-9000", True),
        ("health", "healthy", True), ("health", "none", False),
        ("id", "abab", True), ("id", "cd", False),
        ("is-task", "false", True), ("is-task", "true", False),
        ("isolation", "default", True),
        ("label", "tier", True), ("label", "tier=front", True), ("label", "tier=back", False),
        ("name", "web", True), ("name", "^/web-[0-9]+$", True), ("name", "^web-1$", True), ("name", "^eb", False), ("name", "(", False),
        ("network", "bridge", True), ("network", "cdcd", True), ("network", "host", False),
        ("status", "exited", True), ("status", "running", False),
        ("volume", "data", True), ("volume", "/var/data", True), ("volume", "/home/ada", True), ("volume", "dat", False),
    ],
)  # fmt: skip
def test_each_filter(name: str, value: str, passes: bool) -> None:
    chosen = wanted_by({name: (value,)}, LOOKED_UP)
    assert all(test(WEB) for test in chosen) is passes
    either = wanted_by({name: (value, value)}, LOOKED_UP)
    assert all(test(WEB) for test in either) is passes


def test_any_value_of_a_filter_and_every_filter_must_pass() -> None:
    assert all(test(WEB) for test in wanted_by({"name": ("x", "web"), "id": ("c", "a")}, LOOKED_UP))
    assert not all(test(WEB) for test in wanted_by({"label": ("tier", "none")}, LOOKED_UP))
    assert not all(test(WEB) for test in wanted_by({"name": ("web",), "id": ("c",)}, LOOKED_UP))
    assert all(test(WEB) for test in wanted_by({"publish": ("1",), "expose": ("80",)}, LOOKED_UP))


def test_what_never_ran_has_no_exit_code() -> None:
    (test,) = wanted_by({"exited": ("0",)}, LOOKED_UP)
    assert not test(Listed(ENTRY, 1))
    assert shows_all({"exited": ("0",)})
    assert shows_all({"status": ("created",)})
    assert not shows_all({"name": ("x",)})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("exited", "x", "invalid filter 'exited=x'"),
        ("status", "well", "invalid filter 'status=well'"),
        ("health", "fine", "Unrecognised filter value for health: fine"),
        ("is-task", "maybe", "invalid filter 'is-task=maybe'"),
        ("publish", "1:2", "should not contain ':'"),
        ("expose", "x", "error while looking up for expose x"),
        ("expose", "9-5", "error while looking up for expose 9-5"),
    ],
)
def test_values_that_make_no_sense(name: str, value: str, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        wanted_by({name: (value,)}, LOOKED_UP)
    assert words in caught.value.message


def test_prunes_look_at_labels() -> None:
    labels = {"a": "1", "b": "2"}
    assert passes_labels(labels, {})
    assert passes_labels(labels, {"label": ("a", "b=2")})
    assert not passes_labels(labels, {"label": ("a", "c")})
    assert not passes_labels(labels, {"label!": ("a",)})
    assert passes_labels(labels, {"label!": ("a", "c")})
    assert passes_labels(labels, {"label!": ("a=2",)})


def test_ports_and_names() -> None:
    assert ports("publish", ["80", "8000-8001/UDP"]) == {"80/tcp", "8000/udp", "8001/udp"}
    assert named(["a+b"])("aab")
    assert named(["a+b"])("a+b")


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1h30m", 100_000 * SECOND - 5_400 * SECOND),
        ("1.5s", 100_000 * SECOND - 1_500_000_000),
        ("10", 10 * SECOND),
        ("1970-01-02", 86_400 * SECOND),
        ("1970-01-01T01", 3_600 * SECOND),
        ("1970-01-01T00:01Z", 60 * SECOND),
        ("1970-01-01T01:00:00.5+01:00", SECOND // 2),
    ],
)
def test_moments_as_people_write_them(text: str, time_ns: int) -> None:
    assert parse_moment("until", text, 100_000 * SECOND) == time_ns


@pytest.mark.parametrize("text", ["", "yesterday", "1970-13-01", "1x", "h"])
def test_moments_that_are_none(text: str) -> None:
    if not text:
        assert parse_moment("until", text, 0) == 0
        return
    with pytest.raises(InvalidArgument):
        parse_moment("until", text, 0)

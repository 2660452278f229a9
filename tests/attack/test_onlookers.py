"""One user looking for another's things: by ids, prefixes, names, labels and filters, at every endpoint that looks on.

What is another's must answer as what does not exist does, word for word, whatever is asked of it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from tests.support.accounts import People
from tests.support.asking import ask
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

NOBODY = "0123456789ab" * 5 + "cdef"


@pytest.fixture(scope="module")
def hers(daemon: Daemon, two_users: People) -> Iterator[dict[str, str]]:
    """Ada's container, exec and volume, none of which Bob may know of."""
    ada = two_users.ada
    for user in (ada, two_users.bob):
        daemon.import_busybox("bb", user=user)
    options = ("-l", "secret=yes", "-v", "treasure:/t", "--name", "hidden", "-p", "20555:80")
    container = daemon.docker(
        "run", "-d", *options, "bb", "sh", "-c", "echo told; sleep 600", user=ada
    ).stdout.strip()
    made = ask(daemon, "POST", "/containers/hidden/exec", {"Cmd": ["true"]}, user=ada).json
    assert isinstance(made, dict)
    yield {"container": container, "exec": str(made["Id"])}
    daemon.docker("rm", "-f", "-v", "hidden", user=ada)


CONTAINER = [
    ("GET", "/containers/{}/json"),
    ("GET", "/containers/{}/json?size=1"),
    ("GET", "/containers/{}/logs?stdout=1"),
    ("GET", "/containers/{}/logs?stdout=1&follow=1&tail=1"),
    ("GET", "/containers/{}/stats?stream=0"),
    ("GET", "/containers/{}/stats"),
    ("GET", "/containers/{}/top"),
    ("GET", "/containers/{}/top?ps_args=axf"),
    ("GET", "/containers/{}/attach/ws?stream=1"),
    ("POST", "/containers/{}/attach?stream=1&logs=1&stdout=1"),
    ("POST", "/containers/{}/exec"),
    ("POST", "/containers/{}/resize?h=1&w=1"),
]
EXEC = [("GET", "/exec/{}/json"), ("POST", "/exec/{}/start"), ("POST", "/exec/{}/resize?h=1&w=1")]
VOLUME = [("GET", "/volumes/{}"), ("DELETE", "/volumes/{}")]


@pytest.mark.parametrize(
    ("kind", "endpoint"),
    [
        *(("container", one) for one in CONTAINER),
        *(("exec", one) for one in EXEC),
        *(("volume", one) for one in VOLUME),
    ],
)
def test_what_is_anothers_answers_as_nothing_does(
    daemon: Daemon,
    two_users: People,
    hers: dict[str, str],
    kind: str,
    endpoint: tuple[str, str],
) -> None:
    method, path = endpoint
    known = {"volume": ("treasure", "treasurf"), "exec": (hers["exec"], NOBODY)}
    pairs = [known.get(kind, (hers["container"], NOBODY))]
    if kind == "container":
        pairs += [("hidden", "hiddes"), (hers["container"][:12], NOBODY[:12])]
    for name, nothing in pairs:
        body = {"Cmd": ["true"]} if method == "POST" else b""
        told = ask(daemon, method, path.format(name), body, user=two_users.bob)
        none = ask(daemon, method, path.format(nothing), body, user=two_users.bob)
        assert told.status == none.status == 404
        assert told.message.replace(name, nothing) == none.message


@pytest.mark.parametrize(
    "chosen",
    [
        {"id": ["{}"]}, {"name": ["hidden"]}, {"name": [".*"]}, {"label": ["secret"]}, {"volume": ["treasure"]}, {"volume": ["/t"]},
        {"publish": ["20555"]}, {"publish": ["1-65535"]}, {"expose": ["80"]}, {"network": ["bridge"]}, {"status": ["running"]},
        {"ancestor": ["bb"]}, {"health": ["none"]}, {"is-task": ["false"]},
    ],
)  # fmt: skip
def test_no_filter_finds_it(
    daemon: Daemon, two_users: People, hers: dict[str, str], chosen: dict[str, list[str]]
) -> None:
    text = quote(json.dumps(chosen).replace("{}", hers["container"][:12]))
    for all_too in ("", "&all=1&size=1"):
        path = f"/containers/json?filters={text}{all_too}"
        assert ask(daemon, "GET", path, user=two_users.bob).json == []
        assert ask(daemon, "GET", path, user=two_users.ada).json != []


def test_filters_that_name_it_say_that_it_is_not_there(
    daemon: Daemon, two_users: People, hers: dict[str, str]
) -> None:
    for name in ("before", "since"):
        answers = [
            ask(
                daemon,
                "GET",
                f"/containers/json?filters={quote(json.dumps({name: [one]}))}",
                user=two_users.bob,
            )
            for one in (hers["container"], NOBODY)
        ]
        assert {answer.status for answer in answers} == {404}
        assert answers[0].message.replace(hers["container"], NOBODY) == answers[1].message


def test_events_usage_and_prunes_are_of_ones_own(
    daemon: Daemon, two_users: People, hers: dict[str, str]
) -> None:
    bob = two_users.bob
    until = time.time()
    for chosen in ({}, {"container": ["hidden"]}, {"label": ["secret"]}, {"volume": ["treasure"]}):
        path = f"/events?since=1&until={until}&filters={quote(json.dumps(chosen))}"
        told = ask(daemon, "GET", path, user=bob).body.decode()
        assert hers["container"] not in told
        assert "treasure" not in told
        assert "secret" not in told
    usage = ask(daemon, "GET", "/system/df", user=bob).body.decode()
    assert hers["container"] not in usage
    assert "treasure" not in usage
    volumes = ask(daemon, "GET", "/volumes", user=bob).json
    assert volumes == {"Volumes": [], "Warnings": None}
    for noun in ("containers", "volumes"):
        ask(daemon, "POST", f"/{noun}/prune", user=bob)
    info = ask(daemon, "GET", "/info", user=bob).json
    assert isinstance(info, dict)
    assert info["Containers"] == 0
    shown = daemon.docker("inspect", "-f", "{{.State.Running}}", "hidden", user=two_users.ada)
    assert shown.stdout == "true\n"


def test_expressions_that_take_for_ever_hold_up_nobody(daemon: Daemon, two_users: People) -> None:
    name = "a" * 100
    daemon.docker("create", "--name", name, "bb", "true", user=two_users.bob)
    for expression in ("(a+)+$b", "(a|a?){30}b", "(((a*)*)*)*b", "[" * 200, "(" * 200):
        began = time.monotonic()
        text = quote(json.dumps({"name": [expression]}))
        ask(daemon, "GET", f"/containers/json?all=1&filters={text}", user=two_users.bob)
        assert time.monotonic() - began < 5
    daemon.docker("rm", name, user=two_users.bob)

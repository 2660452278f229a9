"""Every route, asked for another's things by id, prefix and name: the answer is the one for what does not exist.

What a thing can be referred to in is listed in :mod:`tests.support.references`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from urllib.parse import quote

import attrs
import pytest

from tests.support.accounts import People, User
from tests.support.asking import ask
from tests.support.daemon import Daemon, busybox_tar
from tests.support.operations import Subject, run
from tests.support.references import (
    ASKING,
    BODIES,
    FILTERS,
    QUERIES,
    REFERRING,
    absent,
    kind_of,
    told,
)

pytestmark = [pytest.mark.root, pytest.mark.slow]


@attrs.frozen
class Theirs:
    """What belongs to ada: for each kind all that it can be called, as she sees it."""

    called: Mapping[str, tuple[str, ...]]
    state: Mapping[str, object]


@pytest.fixture(scope="module")
def theirs(daemon: Daemon, two_users: People) -> Iterator[Theirs]:
    ada, bob = two_users.ada, two_users.bob
    for person in (ada, bob):
        daemon.import_busybox(user=person)
    secret = ("import", "-c", "LABEL secret=yes", "-", "secret-image")
    daemon.docker(*secret, user=ada, input_=busybox_tar())
    daemon.docker("network", "create", "secret-net", user=ada)
    web = Subject(daemon, ada, "secret-web")
    run(web)
    daemon.docker("network", "connect", "secret-net", "secret-web", user=ada)
    run(Subject(daemon, bob, "own"))
    made = web.call("POST", "/containers/secret-web/exec", {"Cmd": ["sleep", "600"]}, fine={201})
    assert isinstance(made.json, dict)
    web.call("POST", f"/exec/{made.json['Id']}/start", {"Detach": True}, fine={200})

    def id_of(*what: str) -> str:
        return daemon.docker(*what, "--format", "{{.Id}}", user=ada).stdout.strip()

    container, image = id_of("inspect", "secret-web"), id_of("inspect", "secret-image")
    network = id_of("network", "inspect", "secret-net")
    hex_of_image = image.removeprefix("sha256:")
    state = web.state
    yield Theirs(
        {
            "container": (container, container[:12], container[:5], "secret-web"),
            "exec": (str(made.json["Id"]),),
            "image": (
                image,
                hex_of_image,
                hex_of_image[:12],
                "secret-image:latest",
                "secret-image",
            ),
            "network": (network, network[:12], "secret-net"),
            "volume": ("secret-web-data",),
        },
        state,
    )
    assert web.state == state, "the container was disturbed"
    assert id_of("inspect", "secret-image") == image
    assert id_of("network", "inspect", "secret-net") == network
    seen = web.call("GET", f"/exec/{made.json['Id']}/json", fine={200}).json
    assert isinstance(seen, dict)
    assert seen["Running"]
    web.call("GET", "/volumes/secret-web-data", fine={200})


@pytest.mark.parametrize(("method", "path"), ASKING, ids=lambda value: value)
def test_another_persons_does_not_exist(
    daemon: Daemon, two_users: People, theirs: Theirs, method: str, path: str
) -> None:
    kind = kind_of(path)
    assert kind is not None
    body = BODIES.get(path, b"" if method != "POST" else {})

    def answer(reference: str) -> tuple[int, str]:
        before, _, rest = path.partition("{")
        target = f"/v1.41{before}{quote(reference)}{rest.partition('}')[2]}?{QUERIES.get(path, '')}"
        return told(ask(daemon, method, target, body, user=two_users.bob), reference)

    for reference in theirs.called[kind]:
        theirs_answer, nobodys = answer(reference), answer(absent(reference))
        assert theirs_answer == nobodys
        assert theirs_answer[0] >= 400 or path.endswith(("push", "publish"))


@pytest.mark.parametrize("way", REFERRING)
def test_nothing_stands_on_another_persons(
    daemon: Daemon, two_users: People, theirs: Theirs, way: str
) -> None:
    """Refused when it is made, or at the latest when it is started; and not otherwise than for what is nobody's."""
    kind, _ = REFERRING[way]("")

    def answers(reference: str) -> list[tuple[int, str]]:
        path, (_, body) = "/v1.41/containers", REFERRING[way](reference)
        made = ask(daemon, "POST", f"{path}/create?name=refers", body, user=two_users.bob)
        if made.status != 201:
            return [told(made, reference)]
        assert isinstance(made.json, dict)
        own = str(made.json["Id"])
        started = ask(daemon, "POST", f"{path}/{own}/start", user=two_users.bob)
        ask(daemon, "DELETE", f"{path}/{own}?force=1", user=two_users.bob)
        status, text = told(started, reference)
        return [(201, ""), (status, text.replace(own, "OWN"))]

    for reference in theirs.called[kind]:
        refused = answers(reference)
        assert refused == answers(absent(reference))
        assert refused[-1][0] >= 400


@pytest.mark.parametrize(
    ("path", "key"), [(path, key) for path, keys in FILTERS.items() for key in keys]
)
def test_filters_reach_nothing_of_anothers(
    daemon: Daemon, two_users: People, theirs: Theirs, path: str, key: str
) -> None:
    def answer(reference: str) -> tuple[int, str]:
        asked = quote(json.dumps({key: [reference]}))
        joined = (
            f"/v1.41{path.format(now=int(time.time()))}{'&' if '?' in path else '?'}filters={asked}"
        )
        return told(ask(daemon, "GET", joined, user=two_users.bob), reference)

    for reference in theirs.called[FILTERS[path][key]]:
        assert answer(reference) == answer(absent(reference))


@pytest.mark.parametrize("noun", ["containers", "images", "networks", "volumes"])
def test_a_prune_takes_ones_own(
    daemon: Daemon, two_users: People, theirs: Theirs, noun: str
) -> None:
    """Of ada's the unused go by her own prune alone."""
    ada, bob = two_users.ada, two_users.bob
    daemon.docker("create", "--name", f"unused-{noun}", "busybox", "true", user=ada)
    daemon.docker("volume", "create", f"unused-{noun}", user=ada)
    daemon.docker("network", "create", f"unused-{noun}", user=ada)
    before = everything(daemon, ada)
    for filters in ({}, {"all": ["1"]}, {"dangling": ["0"]}, {"label!": ["x"]}):
        asked = quote(json.dumps(filters))
        ask(daemon, "POST", f"/v1.41/{noun}/prune?filters={asked}", user=bob)
    assert everything(daemon, ada) == before
    daemon.docker("rm", f"unused-{noun}", user=ada)
    daemon.docker("volume", "rm", f"unused-{noun}", user=ada)
    daemon.docker("network", "rm", f"unused-{noun}", user=ada)
    daemon.import_busybox(user=bob)
    assert theirs.called


def everything(daemon: Daemon, person: User) -> list[str]:
    """The ids of all that a person has."""
    return [
        line
        for words in (
            ("ps", "-aq", "--no-trunc"),
            ("images", "-q", "--no-trunc"),
            ("network", "ls", "-q", "--no-trunc"),
            ("volume", "ls", "-q"),
        )
        for line in sorted(daemon.docker(*words, user=person).stdout.split())
    ]


@pytest.mark.parametrize(
    "path", ["/system/df", "/info", "/containers/json?all=1", "/events?since=0&until={now}"]
)
def test_what_tells_of_all_tells_of_ones_own(
    daemon: Daemon, two_users: People, theirs: Theirs, path: str
) -> None:
    asked = f"/v1.41{path.format(now=int(time.time()))}"
    text = ask(daemon, "GET", asked, user=two_users.bob).body.decode()
    assert "secret" not in text
    for reference in (one for called in theirs.called.values() for one in called if len(one) > 8):
        assert reference not in text


def test_another_persons_volume_by_name_is_ones_own_new_one(
    daemon: Daemon, two_users: People, theirs: Theirs
) -> None:
    """Last, for from here on bob has something that is called so."""
    (name,) = theirs.called["volume"]
    told = daemon.docker(
        "run", "--rm", "-v", f"{name}:/v", "busybox", "ls", "/v", user=two_users.bob
    )
    assert told.stdout == ""
    daemon.docker("volume", "rm", name, user=two_users.bob)

"""Every route, asked for another's things by id, prefix and name: the answer is the one for what does not exist.

The routes are the daemon's own table, so that none can be forgotten; what they are sent is put together here.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

import attrs
import pytest

from supervisor.api.routes import ROUTES
from tests.support.accounts import People, User
from tests.support.asking import Answer, ask
from tests.support.daemon import Daemon, busybox_tar
from tests.support.operations import BUSYBOX, Subject, run

pytestmark = [pytest.mark.root, pytest.mark.slow]

KINDS = {
    "/containers/{id}": "container",
    "/exec/{id}": "exec",
    "/images/{name*}": "image",
    "/bakehouse/v1/images/{name*}": "image",
    "/distribution/{name*}": "image",
    "/networks/{id}": "network",
    "/volumes/{name}": "volume",
}
"""What a placeholder stands for, by what is before and in it."""
NOBODYS = ("/plugins", "/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")
"""Answered alike to all, whatever follows."""

QUERIES = {
    "/containers/{id}/rename": "name=taken-over",
    "/containers/{id}/archive": "path=/etc",
    "/containers/{id}/resize": "h=10&w=10",
    "/exec/{id}/resize": "h=10&w=10",
    "/containers/{id}/logs": "stdout=1",
    "/containers/{id}/attach": "logs=1&stream=1&stdout=1",
    "/containers/{id}/stats": "stream=0",
    "/images/{name*}/tag": "repo=mine&tag=latest",
}
BODIES: Mapping[str, object] = {
    "/containers/{id}/exec": {"Cmd": ["true"], "AttachStdout": True},
    "/containers/{id}/update": {"Memory": 67_108_864},
    "/exec/{id}/start": {"Detach": True},
    "/networks/{id}/connect": {"Container": "own"},
    "/networks/{id}/disconnect": {"Container": "own"},
}


def kind_of(path: str) -> str | None:
    """What the placeholder of a route stands for; None where there is none, or it stands for nothing of anybody's."""
    if "{" not in path or path.startswith(NOBODYS):
        return None
    return KINDS[path[: path.index("}") + 1]]


ASKING = [(method, path) for method, path, _, _ in ROUTES if kind_of(path)]


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


def absent(reference: str) -> str:
    """What looks like it and is nobody's."""
    if reference.startswith("sha256:"):
        return "sha256:" + absent(reference.removeprefix("sha256:"))
    if set(reference) <= set("0123456789abcdef"):
        return secrets.token_hex(32)[: len(reference)]
    return reference.replace("secret", "absent")


def told(answer: Answer, reference: str) -> tuple[int, str]:
    """Status and text, without what was asked for."""
    text = answer.body.decode(errors="replace")
    for part in sorted({reference, reference.partition(":")[0], quote(reference)}, key=len)[::-1]:
        text = text.replace(part, "X")
    return answer.status, text


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


def create(**more: object) -> dict[str, object]:
    return {"Image": BUSYBOX, "Cmd": ["true"], **more}


def host(**more: object) -> dict[str, object]:
    return create(HostConfig=more)


REFERRING: Mapping[str, Callable[[str], tuple[str, dict[str, object]]]] = {
    "network": lambda ref: ("container", host(NetworkMode=f"container:{ref}")),
    "pid": lambda ref: ("container", host(PidMode=f"container:{ref}")),
    "ipc": lambda ref: ("container", host(IpcMode=f"container:{ref}")),
    "volumes": lambda ref: ("container", host(VolumesFrom=[ref])),
    "links": lambda ref: ("container", host(Links=[f"{ref}:db"])),
    "named network": lambda ref: ("network", host(NetworkMode=ref)),
    "endpoint": lambda ref: (
        "network",
        create(HostConfig={"NetworkMode": ref}, NetworkingConfig={"EndpointsConfig": {ref: {}}}),
    ),
    "image": lambda ref: ("image", create(Image=ref)),
}
"""Containers that are to stand on another's: for each what it refers to, and the body."""


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


FILTERS = {
    "/containers/json?all=1": {
        "id": "container",
        "name": "container",
        "before": "container",
        "since": "container",
        "ancestor": "image",
        "volume": "volume",
        "network": "network",
    },
    "/images/json": {"before": "image", "since": "image", "reference": "image"},
    "/volumes": {"name": "volume"},
    "/networks": {"id": "network", "name": "network"},
    "/events?since=0&until={now}": {
        "container": "container",
        "image": "image",
        "volume": "volume",
        "network": "network",
    },
}


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

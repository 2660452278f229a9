"""A hundred people on one host, each with containers, volumes, networks and builds.

What they list stays as quick as for one alone, and a search at random through every way of referring to a thing finds no
way from one to another. ``BAKEHOUSE_SEARCHES`` is how often it tries, ``BAKEHOUSE_SEED`` which tries they are.
"""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from typing import Any
from urllib.parse import quote

import attrs
import pytest

from tests.support.accounts import People
from tests.support.asking import Answer
from tests.support.crowd import Line, crowd
from tests.support.daemon import Daemon
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

COUNT = 100
RUNNING_EVERY = 10
SEARCHES = int(os.environ.get("BAKEHOUSE_SEARCHES", "120"))
SEED = int(os.environ.get("BAKEHOUSE_SEED", "0"))
IMAGE = "shared:1"
LISTINGS = (
    "/containers/json?all=1",
    "/containers/json?all=1&size=1",
    "/images/json",
    "/volumes",
    "/networks",
    "/system/df",
    "/events?since=0&until={now}",
)
SLOWER_MAX, SLACK_SECONDS = 3.0, 0.02
ASKED_TIMES = 15


@attrs.define
class Baker:
    """One of the crowd, and what their things can be called."""

    line: Line
    called: dict[str, tuple[str, ...]] = attrs.field(factory=dict)

    def ask(self, method: str, path: str, body: bytes | object = b"") -> Answer:
        """An answer, whatever it is."""
        return self.line.ask(method, f"/v1.41{path}", body)

    def make(self, method: str, path: str, body: bytes | object = b"") -> Any:  # noqa: ANN401
        """What a request that has to succeed answers."""
        answer = self.ask(method, path, body)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer.json if answer.body else None

    def everything(self) -> list[object]:
        """All they have and its state, as they see it."""
        containers = self.make("GET", "/containers/json?all=1")
        return [
            [(one["Id"], one["State"], one["Names"]) for one in containers],
            self.make("GET", "/images/json"),
            self.make("GET", "/volumes"),
            [one["Id"] for one in self.make("GET", "/networks")],
        ]


@attrs.frozen
class Crowd:
    """All of them; how long the first waited for each listing while they were alone."""

    bakers: tuple[Baker, ...]
    alone: Mapping[str, float]


@pytest.fixture(scope="module")
def many(daemon: Daemon, two_users: People) -> Iterator[Crowd]:
    daemon.import_busybox(IMAGE)
    daemon.bakehouse("image", "publish", IMAGE)
    with crowd(two_users.group, COUNT) as users, ExitStack() as lines:
        bakers = tuple(
            Baker(lines.enter_context(closing(Line(user, str(daemon.socket))))) for user in users
        )
        furnish(bakers[0], 0)
        alone = waits(bakers[0])
        for number, baker in enumerate(bakers[1:], 1):
            furnish(baker, number)
        before = [baker.everything() for baker in bakers]
        yield Crowd(bakers, alone)
        assert [baker.everything() for baker in bakers] == before, "somebody's things were touched"
        for baker in bakers:
            clear(baker)


def furnish(baker: Baker, number: int) -> None:
    """Give them a volume, a network, a build of their own, an exec, and a container that has all of it."""
    tag = f"secret-{number}"
    build = baker.ask("POST", f"/build?t={tag}", recipe(f"FROM {IMAGE}\nLABEL who={number}\n"))
    assert b"Successfully" in build.body, build.body
    image = baker.make("GET", f"/images/{tag}/json")["Id"]
    network = baker.make("POST", "/networks/create", {"Name": tag, "CheckDuplicate": True})["Id"]
    baker.make("POST", "/volumes/create", {"Name": tag})
    settings = {"Binds": [f"{tag}:/v"], "NetworkMode": tag}
    body = {"Image": tag, "Cmd": ["sleep", "1000"], "HostConfig": settings}
    container = baker.make("POST", f"/containers/create?name={tag}", body)["Id"]
    execs: tuple[str, ...] = ()
    if number % RUNNING_EVERY == 0:
        baker.make("POST", f"/containers/{tag}/start")
        execs = (baker.make("POST", f"/containers/{tag}/exec", {"Cmd": ["true"]})["Id"],)
    hex_of_image = image.removeprefix("sha256:")
    baker.called = {
        "container": (container, container[:16], tag),
        "exec": execs,
        "image": (image, hex_of_image, hex_of_image[:16], tag, f"{tag}:latest"),
        "network": (network, network[:16], tag),
        "volume": (tag,),
    }


def recipe(text: str) -> bytes:
    """A build context of one Dockerfile."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def clear(baker: Baker) -> None:
    """Take all of it away again."""
    for one in baker.make("GET", "/containers/json?all=1"):
        baker.make("DELETE", f"/containers/{one['Id']}?force=1&v=1")
    for noun in ("networks", "volumes", "images"):
        baker.make("DELETE", f"/{noun}/{baker.called['volume'][0]}")


def waits(baker: Baker) -> dict[str, float]:
    """The shortest of many waits for each listing: what it takes, whatever else the machine does."""
    found = {}
    for path in LISTINGS:
        asked = path.format(now=int(time.time()))
        taken = []
        for _ in range(ASKED_TIMES):
            begun = time.perf_counter()
            assert baker.ask("GET", asked).status == 200
            taken.append(time.perf_counter() - begun)
        found[path] = min(taken)
    return found


def test_what_one_lists_is_as_quick_beside_a_hundred(many: Crowd) -> None:
    for baker in (many.bakers[0], many.bakers[COUNT // 2]):
        for path, seconds in waits(baker).items():
            bound = SLOWER_MAX * many.alone[path] + SLACK_SECONDS
            assert seconds < bound, f"{path}: {seconds:.3f} s, alone {many.alone[path]:.3f} s"


def test_no_way_leads_from_one_to_another(many: Crowd) -> None:
    dice = random.Random(SEED)
    for number in range(SEARCHES):
        by, whose = dice.sample(many.bakers, 2)
        way = dice.choice((through_a_route, through_a_body, through_a_filter))
        way(dice, by, whose, f"try {number} of seed {SEED}")


def through_a_route(dice: random.Random, by: Baker, whose: Baker, which: str) -> None:
    """Any route, called with what is another's."""
    method, path = dice.choice(ASKING)
    kind = kind_of(path)
    assert kind is not None
    if not whose.called[kind]:
        return
    body = BODIES.get(path, b"" if method != "POST" else {})

    def answer(reference: str) -> tuple[int, str]:
        before, _, rest = path.partition("{")
        target = f"{before}{quote(reference)}{rest.partition('}')[2]}?{QUERIES.get(path, '')}"
        return told(by.ask(method, target, body), reference)

    alike(answer, dice.choice(whose.called[kind]), f"{which}: {method} {path}")


def through_a_body(dice: random.Random, by: Baker, whose: Baker, which: str) -> None:
    """A container that is to stand on what is another's."""
    way = dice.choice(sorted(REFERRING))
    kind, _ = REFERRING[way]("")

    def answer(reference: str) -> tuple[int, str]:
        _, body = REFERRING[way](reference)
        made = by.ask("POST", "/containers/create?name=refers", {**body, "Image": image_of(body)})
        if made.status != 201:
            return told(made, reference)
        assert isinstance(made.json, dict)
        own = str(made.json["Id"])
        status, text = told(by.ask("POST", f"/containers/{own}/start"), reference)
        assert by.ask("DELETE", f"/containers/{own}?force=1").status == 204
        assert status >= 400, f"{which}: it started on another's {kind}"
        return status, text.replace(own, "OWN")

    alike(answer, dice.choice(whose.called[kind]), f"{which}: {way}")


def image_of(body: Mapping[str, object]) -> object:
    """The image a body names; the shared one where it is about something else."""
    named = str(body["Image"])
    return IMAGE if named.startswith("busybox") else named


def through_a_filter(dice: random.Random, by: Baker, whose: Baker, which: str) -> None:
    """A listing, narrowed to what is another's."""
    path = dice.choice(sorted(FILTERS))
    key = dice.choice(sorted(FILTERS[path]))
    now = int(time.time())

    def answer(reference: str) -> tuple[int, str]:
        asked = quote(json.dumps({key: [reference]}))
        joined = f"{path.format(now=now)}{'&' if '?' in path else '?'}filters={asked}"
        return told(by.ask("GET", joined), reference)

    alike(answer, dice.choice(whose.called[FILTERS[path][key]]), f"{which}: {path} by {key}")


def alike(answer: Any, reference: str, which: str) -> None:  # noqa: ANN401
    """What is another's is answered as what is nobody's."""
    assert answer(reference) == answer(absent(reference)), which

"""The table of ``tests/interop/table``: what people type into the docker command, and what it answers.

Every case holds on dockerd as it does here: with ``BAKEHOUSE_TEST_ENGINE=unix:///PATH`` the same table is played against
the engine at that socket, as root. Against our daemon it is played as root and, where a user may do it, as a user.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import attrs
import docker
import pytest
from docker.errors import APIError

from tests.support.accounts import People, User
from tests.support.cases import Audience, Case, play, read
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

TABLE = Path(__file__).parent / "table"
OTHER_ENGINE = os.environ.get("BAKEHOUSE_TEST_ENGINE")
AT_ONCE = 4
PORTS = itertools.count(1820)
"""The ports of each case but for their last digit."""


@attrs.frozen
class Player:
    """Somebody at an engine."""

    engine: str
    user: User | None
    home: Path


def _rows() -> Iterator[tuple[str, Case]]:
    for file in sorted(TABLE.glob("*.txt")):
        for case in read(file.read_text()):
            yield "root", case
            if case.audience is Audience.EVERYBODY and not OTHER_ENGINE:
                yield "user", case


ROWS = list(_rows())


@pytest.fixture(scope="module")
def players(
    request: pytest.FixtureRequest, two_users: People, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Player]:
    """Who plays, each with the image busybox."""
    home = tmp_path_factory.mktemp("root")
    if OTHER_ENGINE:
        return {"root": Player(OTHER_ENGINE, None, home)}
    daemon: Daemon = request.getfixturevalue("daemon")
    daemon.import_busybox()
    daemon.import_busybox(user=two_users.ada)
    engine = f"unix://{daemon.socket}"
    return {
        "root": Player(engine, None, home),
        "user": Player(engine, two_users.ada, two_users.ada.home),
    }


@pytest.fixture(scope="module")
def played(
    request: pytest.FixtureRequest, players: dict[str, Player]
) -> Iterator[Callable[[str, Case], str]]:
    """Play all cases that were asked for, some at once, in order; wait for the end of one."""
    environment = dict(os.environ)  # taken once: pytest changes it between tests, while others play
    with ThreadPoolExecutor(AT_ONCE) as pool:
        wanted: list[tuple[str, Case]] = [
            (item.callspec.params["who"], item.callspec.params["case"])  # type: ignore[misc]  # as ROWS has them
            for item in request.session.items
            if isinstance(item, pytest.Function) and item.originalname == test_docker.__name__
        ]
        games = {
            (who, case.name): pool.submit(_play, players[who], case, environment)
            for who, case in wanted
        }
        yield lambda who, case: games[who, case.name].result()
        pool.shutdown(cancel_futures=True)


def _play(player: Player, case: Case, common: Mapping[str, str]) -> str:
    name = f"t{uuid.uuid4().hex[:6]}"
    directory = player.home / name
    directory.mkdir()
    if player.user:
        os.chown(directory, player.user.uid, player.user.gid)
    environment = {
        **common,
        "HOME": str(player.home),
        "DOCKER_HOST": player.engine,
        "DOCKER_BUILDKIT": "0",
        "S": player.engine.removeprefix("unix://"),
        "N": name,
        "P": str(next(PORTS)),
        "W": str(directory),
    }
    try:
        return play(case, player.user, environment, directory)
    finally:
        _clear(player.engine, name)
        shutil.rmtree(directory, ignore_errors=True)


def _clear(engine: str, name: str) -> None:
    """Remove what a case left: all that begins with its name."""
    with contextlib.closing(docker.APIClient(base_url=engine, version="1.41")) as client:
        client.trust_env = False
        for remove in _removals(client, name):
            with contextlib.suppress(APIError):
                remove()


def _removals(client: docker.APIClient, name: str) -> Iterator[Callable[[], object]]:
    """How to remove all whose name begins so: containers first, because they use the rest."""
    for container in client.containers(all=True):
        if container["Names"] and container["Names"][0].startswith(f"/{name}"):
            yield partial(client.remove_container, container["Id"], force=True, v=True)
    for network in client.networks(names=[name]):
        yield partial(client.remove_network, network["Id"])
    for volume in client.volumes({"name": name})["Volumes"] or []:
        yield partial(client.remove_volume, volume["Name"], force=True)
    tags = itertools.chain.from_iterable(image["RepoTags"] or [] for image in client.images())
    for tag in tags:
        if tag.startswith(name):
            yield partial(client.remove_image, tag, force=True)


@pytest.mark.parametrize(("who", "case"), ROWS, ids=[f"{who}-{case.name}" for who, case in ROWS])
def test_docker(who: str, case: Case, played: Callable[[str, Case], str]) -> None:
    differs = played(who, case)
    assert not differs, differs


def test_the_table_is_large_and_says_each_thing_once() -> None:
    names = [case.name for who, case in ROWS if who == "root"]
    assert len(names) == len(set(names))
    assert len(names) >= 80
    assert all(case.steps for _, case in ROWS)

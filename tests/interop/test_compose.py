"""Compose, unmodified, with ``examples/guestbook``: by v2 as a plugin of the docker command and by docker-compose 1.29.

As a user of ours; with ``BAKEHOUSE_TEST_ENGINE=unix:///PATH`` as root at the engine of that socket, which the base image
is then given.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.support.accounts import People, User, credentials
from tests.support.compose import Project, free_port, give_plugin, plugin, standalone
from tests.support.daemon import REPOSITORY, Daemon
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

OTHER_ENGINE = os.environ.get("BAKEHOUSE_TEST_ENGINE")
BASE = "debian:bookworm"
PACKAGES = ("python3-redis", "redis-server")
BASE_KEPT = REPOSITORY / "var" / "cache" / "guestbook-base.tar"


@attrs.frozen
class Host:
    """An engine with the base image, and who is at it."""

    engine: str
    user: User | None


@pytest.fixture(scope="module")
def host(request: pytest.FixtureRequest, two_users: People) -> Host:
    if not (plugin() or standalone()):
        pytest.skip("needs Compose: v2's plugin of the docker command, or docker-compose 1.29")
    if OTHER_ENGINE:
        made = Host(OTHER_ENGINE, None)
    else:
        daemon: Daemon = request.getfixturevalue("daemon")
        made = Host(f"unix://{daemon.socket}", two_users.ada)
        if not BASE_KEPT.exists():
            _keep_base(daemon)
    environment = {**os.environ, "DOCKER_HOST": made.engine}
    with BASE_KEPT.open("rb") as base:
        subprocess.run(
            ["docker", "load", "--quiet"],
            env=environment,
            stdin=base,
            check=True,
            capture_output=True,
            **credentials(made.user),
        )
    return made


def _keep_base(daemon: Daemon) -> None:
    """Make the base image from packages, once for this checkout: the longest part of it all."""
    if not shutil.which("mmdebstrap"):
        pytest.skip("needs mmdebstrap")
    include = [word for package in PACKAGES for word in ("--include", package)]
    done = subprocess.run(
        [REPOSITORY / ".venv/bin/bakehouse", "image", "bootstrap", BASE, *include],
        env=daemon.environment(),
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    BASE_KEPT.parent.mkdir(parents=True, exist_ok=True)
    making = BASE_KEPT.with_suffix(".making")
    daemon.docker("save", "--output", str(making), BASE)
    daemon.docker("rmi", BASE)
    making.rename(BASE_KEPT)


@pytest.fixture(params=["v2", "1.29"])
def guestbook(
    request: pytest.FixtureRequest, host: Host, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Project]:
    """The example in a directory of the user's, with a command that is Compose; nothing of it is left afterwards."""
    home = host.user.home if host.user else tmp_path_factory.mktemp("home")
    name = f"guestbook{uuid.uuid4().hex[:6]}"
    directory = home / name
    shutil.copytree(REPOSITORY / "examples" / "guestbook", directory)
    argv = _compose(request.param, directory)
    if host.user:
        for path in [directory, *directory.rglob("*")]:
            os.chown(path, host.user.uid, host.user.gid, follow_symlinks=False)
    project = Project(argv, host.engine, directory, name, host.user, {"PORT": str(free_port())})
    try:
        yield project
    finally:
        project("down", "--volumes", "--remove-orphans")


def _compose(version: str, directory: Path) -> list[str]:
    if version == "v2":
        if not plugin():
            pytest.skip("needs Compose v2 as a plugin of the docker command")
        give_plugin(directory)
        return ["docker", "compose"]
    found = standalone()
    if not found:
        pytest.skip("needs docker-compose 1.29")
    return [str(found)]


def test_a_project_is_made_and_grows(guestbook: Project) -> None:
    guestbook("up", "--build", "--detach")
    worker = guestbook.containers("worker")
    assert [len(guestbook.containers(one)) for one in ("web", "store", "worker")] == [1, 1, 1]
    assert "healthy" in guestbook("ps")
    _write(guestbook, "first words")
    until(lambda: "first words (2 words" in _page(guestbook))
    assert "read 'first words'" in guestbook("logs", "worker")
    assert guestbook("exec", "-T", "store", "redis-cli", "llen", "read").strip() == "1"
    assert guestbook("run", "--rm", "reader").split()[-1] == "1"

    guestbook("up", "--detach", "--scale", "worker=3")
    many = guestbook.containers("worker")
    assert len(many) == 3
    assert set(worker) < set(many)
    for number in range(9):
        _write(guestbook, f"note {number}")
    until(lambda: _entries(guestbook) == 10)


def test_a_project_is_changed_where_its_files_are(guestbook: Project) -> None:
    guestbook("up", "--build", "--detach")
    web, store = guestbook.containers("web"), guestbook.containers("store")
    _write(guestbook, "kept")
    guestbook("restart", "web", "store")
    until(lambda: _entries(guestbook) == 1)
    assert guestbook.containers("web") == web

    guestbook.settings["TITLE"] = "Second edition"
    guestbook("up", "--detach")
    until(lambda: "<h1>Second edition</h1>" in _page(guestbook))
    assert guestbook.containers("web") != web, "it was made anew"
    assert guestbook.containers("store") == store, "it was left alone"

    source = guestbook.directory / "web" / "web.py"
    source.write_text(source.read_text().replace("<h1>{title}", "<h1>{title}!"))
    guestbook("up", "--detach", "--build")
    until(lambda: "<h1>Second edition!</h1>" in _page(guestbook))
    assert guestbook.containers("store") == store
    assert _entries(guestbook) == 1


def test_a_project_ends_and_comes_back_until_its_volume_goes(guestbook: Project) -> None:
    guestbook("up", "--build", "--detach")
    _write(guestbook, "kept")
    until(lambda: _entries(guestbook) == 1)
    guestbook("stop")
    assert not _page(guestbook)
    guestbook("start")
    until(lambda: _entries(guestbook) == 1)
    guestbook("down")
    assert len(_left_of(guestbook)) == 1, "the volume"
    guestbook("up", "--detach")
    until(lambda: _entries(guestbook) == 1)
    guestbook("down", "--volumes")
    assert _left_of(guestbook) == []


def _url(guestbook: Project) -> str:
    return f"http://127.0.0.1:{guestbook.settings['PORT']}/"


def _page(guestbook: Project) -> str:
    try:
        with urllib.request.urlopen(_url(guestbook), timeout=5) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def _entries(guestbook: Project) -> int:
    return _page(guestbook).count("<li>")


def _write(guestbook: Project, text: str) -> None:
    until(lambda: bool(_page(guestbook)))
    data = urllib.parse.urlencode({"text": text}).encode()
    with urllib.request.urlopen(_url(guestbook), data, timeout=5) as answer:
        assert answer.status == 200


def _left_of(guestbook: Project) -> list[str]:
    """What the engine still has of a project."""
    label = f"label=com.docker.compose.project={guestbook.name}"
    found: list[str] = []
    for noun in (["ps", "--all"], ["network", "ls"], ["volume", "ls"]):
        shown = subprocess.run(
            ["docker", *noun, "--quiet", "--filter", label],
            env={**os.environ, "DOCKER_HOST": guestbook.engine},
            check=True,
            capture_output=True,
            text=True,
        )
        found += shown.stdout.split()
    return found

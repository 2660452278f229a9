"""Homes that root may not read: whatever is done there is done as the one whose home it is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.support.accounts import People, User
from tests.support.daemon import Daemon
from tests.support.squashed import squashed

pytestmark = [pytest.mark.root, pytest.mark.slow]

IMAGE = "shared:1"


@attrs.frozen
class Home:
    """A person's directory twice: as they see it, and what is behind."""

    user: User
    shown: Path
    behind: Path


@pytest.fixture(scope="module")
def home(daemon: Daemon, two_users: People) -> Iterator[Home]:
    daemon.import_busybox(IMAGE)
    daemon.bakehouse("image", "publish", IMAGE)
    ada = two_users.ada
    found = Home(ada, ada.home / "net", ada.home / "behind")
    for directory in (found.shown, found.behind, found.behind / "papers"):
        directory.mkdir(mode=0o700)
        os.chown(directory, ada.uid, ada.gid)
    (found.behind / "papers" / "text").write_text("of ada\n")
    os.chown(found.behind / "papers" / "text", ada.uid, ada.gid)
    with squashed(found.shown, found.behind, ada):
        with pytest.raises(PermissionError):
            os.listdir(found.shown / "papers")
        yield found


@pytest.mark.parametrize(
    "what", ["", "/papers", "/papers/text"], ids=["whole", "directory", "file"]
)
def test_its_owner_binds_it(daemon: Daemon, home: Home, what: str) -> None:
    inside = f"/net{what}"
    mount = f"{home.shown}{what}:{inside}"
    run = ("run", "--rm", "--network", "none", "-v", mount, IMAGE)
    assert daemon.docker(*run, "cat", "/net/papers/text", user=home.user).stdout == "of ada\n"


def test_what_is_written_there_is_its_owners(daemon: Daemon, home: Home) -> None:
    script = "echo new >/net/made && mkdir /net/deep && stat -c %u /net/made"
    mount = f"{home.shown}/papers:/net"
    run = ("run", "--rm", "--network", "none", "-v", mount, IMAGE, "sh", "-c", script)
    assert daemon.docker(*run, user=home.user).stdout == "0\n"
    made = home.behind / "papers" / "made"
    assert made.read_text() == "new\n"
    assert made.stat().st_uid == home.user.uid


def test_a_directory_is_made_there_as_its_owner(daemon: Daemon, home: Home) -> None:
    mount = f"{home.shown}/made/for/me:/net"
    run = ("run", "--rm", "--network", "none", "-v", mount, IMAGE, "touch", "/net/here")
    daemon.docker(*run, user=home.user)
    assert (home.behind / "made/for/me/here").stat().st_uid == home.user.uid


def test_copies_volumes_and_builds_reach_it(daemon: Daemon, home: Home) -> None:
    ada = home.user
    options = ("-o", "type=none", "-o", "o=bind", "-o", f"device={home.shown}/papers")
    daemon.docker("volume", "create", *options, "net", user=ada)
    read = ("run", "--name", "reader", "--network", "none", "-v", "net:/net", IMAGE)
    assert daemon.docker(*read, "cat", "/net/text", user=ada).stdout == "of ada\n"
    daemon.docker("cp", "reader:/net/text", f"{home.shown}/papers/copied", user=ada)
    assert (home.behind / "papers" / "copied").read_text() == "of ada\n"
    daemon.docker("rm", "reader", user=ada)
    daemon.docker("volume", "rm", "net", user=ada)
    recipe = home.behind / "papers" / "Dockerfile"
    recipe.write_text(f"FROM {IMAGE}\nCOPY text /text\nRUN cat /text\n")
    os.chown(recipe, ada.uid, ada.gid)
    build = ("build", "-q", str(home.shown / "papers"))
    image = daemon.docker(*build, user=ada).stdout.strip()
    shown = daemon.docker("run", "--rm", "--network", "none", image, "cat", "/text", user=ada)
    assert shown.stdout == "of ada\n"


def test_nobody_else_binds_it(daemon: Daemon, home: Home, two_users: People) -> None:
    home.user.home.chmod(0o755)
    home.behind.chmod(0o755)
    run = ("run", "--rm", "--network", "none", "-v", f"{home.shown}:/net", IMAGE, "true")
    for other in (two_users.bob, None):
        refused = daemon.docker(*run, user=other, check=False)
        assert refused.returncode == 125
        assert "Permission denied" in refused.stderr

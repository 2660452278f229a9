"""Everything that can be mounted into a container, as root and as a user, and what is shown of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.accounts import People, User
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    for user in (None, two_users.ada):
        daemon.import_busybox(user=user)
    daemon.import_busybox(user=two_users.bob)
    return daemon


@pytest.fixture(params=["root", "ada"])
def who(request: pytest.FixtureRequest, two_users: People) -> User | None:
    """Who asks: the administrator, and a user."""
    return two_users.ada if request.param == "ada" else None


@pytest.fixture
def place(who: User | None, tmp_path: Path) -> Path:
    """A directory of the host, and some things in it, that the one who asks may write to."""
    found = (who.home if who else tmp_path) / "place"
    for directory in (found, found / "sub", found / "b"):
        directory.mkdir(exist_ok=True)
    for file in ("f", "file"):
        (found / file).write_text("host\n")
    if who:
        subprocess.run(["chown", "-R", f"{who.uid}:{who.gid}", str(found)], check=True)
    return found


def sh(daemon: Daemon, user: User | None, *options: str, script: str) -> str:
    return daemon.docker("run", "--rm", *options, "busybox", "sh", "-c", script, user=user).stdout


def refused(daemon: Daemon, user: User | None, *options: str) -> str:
    ran = daemon.docker("run", "--rm", *options, "busybox", "true", user=user, check=False)
    assert ran.returncode in {125, 126}, ran
    return ran.stderr


@contextmanager
def created(daemon: Daemon, user: User | None, *options: str) -> Iterator[dict[str, Any]]:
    """A container that is not started, as ``docker inspect`` shows it."""
    made = daemon.docker("create", *options, "busybox", "sleep", "600", user=user).stdout.strip()
    try:
        yield json.loads(daemon.docker("inspect", made, user=user).stdout)[0]
    finally:
        daemon.docker("rm", "-f", "-v", made, user=user)


def test_volumes_in_every_way(ready: Daemon, who: User | None, two_users: People) -> None:
    """Labels, a part of one, not filled, read-only; and another's of the same name is another's."""
    mount = "type=volume,src=store,dst=/v"
    sh(ready, who, "--mount", f"{mount},volume-label=kind=bread,volume-nocopy",
       script="mkdir -p /v/sub/deep; echo whole >/v/f; echo part >/v/sub/f; ln -s / /v/out")  # fmt: skip
    try:
        labels = ready.docker("volume", "inspect", "-f", "{{.Labels.kind}}", "store", user=who)
        assert labels.stdout.strip() == "bread"
        part = sh(ready, who, "--mount", f"{mount},volume-subpath=sub",
                  script="cat /v/f; echo new >/v/new; ls /v")  # fmt: skip
        assert part.split() == ["part", "deep", "f", "new"]
        file = sh(ready, who, "--mount", f"{mount},volume-subpath=sub/f,readonly",
                  script="cat /v; echo x >>/v || echo refused")  # fmt: skip
        assert file.split() == ["part", "refused"]
        for subpath, words in (("out", "leads out"), ("missing", "not there"), ("out/etc", "out")):
            assert words in refused(ready, who, "--mount", f"{mount},volume-subpath={subpath}")
        copied = ("-v", "filled:/etc", "-v", "bare:/home:nocopy,ro")
        assert "passwd" in sh(ready, who, *copied, script="ls /etc; touch /home/x 2>&1 || true")
        bob = sh(ready, two_users.bob, "-v", "store:/v", script="ls /v")
        assert bob == ""
    finally:
        ready.docker("volume", "rm", "-f", "store", "filled", "bare", user=who)
        ready.docker("volume", "rm", "-f", "store", user=two_users.bob)


def test_binds_tmpfs_and_what_lies_in_what(ready: Daemon, who: User | None, place: Path) -> None:
    """Nested in any order of words, over a file, below a link of the image; tmpfs with its options."""
    options = (
        "-v", f"{place}/sub:/a/b/c", "-v", f"{place}:/a:ro", "--tmpfs", "/a/b:size=1m,mode=700,uid=33",
        "-v", f"{place}/f:/etc/group:ro",
        "--mount", f"type=bind,src={place},dst=/way/x,bind-propagation=rprivate",
        "--mount", "type=tmpfs,dst=/t,tmpfs-size=2m,tmpfs-mode=0750",
    )  # fmt: skip
    script = """
        cat /a/f /etc/group; touch /a/x 2>/dev/null || echo ro
        touch /a/b/y /a/b/c/made && stat -c '%a %u' /a/b
        stat -c %a /t; df -k /t | tail -1 | awk '{print $2}'; cat /way/x/f
    """
    seen = sh(ready, who, *options, script=script)
    assert seen.splitlines() == ["host", "host", "ro", "700 33", "750", "2048", "host"]
    assert (place / "sub" / "made").stat().st_uid == (who.uid if who else 0)


def test_a_directory_over_a_file_is_the_requests_fault(
    ready: Daemon, who: User | None, place: Path
) -> None:
    assert "annot start" in refused(ready, who, "-v", f"{place}:/etc/passwd")
    assert "annot start" in refused(ready, who, "-v", f"{place}/file:/tmp")


def test_what_is_said_is_shown(ready: Daemon, who: User | None, place: Path) -> None:
    options = (
        "-v", f"{place}:/a:ro", "-v", "named:/n:nocopy", "-v", "/anonymous",
        "--tmpfs", "/t:size=1m,noexec",
        "--mount", f"type=bind,src={place},dst=/b,readonly,bind-propagation=rprivate",
        "--mount", "type=volume,src=other,dst=/o,volume-label=a=b",
        "--mount", "type=tmpfs,dst=/u,tmpfs-size=4096",
    )  # fmt: skip
    with created(ready, who, *options) as shown:
        host = shown["HostConfig"]
        # The docker command keeps what -v says in a map, and so in no order.
        assert sorted(host["Binds"]) == [f"{place}:/a:ro", "named:/n:nocopy"]
        assert host["Tmpfs"] == {"/t": "size=1m,noexec"}
        assert [(one["Type"], one["Target"]) for one in host["Mounts"]] == [
            ("bind", "/b"), ("volume", "/o"), ("tmpfs", "/u"),
        ]  # fmt: skip
        assert host["Mounts"][0]["BindOptions"]["Propagation"] == "rprivate"
        assert host["Mounts"][1]["VolumeOptions"]["Labels"] == {"a": "b"}
        assert host["Mounts"][2]["TmpfsOptions"]["SizeBytes"] == 4_096
        by_target = {one["Destination"]: one for one in shown["Mounts"]}
        assert (by_target["/a"]["Mode"], by_target["/a"]["RW"]) == ("ro", False)
        assert (by_target["/n"]["Mode"], by_target["/n"]["Name"]) == ("nocopy", "named")
        assert (by_target["/o"]["Mode"], by_target["/o"]["Driver"]) == ("z", "local")
        assert len(by_target["/anonymous"]["Name"]) == 64
    ready.docker("volume", "rm", "named", "other", user=who)


def test_volumes_from(ready: Daemon, who: User | None, place: Path) -> None:
    """Binds and volumes, read-only where asked, the last word winning; held as long as anybody has them."""
    with created(ready, who, "--name", "source", "-v", "/anonymous", "-v", "named:/n",
                 "-v", f"{place}:/b") as shown:  # fmt: skip
        anonymous = next(
            one["Name"] for one in shown["Mounts"] if one["Destination"] == "/anonymous"
        )
        assert sh(ready, who, "--volumes-from", "source",
                  script="cat /b/f; echo kept >/n/f; echo kept >/anonymous/f") == "host\n"  # fmt: skip
        ro = ("--volumes-from", "source:ro", "--tmpfs", "/b")
        assert sh(ready, who, *ro, script="cat /n/f /anonymous/f; touch /n/x 2>&1 | wc -l; ls /b") == (
            "kept\nkept\n1\n"
        )  # fmt: skip
        ready.docker("run", "-d", "--name", "heir", "--volumes-from", "source:z", "busybox",
                     "sleep", "600", user=who)  # fmt: skip
        ready.docker("rm", "-v", "source", user=who)
        assert ready.docker("exec", "heir", "cat", "/anonymous/f", user=who).stdout == "kept\n"
        ready.docker("rm", "-f", "-v", "heir", user=who)
        left = ready.docker("volume", "ls", "-q", user=who).stdout.split()
        assert anonymous not in left
        ready.docker("volume", "rm", "named", user=who)
        ready.docker("create", "--name", "source", "busybox", user=who, check=False)


def test_an_administrator_sees_what_is_mounted_below(ready: Daemon, tmp_path: Path) -> None:
    """Docker's binds are recursive, and read-only as a whole; what comes later follows where it was asked for."""
    for name in ("outer", "outer/below", "outer/later"):
        (tmp_path / name).mkdir()
    outer, below, later = (tmp_path / name for name in ("outer", "outer/below", "outer/later"))
    subprocess.run(["mount", "-t", "tmpfs", "none", str(outer)], check=True)
    try:
        subprocess.run(["mount", "--make-shared", str(outer)], check=True)
        for directory in (below, later):
            directory.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "none", str(below)], check=True)
        (below / "f").write_text("below\n")
        script = "cat /x/below/f 2>/dev/null; touch /x/below/new 2>/dev/null && echo written"
        say = ("--mount", f"type=bind,src={outer},dst=/x")
        assert sh(ready, None, *say, script=f"{script}; true") == "below\nwritten\n"
        assert sh(ready, None, f"{say[0]}", f"{say[1]},readonly", script=f"{script}; true") == (
            "below\n"
        )
        flat = (say[0], f"{say[1]},bind-nonrecursive")
        assert sh(ready, None, *flat, script="ls /x/below") == ""
        name = "follower"
        ready.docker("run", "-d", "--name", name, "-v", f"{outer}:/x:rslave", "busybox", "sleep",
                     "600")  # fmt: skip
        subprocess.run(["mount", "-t", "tmpfs", "none", str(later)], check=True)
        (later / "f").write_text("later\n")
        assert ready.docker("exec", name, "cat", "/x/later/f").stdout == "later\n"
        ready.docker("rm", "-f", name)
        assert (below / "f").read_text() == "below\n", "nothing of the host was taken down"
    finally:
        subprocess.run(["umount", "-R", str(outer)], check=True)

"""``docker cp`` both ways, with the real command: Docker's rules for files, directories, links and ownership."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import shutil
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.accounts import People, User
from tests.support.archives import tar_of
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module", params=["admin", "user"])
def person(request: pytest.FixtureRequest, daemon: Daemon, two_users: People) -> User | None:
    """Who copies; the same holds for both."""
    user = two_users.ada if request.param == "user" else None
    daemon.import_busybox(user=user)
    return user


@pytest.fixture
def home(person: User | None, tmp_path: Path) -> Iterator[Path]:
    """A directory of theirs on the host, with a file, a directory and a link in it."""
    root = person.home if person else tmp_path
    here = root / "here"
    (here / "dir" / "sub").mkdir(parents=True)
    (here / "file").write_text("file\n")
    (here / "dir" / "a").write_text("a\n")
    (here / "dir" / "sub" / "b").write_text("b\n")
    (here / "link").symlink_to("file")
    for path in (here, *here.rglob("*")):
        os.chown(
            path, person.uid if person else 0, person.gid if person else 0, follow_symlinks=False
        )
    yield here
    shutil.rmtree(here)


@pytest.fixture
def box(daemon: Daemon, person: User | None) -> Iterator[Callable[..., str]]:
    """A running container named ``box``, with a file, a directory and links below /w; runs a shell line in it."""
    script = (
        "mkdir -p /w/dir/sub /w/empty; echo old > /w/file; echo A > /w/dir/A; echo B > /w/dir/sub/B;"
        " ln -s /w/dir /w/linkdir; ln -s file /w/linkfile; ln -s /nowhere/else /w/dangling; exec sleep 600"
    )
    daemon.docker("run", "-d", "--name", "box", "busybox", "sh", "-c", script, user=person)
    daemon.docker("exec", "box", "sh", "-c", "until [ -L /w/dangling ]; do :; done", user=person)

    def run(line: str) -> str:
        return daemon.docker("exec", "box", "sh", "-c", line, user=person).stdout

    yield run
    daemon.docker("rm", "-fv", "box", user=person)


IN = (
    # source, target, what is then where (None: refused), part of the refusal
    ("file", "/w/new", {"/w/new": "file\n"}, ""),
    ("file", "/w/new/", None, "no such directory"),
    ("file", "/nowhere/new", None, "Could not find the file /nowhere in container box"),
    ("file", "/w/file", {"/w/file": "file\n"}, ""),
    ("file", "/w/file/", None, ""),
    ("file", "/w/dir", {"/w/dir/file": "file\n"}, ""),
    ("file", "/w/linkdir", {"/w/dir/file": "file\n"}, ""),
    ("file", "/w/linkfile", {"/w/file": "file\n"}, ""),
    ("link", "/w/new2", {"/w/new2": None}, ""),
    ("dir", "/w/newdir", {"/w/newdir/a": "a\n", "/w/newdir/sub/b": "b\n"}, ""),
    ("dir", "/w/file", None, "cannot copy directory"),
    ("dir", "/w/empty", {"/w/empty/dir/a": "a\n"}, ""),
    ("dir/.", "/w/empty", {"/w/empty/a": "a\n", "/w/empty/sub/b": "b\n"}, ""),
    ("dir", "/w", {"/w/dir/a": "a\n", "/w/dir/A": "A\n"}, ""),
)


def test_copying_in(
    daemon: Daemon, person: User | None, home: Path, box: Callable[..., str]
) -> None:
    for source, target, wanted, why in IN:
        done = daemon.docker("cp", f"{home}/{source}", f"box:{target}", user=person, check=False)
        assert (done.returncode == 0) == (wanted is not None), (source, target, done.stderr)
        assert why in done.stderr, (source, target)
        for path, content in (wanted or {}).items():
            if content is None:
                assert box(f"readlink {path}") == "file\n"
            else:
                assert box(f"cat {path}") == content, (source, target)
    assert box("stat -c %u:%g /w/new /w/newdir").split() == ["0:0", "0:0"]
    assert box("ls /w/dir").split() == ["A", "a", "file", "sub"]


OUT = (
    ("/w/file", "new", {"new": "old\n"}, ""),
    ("/w/file", "new/", None, ""),
    ("/w/file", "nowhere/new", None, ""),
    ("/nowhere/file", "new", None, "Could not find the file /nowhere/file in container box"),
    ("/w/file", "file", {"file": "old\n"}, ""),
    ("/w/file", "dir", {"dir/file": "old\n"}, ""),
    ("/w/dir", "newdir", {"newdir/A": "A\n", "newdir/sub/B": "B\n"}, ""),
    ("/w/dir", "file", None, "cannot copy directory"),
    ("/w/dir/.", "dir", {"dir/A": "A\n", "dir/sub/B": "B\n", "dir/a": "a\n"}, ""),
    ("/w/linkdir/", "afar", {"afar/A": "A\n"}, ""),
    ("/w/linkdir/.", "near", {"near/A": "A\n"}, ""),
    ("w/dir/../file", "relative", {"relative": "old\n"}, ""),
    ("../../w/file", "climbing", {"climbing": "old\n"}, ""),
)


def test_copying_out(
    daemon: Daemon, person: User | None, home: Path, box: Callable[..., str]
) -> None:
    for source, target, wanted, why in OUT:
        done = daemon.docker("cp", f"box:{source}", f"{home}/{target}", user=person, check=False)
        assert (done.returncode == 0) == (wanted is not None), (source, target, done.stderr)
        assert why in done.stderr, (source, target)
        for path, content in (wanted or {}).items():
            assert (home / path).read_text() == content, (source, target)
    owner = person.uid if person else 0
    assert {path.lstat().st_uid for path in home.rglob("*")} == {owner}
    daemon.docker("cp", "box:/w/linkfile", f"{home}/asis", user=person)
    assert (home / "asis").readlink() == Path("file")
    daemon.docker("cp", "-L", "box:/w/linkfile", f"{home}/followed", user=person)
    assert (home / "followed").read_text() == "old\n"
    assert box("true") == ""


def test_archives_on_standard_streams(
    daemon: Daemon, person: User | None, box: Callable[..., str]
) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, mode, uid in (("plain", 0o640, 33), ("tool", 0o4755, 0), ("far", 0o600, 70_000)):
            entry = tarfile.TarInfo(name)
            entry.mode, entry.uid, entry.gid, entry.size = mode, uid, uid, 1
            tar.addfile(entry, io.BytesIO(b"x"))
        hard = tarfile.TarInfo("hard")
        hard.type, hard.linkname = tarfile.LNKTYPE, "plain"
        tar.addfile(hard)
        pipe = tarfile.TarInfo("pipe")
        pipe.type = tarfile.FIFOTYPE
        tar.addfile(pipe)
    daemon.docker("cp", "-", "box:/w/empty", user=person, input_=archive.getvalue())
    far = 0 if person else 70_000  # no id of a user's containers; it becomes their root's
    assert box("cd /w/empty; stat -c '%n %a %u %h' plain tool far hard").splitlines() == [
        "plain 640 33 2",
        "tool 4755 0 1",
        f"far 600 {far} 1",
        "hard 640 33 2",
    ]
    assert box("[ -p /w/empty/pipe ] && echo yes") == "yes\n"
    line = "docker cp box:/w/empty - | tar --list --verbose --numeric-owner"
    told = daemon.run(["sh", "-c", line], person).stdout.splitlines()
    assert sorted(" ".join(one.split()[:2]) for one in told) == [
        "-rw------- 0/0" if person else "-rw------- 70000/70000",
        "-rw-r----- 33/33",
        "-rwsr-xr-x 0/0",
        "drwxr-xr-x 0/0",
        "hrw-r----- 33/33",
        "prw-r--r-- 0/0",
    ]


def test_a_stopped_container_with_volumes_and_host_paths(
    daemon: Daemon, person: User | None, home: Path
) -> None:
    """Never started, and again after its end: what is copied lands where the container will see it."""
    mounts = ("-v", "kept:/data", "-v", f"{home}/dir:/host", "-v", f"{home}:/look:ro")
    daemon.docker("create", "--name", "still", *mounts, "busybox", "cat", "/data/file", user=person)
    for target in ("/data", "/host", "/tmp"):
        daemon.docker("cp", f"{home}/file", f"still:{target}", user=person)
    written = (home / "dir" / "file").stat()
    assert written.st_uid == (person.uid if person else 0)
    refused = daemon.docker("cp", f"{home}/file", "still:/look", user=person, check=False)
    assert "mounted volume is marked read-only" in refused.stderr
    assert daemon.docker("start", "-a", "still", user=person).stdout == "file\n"
    daemon.docker("cp", "still:/data/file", f"{home}/back", user=person)
    assert (home / "back").read_text() == "file\n"
    daemon.docker("cp", "still:/look/link", f"{home}/linked", user=person)
    daemon.docker("rm", "-v", "still", user=person)
    daemon.docker("volume", "rm", "kept", user=person)


def test_a_read_only_root(daemon: Daemon, person: User | None, home: Path) -> None:
    options = ("--read-only", "-v", "/data", "--name", "firm")
    daemon.docker("create", *options, "busybox", "true", user=person)
    refused = daemon.docker("cp", f"{home}/file", "firm:/tmp", user=person, check=False)
    assert "container rootfs is marked read-only" in refused.stderr
    daemon.docker("cp", f"{home}/file", "firm:/data", user=person)
    daemon.docker("cp", "firm:/etc/passwd", f"{home}/passwd", user=person)
    daemon.docker("rm", "-v", "firm", user=person)


def test_with_the_archive_flag_files_belong_to_the_container_user(
    daemon: Daemon, person: User | None, home: Path
) -> None:
    daemon.docker("run", "-d", "--name", "www", "-u", "www", "busybox", "sleep", "600", user=person)
    daemon.docker("cp", "-a", f"{home}/dir", "www:/tmp/", user=person)
    seen = daemon.docker(
        "exec", "www", "stat", "-c", "%u:%g", "/tmp/dir", "/tmp/dir/a", user=person
    )
    assert seen.stdout.split() == ["33:33", "33:33"]
    daemon.docker("rm", "-f", "www", user=person)


def test_what_programs_are_told(
    daemon: Daemon, box: Callable[..., str], person: User | None
) -> None:
    if person is not None:
        pytest.skip("the same for all; asked as root")
    box("mkfifo /w/pipe; chmod 1777 /w/empty; chmod 4711 /w/file")
    with contextlib.closing(daemon.client()) as client:
        api = client.api
        url = api._url("/containers/{0}/archive", "box")

        def told(path: str) -> dict[str, object]:
            answer = api.head(url, params={"path": path})
            answer.raise_for_status()
            found = json.loads(base64.b64decode(answer.headers["X-Docker-Container-Path-Stat"]))
            assert isinstance(found, dict)
            return found

        assert told("/w/file")["mode"] == 0o711 | 1 << 23
        assert told("/w/empty")["mode"] == 0o777 | 1 << 31 | 1 << 20
        assert told("/w/pipe")["mode"] == 0o644 | 1 << 25
        assert told("/w/linkfile")["mode"] == 0o777 | 1 << 27
        assert told("/w/linkfile")["linkTarget"] == "/w/file"
        assert told("/w/dangling")["linkTarget"] == "/nowhere/else"
        assert (told("/w/linkdir")["name"], told("/w/linkdir/.")["name"]) == ("linkdir", ".")
        assert (told("/")["name"], told("/w/dir/")["linkTarget"]) == ("/", "")

        def put(path: str, content: bytes, **more: str) -> tuple[int, str]:
            answer = api.put(url, params={"path": path, **more}, data=content)
            return answer.status_code, answer.text

        assert put("/w/file", tar_of({"x": b""}))[0] == 400
        assert put("/nowhere", tar_of({"x": b""}))[0] == 404
        assert put("", tar_of({"x": b""}))[0] == 400
        assert put("/w", b"no archive at all" * 100)[0] == 400
        assert put("/w", tar_of({"../x": b""}))[0] == 400
        status, why = put("/w", tar_of({"file/": None}), noOverwriteDirNonDir="1")
        assert status == 400
        wanted = 'cannot overwrite non-directory "/w/file" with directory "/w"'
        assert wanted in json.loads(why)["message"]
        assert put("/w", tar_of({"dir": b"flat"}))[0] == 200
    assert box("cat /w/dir") == "flat"


def test_events_tell_of_copies(daemon: Daemon, person: User | None, home: Path) -> None:
    daemon.docker("create", "--name", "told", "busybox", "true", user=person)
    daemon.docker("cp", f"{home}/file", "told:/tmp", user=person)
    daemon.docker("cp", "told:/tmp/file", f"{home}/again", user=person)
    daemon.docker("export", "-o", f"{home}/whole.tar", "told", user=person)
    daemon.docker("rm", "told", user=person)
    until = str(int(time.time()) + 1)
    options = ("--since", "10m", "--until", until, "--filter", "container=told")
    seen = daemon.docker("events", *options, "--format", "{{.Action}}", user=person)
    assert seen.stdout.split() == ["create", "extract-to-dir", "archive-path", "export", "destroy"]
    with tarfile.open(home / "whole.tar") as tar:
        names = tar.getnames()
    assert {"bin/sh", "tmp/file", "etc/passwd", ".dockerenv"} <= set(names)

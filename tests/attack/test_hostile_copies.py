"""Copies out of and into containers whose inhabitants work against them (attacks.md 13).

A container's root may swap any name in it at any moment, and put any program anywhere; the daemon, which is root, copies
there. Nothing but the container's own files may be read or written, as nobody but the container's own root.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import shutil
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.support.accounts import People, User
from tests.support.archives import tar_of
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

SECRET, DECOY = b"the host's own", b"the container's"
TRIES = 40
SWAP = """
mkdir -p /w/real{path} /w/{path} {path}; cp /decoy /w/real{path}/file; cp /decoy {path}/file; touch /w/ready
while :; do
  ln -sfn / /w/swap; ln -sfn ../../../../../../../.. /w/swap; ln -sfn /proc/1/root /w/swap
  rm -f /w/swap; mv /w/real /w/swap; mv /w/swap /w/real
done
"""


@pytest.fixture
def sentinel() -> Iterator[Path]:
    """A directory of the host with a file in it that only root may read."""
    place = Path("/var/tmp") / f"bh-sentinel-{uuid.uuid4().hex[:8]}"
    place.mkdir(mode=0o700)
    (place / "file").write_bytes(SECRET)
    yield place
    shutil.rmtree(place)


def client_of(daemon: Daemon) -> docker.DockerClient:
    return daemon.client()


@pytest.mark.parametrize("who", ["admin", "user"])
def test_names_swapped_while_they_are_looked_up(
    daemon: Daemon, two_users: People, sentinel: Path, who: str
) -> None:
    user = two_users.ada if who == "user" else None
    daemon.import_busybox(user=user)
    script = SWAP.format(path=sentinel)
    daemon.docker("create", "--name", "swap", "busybox", "sh", "-c", script, user=user)
    daemon.docker("cp", "-", "swap:/", user=user, input_=tar_of({"decoy": DECOY}))
    daemon.docker("start", "swap", user=user)
    daemon.docker("exec", "swap", "sh", "-c", "until [ -e /w/ready ]; do :; done", user=user)
    found = set()
    with contextlib.closing(client_of(daemon)) as client:
        container = client.containers.get("swap")
        for number in range(TRIES):
            with contextlib.suppress(docker.errors.APIError):
                pieces, _ = container.get_archive(f"/w/swap{sentinel}/file")
                found |= set(contents(b"".join(pieces)))
            with contextlib.suppress(docker.errors.APIError):
                container.put_archive(
                    f"/w/swap{sentinel}", tar_of({f"new{number}": b"x", "file": b"overwritten"})
                )
    assert found <= {DECOY, b"overwritten"}
    assert found, "the race was never run"
    assert sorted(path.name for path in sentinel.iterdir()) == ["file"]
    assert (sentinel / "file").read_bytes() == SECRET
    daemon.docker("rm", "-f", "swap", user=user)


def contents(archive: bytes) -> Iterator[bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            file = tar.extractfile(member) if member.isfile() else None
            if file is not None:
                yield file.read()


def test_an_archive_that_climbs_or_goes_through_its_own_links(
    daemon: Daemon, two_users: People, sentinel: Path
) -> None:
    """Links in it lead where they would in the container; names that climb are refused."""
    ada = two_users.ada
    daemon.import_busybox(user=ada)
    daemon.docker("create", "--name", "linked", "busybox", "true", user=ada)
    climbing = tar_of({"../../../../etc/evil": b"x"})
    refused = daemon.docker("cp", "-", "linked:/tmp", user=ada, check=False, input_=climbing)
    assert "leads out of the archive" in refused.stderr
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, target in (("root", "/"), ("up", "../../../../..")):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            tar.addfile(link)
        for name in (f"root{sentinel}/file", f"up{sentinel}/up"):
            tar.addfile(tarfile.TarInfo(name))
        hard = tarfile.TarInfo("stolen")
        hard.type, hard.linkname = tarfile.LNKTYPE, f"root{sentinel}/file"
        tar.addfile(hard)
    daemon.docker("cp", "-", "linked:/tmp", user=ada, input_=data.getvalue())
    assert sorted(path.name for path in sentinel.iterdir()) == ["file"]
    assert (sentinel / "file").read_bytes() == SECRET
    told = daemon.run(["sh", "-c", f"docker cp linked:{sentinel} - | tar --list"], ada).stdout
    assert sorted(told.split()) == [
        f"{sentinel.name}/",
        f"{sentinel.name}/file",
        f"{sentinel.name}/up",
    ]
    daemon.docker("rm", "linked", user=ada)


def test_names_and_times_that_no_text_or_clock_has(daemon: Daemon, two_users: People) -> None:
    """What is no Unicode, or lies beyond the year 9999, is told somehow, and takes nobody down."""
    ada = two_users.ada
    daemon.import_busybox(user=ada)
    place = Path("/dev/shm") / f"bh-{uuid.uuid4().hex[:8]}"  # tmpfs keeps any time
    place.mkdir()
    given(place, ada)
    (place / "late").touch()
    given(place / "late", ada)
    os.utime(place / "late", (2**40, 2**40))
    script = (
        r"mkdir /w; cd /w; touch $(printf 'n\377'); ln -s $(printf '/\376\377') bad;"
        " touch old; touch /w/ready; exec sleep 600"
    )
    options = ("-v", f"{place}:/s", "--name", "odd")
    try:
        daemon.docker("run", "-d", *options, "busybox", "sh", "-c", script, user=ada)
        daemon.docker("exec", "odd", "sh", "-c", "until [ -e /w/ready ]; do :; done", user=ada)
        with contextlib.closing(client_of(daemon)) as client:
            container = client.containers.get("odd")
            for path in ("/w/bad", "/w/old", "/s/late", "/w", "/s", "/w/."):
                pieces, told = container.get_archive(path)
                assert told["name"] == path.rpartition("/")[2]
                assert b"".join(pieces)
            assert len(container.diff()) > 2
            url = client.api._url("/containers/{0}/archive", "odd")
            params = {"path": "/w", "noOverwriteDirNonDir": "1"}
            refused = client.api.put(url, params=params, data=odd_archive())
            assert refused.status_code == 400
            assert "cannot overwrite non-directory" in refused.json()["message"]
            assert client.api.put(url, params={"path": "/w"}, data=odd_archive()).status_code < 600
        daemon.docker("rm", "-f", "odd", user=ada)
        assert not daemon.crashed(within_seconds=0.5)
    finally:
        shutil.rmtree(place)


def odd_archive() -> bytes:
    """A directory in the place of a file, with a name that is no text, of a time that no clock has, and much to say."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo(os.fsdecode(b"n\xff"))
        entry.type, entry.mtime = tarfile.DIRTYPE, 2**45
        entry.pax_headers = {"SCHILY.xattr.user.long": "x" * 70_000}
        tar.addfile(entry)
    return data.getvalue()


def test_no_program_of_the_container_is_run(daemon: Daemon, two_users: People) -> None:
    """Decompressors, tar and the libraries they would load are the container's to replace (2026-41567, 2019-14271)."""
    ada = two_users.ada
    daemon.import_busybox(user=ada)
    script = (
        "for name in gzip gunzip unpigz xz bzip2 zstd tar; do"
        " for at in /bin /usr/bin; do mkdir -p $at; rm -f $at/$name;"
        " printf '#!/bin/sh\\ntouch /ran\\n' > $at/$name; chmod 755 $at/$name; done; done;"
        " mkdir -p /lib /lib64; touch /ready; exec sleep 600"
    )
    daemon.docker("run", "-d", "--name", "traps", "busybox", "sh", "-c", script, user=ada)
    daemon.docker("exec", "traps", "sh", "-c", "until [ -e /ready ]; do :; done", user=ada)
    packed = gzip.compress(tar_of({"file": b"x"}))
    daemon.docker("cp", "-", "traps:/tmp", user=ada, input_=packed)
    daemon.run(
        ["sh", "-c", "docker cp traps:/tmp - > /dev/null; docker export traps > /dev/null"], ada
    )
    seen = daemon.docker("exec", "traps", "ls", "/tmp", "/ran", user=ada, check=False)
    assert "file" in seen.stdout
    assert "/ran: No such file" in seen.stderr
    daemon.docker("rm", "-f", "traps", user=ada)


@pytest.fixture
def shared(two_users: People) -> Iterator[Path]:
    """Ada's own directory in which Bob has put one that is only his."""
    place = Path("/var/tmp") / f"bh-shared-{uuid.uuid4().hex[:8]}"
    (place / "bobs").mkdir(parents=True)
    (place / "bobs" / "file").write_bytes(SECRET)
    (place / "roots").write_bytes(SECRET)
    (place / "roots").chmod(0o600)
    given(place, two_users.ada)
    given(place / "bobs", two_users.bob)
    given(place / "bobs" / "file", two_users.bob)
    (place / "bobs").chmod(0o700)
    yield place
    shutil.rmtree(place)


def given(path: Path, user: User) -> None:
    os.chown(path, user.uid, user.gid)


@pytest.mark.parametrize("running", [False, True])
def test_what_the_owner_may_not_read_no_copy_reads(
    daemon: Daemon, two_users: People, shared: Path, running: bool
) -> None:
    """Root does the copying, and the files of others in a mounted directory stay theirs."""
    ada = two_users.ada
    daemon.import_busybox(user=ada)
    options = ("-v", f"{shared}:/s", "--name", "deputy")
    daemon.docker("create", *options, "busybox", "sleep", "600", user=ada)
    if running:
        daemon.docker("start", "deputy", user=ada)
    for path in ("/s/bobs/file", "/s/bobs", "/s/roots", "/s/."):
        refused = daemon.run(["docker", "cp", f"deputy:{path}", "-"], ada, check=False)
        assert refused.returncode != 0, path
        assert SECRET.decode() not in refused.stdout
    for place, names in (("/s/bobs", {"new": b"x"}), ("/s/bobs", {"file": b"x"})):
        archive = tar_of(names)
        refused = daemon.docker("cp", "-", f"deputy:{place}", user=ada, check=False, input_=archive)
        assert refused.returncode != 0
    assert sorted(path.name for path in (shared / "bobs").iterdir()) == ["file"]
    assert (shared / "bobs" / "file").read_bytes() == SECRET
    daemon.docker("cp", "-", "deputy:/s", user=ada, input_=tar_of({"mine": b"x"}))
    assert (shared / "mine").stat().st_uid == ada.uid
    daemon.docker("rm", "-f", "deputy", user=ada)


def test_a_host_path_is_opened_anew_for_a_container_that_does_not_run(
    daemon: Daemon, two_users: People
) -> None:
    """What was the owner's at creation may be a link to somebody else's by now."""
    ada = two_users.ada
    daemon.import_busybox(user=ada)
    place = ada.home / "given"
    place.mkdir()
    given(place, ada)
    daemon.docker("create", "--name", "later", "-v", f"{place}:/s", "busybox", "true", user=ada)
    place.rmdir()
    place.symlink_to("/root")
    refused = daemon.run(["docker", "cp", "later:/s/.", "-"], ada, check=False)
    assert refused.returncode != 0
    assert ".ssh" not in refused.stdout
    place.unlink()
    daemon.docker("rm", "later", user=ada)


def test_containers_of_others_are_not_there(daemon: Daemon, two_users: People) -> None:
    daemon.import_busybox(user=two_users.ada)
    daemon.docker("create", "--name", "hers", "busybox", "true", user=two_users.ada)
    for arguments in (
        ("cp", "hers:/etc/passwd", "-"),
        ("cp", "/etc/passwd", "hers:/tmp"),
        ("export", "hers"),
    ):
        refused = daemon.docker(*arguments, user=two_users.bob, check=False)
        assert "No such container: hers" in refused.stderr
    daemon.docker("rm", "hers", user=two_users.ada)


def test_a_removal_does_not_wait_for_a_client_who_does_not_read(
    daemon: Daemon, two_users: People
) -> None:
    """A copy that stalls holds up nobody: it is cut off."""
    ada = two_users.ada
    daemon.import_busybox(user=ada)
    daemon.docker(
        "run",
        "-d",
        "--name",
        "slow",
        "busybox",
        "sh",
        "-c",
        "head -c 30000000 /dev/zero > /big; sleep 600",
        user=ada,
    )
    daemon.docker(
        "exec", "slow", "sh", "-c", "until [ $(stat -c %s /big) = 30000000 ]; do :; done", user=ada
    )
    with contextlib.closing(client_of(daemon)) as client:
        pieces, _ = client.containers.get("slow").get_archive("/big", chunk_size=1)
        next(iter(pieces))
        daemon.docker("rm", "-f", "slow", user=ada)
    assert "slow" not in daemon.docker("ps", "-a", user=ada).stdout

"""Where a mount goes: targets that are links in the image, or made into links while it is mounted (attacks.md 4)."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import uuid
from pathlib import Path

import pytest

from tests.support.accounts import People, User
from tests.support.asking import ask
from tests.support.daemon import Daemon, busybox_tar

pytestmark = [pytest.mark.root, pytest.mark.slow]

LINKS = {
    "etc-link": "/etc",
    "climbing": "../../../../../../var/tmp",
    "kernel": "/proc",
    "sysfs": "/sys",
    "self": "/proc/self/fd",
    "loop": "loop",
    "dangling": "/no/such/place",
    "top": "/",
}


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    """Ada's image is full of links; Bob has one of his own, and a container with things to take."""
    daemon.docker("import", "-", "links", user=two_users.ada, input_=with_links())
    daemon.import_busybox(user=two_users.ada)
    daemon.import_busybox(user=two_users.bob)
    return daemon


def with_links() -> bytes:
    data = io.BytesIO(busybox_tar())
    with tarfile.open(fileobj=data, mode="a") as tar:
        for name, goal in LINKS.items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, goal
            tar.addfile(member)
    return data.getvalue()


@pytest.fixture
def source(two_users: People) -> Path:
    """A directory of Ada's, with a name nobody else has in it."""
    found = two_users.ada.home / f"src-{uuid.uuid4().hex[:8]}"
    found.mkdir()
    (found / f"mark-{found.name}").touch()
    subprocess.run(["chown", "-R", str(two_users.ada.uid), str(found)], check=True)
    return found


def shown_outside(daemon: Daemon, source: Path) -> list[str]:
    """Mounts of ``source`` in the daemon's own mount namespace, or the host's."""
    assert daemon.process is not None
    children = Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text()
    host = os.readlink("/proc/self/ns/mnt")
    (spawner,) = (pid for pid in children.split() if os.readlink(f"/proc/{pid}/ns/mnt") != host)
    lines = [
        line
        for pid in (spawner, "self")
        for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    ]
    return [line for line in lines if source.name in line]


@pytest.mark.parametrize("link", LINKS)
@pytest.mark.parametrize("below", ["", "/x"])
def test_a_target_that_is_a_link_stays_inside(
    ready: Daemon, two_users: People, source: Path, link: str, below: str
) -> None:
    """Followed as the container would follow it, or refused; never out of it, and no host path is touched."""
    script = (
        f"ls -d /mark-{source.name} 2>/dev/null; ls /{link}{below} 2>/dev/null | head -40; echo end"
    )
    ran = ready.docker(
        "run", "--rm", "-v", f"{source}:/{link}{below}", "links", "sh", "-c", script,
        user=two_users.ada, check=False,
    )  # fmt: skip
    ended = ran.returncode == 0 and ran.stdout.endswith("end\n")
    assert ended or ran.returncode in {125, 126}, ran
    assert shown_outside(ready, source) == []
    # Over its /etc, the three files of its own have their places in it.
    assert set(os.listdir(source)) - {"hosts", "hostname", "resolv.conf"} == {f"mark-{source.name}"}
    for path in ("/x", "/var/tmp/x", "/etc/x", "/no"):
        assert not Path(path).exists(), path


def test_a_target_swapped_while_it_is_mounted(
    ready: Daemon, two_users: People, source: Path
) -> None:
    """One container turns a directory of a volume into links and back, while others mount below it."""
    ada, marker = two_users.ada, f"m-{uuid.uuid4().hex[:8]}"
    swap = f"""
        while :; do
            for goal in / /etc /proc ../../../../../../../tmp /proc/self/root; do
                rm -rf /v/a; ln -s $goal /v/a; rm -f /v/a; mkdir -p /v/a/{marker}
            done
        done
    """
    ready.docker("run", "-d", "--name", "swapper", "-v", "race:/v", "busybox", "sh", "-c", swap,
                 user=ada)  # fmt: skip
    try:
        for _ in range(12):
            ran = ready.docker(
                "run", "--rm", "-v", "race:/v", "-v", f"{source}:/v/a/{marker}", "busybox",
                "cat", "/proc/self/mountinfo", user=ada, check=False,
            )  # fmt: skip
            assert ran.returncode in {0, 125, 126, 127}, ran
            assert shown_outside(ready, source) == []
            for path in ("/", "/etc", "/tmp", "/proc/self", str(ready.root)):
                assert not Path(path, marker).exists()
    finally:
        ready.docker("rm", "-f", "swapper", user=ada)
        ready.docker("volume", "rm", "race", user=ada)


def test_a_source_swapped_for_a_part_of_a_volume(ready: Daemon, two_users: People) -> None:
    """What a subpath names is looked up below the volume, whoever turns it into a link meanwhile."""
    ada = two_users.ada
    swap = """
        while :; do
            rm -rf /v/p; ln -s / /v/p; rm -f /v/p; ln -s ../../../../.. /v/p; rm -f /v/p
            mkdir /v/p; echo mine >/v/p/f
        done
    """
    ready.docker("run", "-d", "--name", "swapper", "-v", "part:/v", "busybox", "sh", "-c", swap,
                 user=ada)  # fmt: skip
    try:
        for _ in range(12):
            ran = ready.docker(
                "run", "--rm", "--mount", "type=volume,src=part,dst=/p,volume-subpath=p", "busybox",
                "ls", "/p", user=ada, check=False,
            )  # fmt: skip
            assert set(ran.stdout.split()) <= {"f"}, ran.stdout
    finally:
        ready.docker("rm", "-f", "swapper", user=ada)
        ready.docker("volume", "rm", "part", user=ada)


def create(daemon: Daemon, user: User, **host: object) -> tuple[int, str]:
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    answer = ask(daemon, "POST", "/containers/create", body, user=user)
    if answer.status == 201:
        made = json.loads(answer.body)["Id"]
        ask(daemon, "DELETE", f"/containers/{made}?v=1", user=user)
    return answer.status, answer.body.decode()


def test_anothers_container_has_no_volumes_to_take(ready: Daemon, two_users: People) -> None:
    """By name, id or its beginning: it does not exist, word for word."""
    ada, bob = two_users.ada, two_users.bob
    made = ready.docker("create", "--name", "rich", "-v", "gold:/gold", "-v", f"{ada.home}:/home",
                        "busybox", "true", user=ada).stdout.strip()  # fmt: skip
    try:
        for name in ("rich", made, made[:12]):
            hers = create(ready, bob, VolumesFrom=[name])
            nobodys = create(ready, bob, VolumesFrom=["f" * len(name)])
            assert hers[0] == nobodys[0] == 404
            assert hers[1].replace(name, "X") == nobodys[1].replace("f" * len(name), "X")
        assert ready.docker("volume", "ls", "-q", user=bob).stdout == ""
    finally:
        ready.docker("rm", "-v", "rich", user=ada)
        ready.docker("volume", "rm", "gold", user=ada)


def test_what_was_inherited_is_still_opened_as_its_owner(
    ready: Daemon, two_users: People, source: Path
) -> None:
    """A bind taken over from a container is decided anew: what has become somebody else's is not given away."""
    ada = two_users.ada
    ready.docker("create", "--name", "old", "-v", f"{source}:/s", "busybox", "true", user=ada)
    try:
        os.chown(source, two_users.bob.uid, two_users.bob.gid)
        source.chmod(0o700)
        ran = ready.docker("run", "--rm", "--volumes-from", "old", "busybox", "ls", "/s", user=ada,
                           check=False)  # fmt: skip
        assert ran.returncode == 125
        assert "mount-source" in ran.stderr
    finally:
        ready.docker("rm", "old", user=ada)

"""What cannot be done is told with Docker's status and in clear words, and nothing of it stays half done."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from tests.support.accounts import People, User
from tests.support.archives import docker_archive, tar_of
from tests.support.asking import Answer, ask
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

PORT, TAKEN = 18_571, 18_572
HURT = Path(f"/tmp/bakehouse-hurt-{os.getpid()}")
"""Where nothing of an archive may come to lie."""
SETTLE_SECONDS = 20.0


@attrs.frozen
class Remains:
    """All that a daemon keeps for what it was asked to do."""

    told: str
    files: frozenset[str]
    cgroups: frozenset[str]
    links: frozenset[str]
    ports: str


LISTS = ("/containers/json?all=1&size=1", "/images/json?all=1", "/volumes", "/networks")


def remains(daemon: Daemon) -> Remains:
    tag = daemon.config.instance_tag
    return Remains(
        told="".join(_steady(ask(daemon, "GET", path).json) for path in LISTS),
        files=frozenset(_files(daemon)),
        cgroups=frozenset(
            path for path, _, _ in os.walk("/sys/fs/cgroup") if daemon.config.instance in path
        ),
        links=frozenset(name for name in os.listdir("/sys/class/net") if tag in name),
        ports=subprocess.run(
            ["nft", "list", "table", "inet", daemon.config.instance],
            capture_output=True,
            check=False,
            text=True,
        ).stdout,
    )


def _steady(told: object) -> str:
    """Without what time alone changes."""
    for one in told if isinstance(told, list) else ():
        one.pop("Status", None)
    return json.dumps(told)


def _files(daemon: Daemon) -> Iterator[str]:
    """What lies below the roots; not what is in a layer or root file system."""
    for root in (daemon.data_root, daemon.run_root):
        for path, directories, files in os.walk(root):
            if len(Path(path).relative_to(root).parts) >= 3:
                directories.clear()
            yield from (os.path.join(path, name) for name in (*directories, *files))


def assert_unchanged(daemon: Daemon, before: Remains) -> None:
    until = time.monotonic() + SETTLE_SECONDS
    while (after := remains(daemon)) != before and time.monotonic() < until:
        time.sleep(0.1)
    assert after == before


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Iterator[Daemon]:
    """Ada has busybox, and a container ``web`` that publishes a port."""
    daemon.import_busybox(user=two_users.ada)
    run = ("run", "-d", "--name", "web", "-p", f"127.0.0.1:{PORT}:80", "busybox", "sleep", "600")
    daemon.docker(*run, user=two_users.ada)
    daemon.docker("run", "--rm", "-v", "kept:/k", "busybox", "true", user=two_users.ada)
    yield daemon
    daemon.docker("rm", "-f", "web", user=two_users.ada, check=False)


def create(daemon: Daemon, user: User, **wanted: object) -> Answer:
    body = {"Image": "busybox", "Cmd": ["true"], **wanted}
    return ask(daemon, "POST", "/containers/create", body, user=user)


def host(**wanted: object) -> dict[str, object]:
    return {"HostConfig": wanted}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "words"),
    [
        ("POST", "/containers/create", b"{", 400, "JSON"),
        ("POST", "/containers/create", b'{"Image": "a", "Image": "b"}', 400, "Image"),
        ("POST", "/containers/create", b'{"Image": ' + b"[" * 9_999, 400, "nested"),
        ("POST", "/containers/create", b"\xff\xfe", 400, "JSON"),
        ("POST", "/containers/create", b"[]", 400, "object"),
        ("POST", "/containers/create", b"", 400, ""),
        ("POST", "/containers/create", b'{"Image": 7}', 400, "Image"),
        ("POST", "/containers/create", b'{"Image": "a", "Cmd": {"x": 1}}', 400, "Cmd"),
        ("POST", "/containers/create", b"{}", 400, "mage"),
        ("POST", "/containers/create?name=a%00b", b'{"Image": "busybox"}', 400, "NUL"),
        ("POST", "/containers/create?name=../x", b'{"Image": "busybox"}', 400, "container name"),
        ("POST", "/containers/web/exec", b"{}", 400, "ommand"),
        ("POST", "/containers/web/exec", b'{"Cmd": "x"', 400, "JSON"),
        ("POST", "/containers/web/rename?name=", b"", 400, "name"),
        ("POST", "/containers/web/rename?name=a/b", b"", 400, "a/b"),
        ("POST", "/containers/web/kill?signal=NONE", b"", 400, "NONE"),
        ("POST", "/containers/web/resize?h=x&w=1", b"", 400, ""),
        ("POST", "/containers/web/wait?condition=never", b"", 400, "never"),
        ("GET", "/containers/web/logs", b"", 400, "stream"),
        ("GET", "/containers/web/logs?stdout=1&since=soon", b"", 400, "since"),
        ("GET", "/containers/json?filters=x", b"", 400, "cannot read the filters as JSON"),
        ("GET", '/containers/json?filters={"nothing":["x"]}', b"", 400, "nothing"),
        ("GET", "/containers/nobody/json", b"", 404, "No such container: nobody"),
        ("DELETE", "/containers/web", b"", 409, "running"),
        ("POST", "/volumes/create", b'{"Name": "../x"}', 400, "../x"),
        ("POST", "/volumes/create", b'{"Name": "xx", "Driver": "nfs"}', 403, "nfs"),
        ("GET", "/volumes/nobody", b"", 404, "nobody"),
        ("GET", "/images/nobody/json", b"", 404, "No such image: nobody"),
        ("DELETE", "/images/busybox", b"", 409, "container"),
        ("POST", "/images/busybox/tag?repo=UPPER", b"", 400, "UPPER"),
        ("POST", "/images/create?fromSrc=-&repo=bad", b"no tar at all", 400, ""),
        ("POST", "/images/create?fromSrc=-&repo=BAD", tar_of({}), 400, "BAD"),
        ("POST", "/build?dockerfile=../../etc/passwd", tar_of({}), 404, "../../etc/passwd"),
        ("POST", "/build", tar_of({"Dockerfile": b"RUN true\n"}), 400, "FROM"),
        ("POST", "/build", b"no tar at all", 400, ""),
        ("GET", "/networks/nobody", b"", 404, "nobody"),
        ("GET", "/nothing/here", b"", 404, "not found"),
        ("PATCH", "/containers/json", b"", 405, "GET"),
    ],
)
def test_what_makes_no_sense_is_told_and_changes_nothing(  # noqa: PLR0913, PLR0917
    ready: Daemon,
    two_users: People,
    method: str,
    path: str,
    body: bytes,
    status: int,
    words: str,
) -> None:
    before = remains(ready)
    kind = "application/json" if body[:1] in {b"{", b"["} else "application/x-tar"
    answer = ask(ready, method, path, body, user=two_users.ada, kind=kind)
    assert answer.status == status, answer
    assert words in answer.message
    assert "Traceback" not in answer.message
    assert_unchanged(ready, before)


@pytest.mark.parametrize(
    ("wanted", "status", "words"),
    [
        ({"Image": "nobody:1"}, 404, "No such image: nobody:1"),
        ({"Image": "NOT A NAME"}, 400, "NOT A NAME"),
        ({"Cmd": []}, 400, "no command"),
        ({"User": "nobody-here"}, 0, "nobody-here"),
        ({"WorkingDir": "relative"}, 400, "relative"),
        ({"WorkingDir": "/bin/busybox/x"}, 0, "/bin/busybox/x"),
        ({"StopSignal": "SIGNOTHING"}, 400, "SIGNOTHING"),
        ({"Env": ["=x"]}, 400, "=x"),
        ({"Cmd": ["/no/such/program"]}, 0, "/no/such/program"),
        (host(Binds=["/no/such/dir/at/all:/x"]), 0, "/no/such/dir"),
        (host(Binds=["relative/path:/x"]), 400, "relative/path"),
        (host(Binds=["/tmp:relative"]), 400, "relative"),
        (host(Binds=["/tmp:/"]), 400, "root of the container"),
        (host(Binds=["/tmp:/x", "/tmp:/x/"]), 400, "Duplicate mount point: /x"),
        (host(Binds=["/tmp:/x:mad"]), 400, "mad"),
        (host(Mounts=[{"Type": "bind", "Source": "/no/such", "Target": "/x"}]), 400, "/no/such"),
        (host(Mounts=[{"Type": "odd", "Target": "/x"}]), 400, "odd"),
        (host(Mounts=[{"Type": "volume", "Source": "a/b", "Target": "/x"}]), 400, "a/b"),
        (host(Tmpfs={"/x": "size=lots"}), 400, "lots"),
        (host(Memory=-1), 400, "emory"),
        (host(Memory=1_000), 400, "emory"),
        (host(NanoCpus=10**15), 400, "CPU"),
        (host(PidsLimit="many"), 400, "PidsLimit"),
        (host(Dns=["192.0.2.1\nnameserver 192.0.2.2"]), 400, "no address"),
        (host(DnsSearch=["a b"]), 400, "one word"),
        (host(ExtraHosts=["a:192.0.2.1\n192.0.2.2 b"]), 400, "one word"),
        (host(ExtraHosts=["name:somewhere"]), 400, "name:somewhere"),
        (host(Ulimits=[{"Name": "crumbs", "Soft": 1, "Hard": 1}]), 400, "crumbs"),
        (host(Ulimits=[{"Name": "nofile", "Soft": 9, "Hard": 1}]), 400, "hard limit"),
        (host(CapDrop=["BAKING"]), 400, "BAKING"),
        (host(SecurityOpt=["oven=hot"]), 400, "oven=hot"),
        (host(NetworkMode="nobodys"), 0, "nobodys"),
        (host(RestartPolicy={"Name": "sometimes"}), 400, "sometimes"),
        (host(PortBindings={"80/tcp": [{"HostPort": "99999"}]}), 400, "99999"),
        (host(PortBindings={"x/tcp": [{}]}), 400, "x/tcp"),
        (host(PortBindings={"80/tcp": [{"HostPort": str(PORT)}]}), 0, str(PORT)),
        (host(PortBindings={"80/tcp": [{"HostPort": str(TAKEN)}]}), 0, str(TAKEN)),
        (
            host(PortBindings={"80/tcp": [{"HostIp": "192.0.2.1", "HostPort": "18573"}]}),
            0,
            "192.0.2.1",
        ),
    ],
    ids=lambda value: json.dumps(value)[:60] if isinstance(value, dict) else None,
)
def test_a_container_that_cannot_be_leaves_nothing(
    ready: Daemon, two_users: People, wanted: dict[str, object], status: int, words: str
) -> None:
    """Refused at its creation with ``status``, or at its start (0) and removed again."""
    ada = two_users.ada
    with socket.create_server(("127.0.0.1", TAKEN)):
        before = remains(ready)
        answer = create(ready, ada, **wanted)
        if status:
            assert answer.status == status, answer
        else:
            assert answer.status == 201, answer
            made = json.loads(answer.body)["Id"]
            after_create = remains(ready)
            answer = ask(ready, "POST", f"/containers/{made}/start", user=ada)
            assert answer.status in {400, 403, 404, 409, 500}, answer
            left = remains(ready)
            assert (left.cgroups, left.links, left.ports) == (
                after_create.cgroups,
                after_create.links,
                after_create.ports,
            )
            ask(ready, "DELETE", f"/containers/{made}", user=ada)
        assert words in answer.message
        assert_unchanged(ready, before)


def test_a_name_is_taken_once(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    before = remains(ready)
    body = {"Image": "busybox", "Cmd": ["true"]}
    answer = ask(ready, "POST", "/containers/create?name=web", body, user=ada)
    assert answer.status == 409
    assert 'The container name "/web" is already in use by container' in answer.message
    other = ready.docker("create", "busybox", "true", user=ada).stdout.strip()
    renamed = ask(ready, "POST", f"/containers/{other}/rename?name=web", user=ada)
    assert renamed.status == 409
    ready.docker("rm", other, user=ada)
    assert_unchanged(ready, before)


def test_a_port_taken_by_ours_is_told_with_whose_it_is(ready: Daemon, two_users: People) -> None:
    ada = two_users.ada
    run = ("run", "--rm", "-p", f"127.0.0.1:{PORT}:80", "busybox", "true")
    for user, told in ((ada, "web"), (two_users.bob, "taken")):
        if user is two_users.bob:
            ready.import_busybox(user=user)
        refused = ready.docker(*run, user=user, check=False)
        assert refused.returncode == 125
        assert str(PORT) in refused.stderr
        assert told in refused.stderr


def archive_with(member: tarfile.TarInfo) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    return data.getvalue()


def hostile_members() -> dict[str, bytes]:
    names = (f"../../{HURT.name}", "l", f"l/{HURT.name}")
    climbing, link, through = map(tarfile.TarInfo, names)
    link.type, link.linkname = tarfile.SYMTYPE, str(HURT.parent)
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.addfile(link)
        tar.addfile(through, io.BytesIO())
    return {"climbs": archive_with(climbing), "through a link": data.getvalue()}


@pytest.mark.parametrize("name", [*hostile_members(), "wrong digest", "cut off"])
@pytest.mark.parametrize("way", ["import", "load", "build"])
def test_archives_made_to_hurt_leave_nothing(
    ready: Daemon, two_users: People, name: str, way: str
) -> None:
    ada = two_users.ada
    layer = {**hostile_members(), "cut off": tar_of({"a": bytes(9_000)})[:5_000]}.get(
        name, tar_of({"a": b"a"})
    )
    wrong = [f"sha256:{'0' * 64}"] if name == "wrong digest" else None
    before = remains(ready)
    if way == "load":
        body = docker_archive([layer], tags=["hurt:1"], diff_ids=wrong)
        answer = ask(ready, "POST", "/images/load", body, user=ada, kind="application/x-tar")
    elif name == "wrong digest":
        pytest.skip("says no digest")
    elif way == "import":
        path = "/images/create?fromSrc=-&repo=hurt"
        answer = ask(ready, "POST", path, layer, user=ada, kind="application/x-tar")
    else:
        answer = ask(ready, "POST", "/build?t=hurt", layer, user=ada, kind="application/x-tar")
    if way == "load":  # told as the last message of a stream
        assert answer.status == 200
        assert answer.json["errorDetail"]["message"]  # type: ignore[index]  # it is an object
        assert_unchanged(ready, before)
    elif not (name == "through a link" and answer.status == 200):  # harmless where it is confined
        assert answer.status == 400, answer
        assert_unchanged(ready, before)
    assert not HURT.exists()

"""Two people at work on one host: everything of the one, looked for by the other in every way the API has.

What each of them must not do at all, and what the sockets and root file systems withstand, is in ``tests/attack``.
"""

from __future__ import annotations

import grp
import json
import os
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from tests.support.accounts import People, User
from tests.support.asking import ask
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

NOBODYS = "f" * 64
"""An id that nobody has."""


@attrs.frozen
class Things:
    """What Ada has, by the names the other could hear of.

    Attributes:
        web: A running container's id.
        ended: The id of one that has ended.
        execution: The id of an exec in ``web``.
        image: The id of her own image ``oven:1``.
        loose: The id of an image without a name.
        volume: The name of a volume nobody uses.
        network: The id of her network.
        address: The address of ``web``.
    """

    web: str
    ended: str
    execution: str
    image: str
    loose: str
    volume: str
    network: str
    address: str


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Iterator[Daemon]:
    """Each has an image of their own and a ``web`` that serves a page; the administrator shares one with all."""
    daemon.import_busybox("shared:1")
    daemon.bakehouse("image", "publish", "shared:1")
    for user in (two_users.ada, two_users.bob):
        daemon.import_busybox("oven:1", user=user)
        script = f"mkdir /w; echo {user.name} >/w/index.html; echo log of {user.name}; exec httpd -f -p 8080 -h /w"
        run = ("run", "-d", "--name", "web", "-v", "store:/store", "oven:1", "sh", "-c", script)
        daemon.docker(*run, user=user)
    yield daemon
    for user in (two_users.ada, two_users.bob):
        daemon.docker("rm", "-f", "-v", "web", user=user, check=False)


@pytest.fixture(scope="module")
def things(ready: Daemon, two_users: People) -> Things:
    ada = two_users.ada
    ended = ready.docker("run", "-d", "shared:1", "true", user=ada).stdout.strip()
    ready.docker("wait", ended, user=ada)
    wanted = {"Cmd": ["sleep", "1"], "AttachStdout": True}
    made = ask(ready, "POST", "/containers/web/exec", wanted, user=ada)
    execution = json.loads(made.body)["Id"]
    loose = ready.docker("import", "-", user=ada, input_=empty_tar()).stdout.strip()
    settings = one(ready, ada, "inspect", "web")["NetworkSettings"]
    return Things(
        web=one(ready, ada, "inspect", "web")["Id"],
        ended=ended,
        execution=execution,
        image=one(ready, ada, "image", "inspect", "oven:1")["Id"],
        loose=loose,
        volume=ready.docker("volume", "create", "hers", user=ada).stdout.strip(),
        network=one(ready, ada, "network", "inspect", "bridge")["Id"],
        address=settings["Networks"]["bridge"]["IPAddress"],
    )


def empty_tar() -> bytes:
    return bytes(10_240)


def one(daemon: Daemon, user: User, *arguments: str) -> dict[str, Any]:
    """What ``docker inspect`` says of one thing."""
    told: list[dict[str, Any]] = json.loads(daemon.docker(*arguments, user=user).stdout)
    return told[0]


def state_of(daemon: Daemon, user: User) -> dict[str, str]:
    """All that a person has, as they see it."""
    asked = {
        "containers": ("ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.State}}"),
        "images": ("images", "-a", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}"),
        "volumes": ("volume", "ls", "--format", "{{.Name}}"),
        "networks": ("network", "ls", "--no-trunc", "--format", "{{.ID}} {{.Name}}"),
    }
    return {name: daemon.docker(*words, user=user).stdout for name, words in asked.items()}


def test_both_run_what_the_administrator_shares(ready: Daemon, two_users: People) -> None:
    for user in (two_users.ada, two_users.bob):
        ran = ready.docker("run", "--rm", "shared:1", "id", "-u", user=user)
        assert ran.stdout == "0\n"
        refused = ready.docker("rmi", "shared:1", user=user, check=False)
        assert refused.returncode != 0, "shared by an administrator, removed by a user"
    publish = ("image", "publish", "oven:1")
    assert ready.bakehouse(*publish, user=two_users.ada, check=False).returncode != 0


CONTAINER_PATHS = (
    ("GET", "/containers/{}/json"),
    ("GET", "/containers/{}/logs?stdout=1"),
    ("GET", "/containers/{}/top"),
    ("GET", "/containers/{}/stats?stream=0"),
    ("GET", "/containers/{}/changes"),
    ("GET", "/containers/{}/export"),
    ("GET", "/containers/{}/archive?path=/"),
    ("PUT", "/containers/{}/archive?path=/"),
    ("POST", "/containers/{}/start"),
    ("POST", "/containers/{}/stop"),
    ("POST", "/containers/{}/restart"),
    ("POST", "/containers/{}/kill"),
    ("POST", "/containers/{}/pause"),
    ("POST", "/containers/{}/unpause"),
    ("POST", "/containers/{}/rename?name=mine"),
    ("POST", "/containers/{}/resize?h=1&w=1"),
    ("POST", "/containers/{}/wait"),
    ("POST", "/containers/{}/attach?stream=1&stdout=1"),
    ("POST", "/containers/{}/exec"),
    ("POST", "/containers/{}/update"),
    ("POST", "/commit?container={}"),
    ("DELETE", "/containers/{}?force=1"),
)
EXEC_PATHS = (
    ("POST", "/exec/{}/start"),
    ("POST", "/exec/{}/resize?h=1&w=1"),
    ("GET", "/exec/{}/json"),
)
IMAGE_PATHS = (
    ("GET", "/images/{}/json"),
    ("GET", "/images/{}/history"),
    ("GET", "/images/{}/get"),
    ("GET", "/images/get?names={}"),
    ("POST", "/images/{}/tag?repo=mine&tag=1"),
    ("POST", "/images/{}/push"),
    ("DELETE", "/images/{}?force=1"),
    ("POST", "/images/create?fromImage={}"),
)
VOLUME_PATHS = (("GET", "/volumes/{}"), ("DELETE", "/volumes/{}?force=1"))
NETWORK_PATHS = (
    ("GET", "/networks/{}"),
    ("DELETE", "/networks/{}"),
    ("POST", "/networks/{}/connect"),
    ("POST", "/networks/{}/disconnect"),
)
BODY = {"Cmd": ["true"], "AttachStdout": True, "Container": "web"}


def assert_unheard_of(
    daemon: Daemon, user: User, paths: tuple[tuple[str, str], ...], theirs: str, nobodys: str
) -> None:
    """What is somebody else's is answered, word for word, as what does not exist; and is as it was."""
    for method, path in paths:
        hers = ask(daemon, method, path.format(theirs), BODY, user=user)
        none = ask(daemon, method, path.format(nobodys), BODY, user=user)
        assert hers.status == none.status, (method, path)
        assert hers.body.replace(theirs.encode(), b"X") == none.body.replace(
            nobodys.encode(), b"X"
        ), (method, path)
        assert hers.status >= 400 or method == "DELETE", (method, path)


def test_anothers_things_are_unheard_of(ready: Daemon, two_users: People, things: Things) -> None:
    before = state_of(ready, two_users.ada)
    encoded = things.image.removeprefix("sha256:")
    for paths, theirs, nobodys in (
        (CONTAINER_PATHS, things.web, NOBODYS),
        (CONTAINER_PATHS, things.ended[:12], NOBODYS[:12]),
        (EXEC_PATHS, things.execution, NOBODYS),
        (IMAGE_PATHS, things.image, f"sha256:{NOBODYS}"),
        (IMAGE_PATHS, encoded[:12], NOBODYS[:12]),
        (IMAGE_PATHS, f"oven@{things.image}", f"oven@sha256:{NOBODYS}"),
        (VOLUME_PATHS, things.volume, "nobodys"),
        (NETWORK_PATHS, things.network, NOBODYS),
    ):
        assert_unheard_of(ready, two_users.bob, paths, theirs, nobodys)
    assert state_of(ready, two_users.ada) == before
    assert one(ready, two_users.ada, "inspect", "web")["State"]["Running"] is True


@pytest.mark.parametrize(
    "wanted",
    [
        {"HostConfig": {"NetworkMode": "container:{web}"}},
        {"HostConfig": {"PidMode": "container:{web}"}},
        {"HostConfig": {"IpcMode": "container:{web}"}},
        {"HostConfig": {"VolumesFrom": ["{web}"]}},
        {"HostConfig": {"Links": ["{web}:x"]}},
        {"HostConfig": {"Mounts": [{"Type": "image", "Source": "{image}", "Target": "/x"}]}},
        {"Image": "{image}"},
        {"HostConfig": {"CgroupParent": "/bakehouse/{web}"}},
        {"HostConfig": {"ContainerIDFile": "/x", "Binds": ["/proc/{web}:/x"]}},
    ],
    ids=lambda wanted: json.dumps(wanted)[:50],
)
def test_a_container_is_made_of_nothing_of_anothers(
    ready: Daemon, two_users: People, things: Things, wanted: dict[str, object]
) -> None:
    text = json.dumps({"Image": "shared:1", "Cmd": ["true"], **wanted})
    before = state_of(ready, two_users.bob)
    answers = []
    for names in (
        attrs.asdict(things),
        {"image": f"sha256:{NOBODYS}", "web": NOBODYS, "network": NOBODYS},
    ):
        body = text
        for name, value in names.items():
            body = body.replace(f"{{{name}}}", value)
        refused = ask(
            ready, "POST", "/containers/create?name=thief", body.encode(), user=two_users.bob
        )
        assert 400 <= refused.status < 500, refused
        told = refused.message
        for value in names.values():
            told = told.replace(value, "X")
        answers.append((refused.status, told))
    assert answers[0] == answers[1]
    assert state_of(ready, two_users.bob) == before


def test_lists_filters_and_sums_show_ones_own(
    ready: Daemon, two_users: People, things: Things
) -> None:
    bob = two_users.bob
    told = "".join(
        ready.docker(*words, user=bob, check=False).stdout
        for words in (
            ("ps", "-a", "--no-trunc"),
            ("ps", "-aq", "--no-trunc", "--filter", f"id={things.web[:4]}"),
            ("ps", "-aq", "--no-trunc", "--filter", f"ancestor={things.image}"),
            ("ps", "-aq", "--no-trunc", "--filter", "volume=hers"),
            ("ps", "-aq", "--no-trunc", "--filter", f"network={things.network}"),
            ("images", "-a", "--no-trunc"),
            ("images", "--no-trunc", "--filter", "dangling=true"),
            ("volume", "ls"),
            ("network", "ls", "--no-trunc"),
            ("network", "inspect", "bridge"),
            ("system", "df", "-v"),
            ("stats", "--no-stream", "--no-trunc"),
            ("info",),
        )
    )
    for line in ready.bakehouse(
        "events", "--from", "oldest", "--json", user=bob
    ).stdout.splitlines():
        event = json.loads(line)
        told += "" if event["type"] == "access.refuse" else line  # which repeats what he asked for
    for events in ("type=container", f"container={things.web}", f"image={things.image}", "label=x"):
        asked = ("events", "--since", "0", "--until", "0s", "--filter", events)
        told += ready.docker(*asked, user=bob).stdout
    hidden = {**attrs.asdict(things), "name": two_users.ada.name}
    for name, value in hidden.items():
        assert value not in told, name
        assert (
            name in {"volume", "name", "address"} or value.removeprefix("sha256:")[:12] not in told
        )
    usage = json.loads(ask(ready, "GET", "/system/df", user=bob).body)
    assert [len(usage[kind]) for kind in ("Containers", "Images", "Volumes")] == [1, 2, 1]
    for word in ("before", "since"):
        unknown = ready.docker(
            "ps", "-a", "--filter", f"{word}={things.web}", user=bob, check=False
        )
        assert unknown.stderr == f"Error response from daemon: No such container: {things.web}\n"


def test_pruning_takes_ones_own(ready: Daemon, two_users: People, things: Things) -> None:
    before = state_of(ready, two_users.ada)
    bob = two_users.bob
    ready.docker("volume", "create", "his", user=bob)
    ended = ready.docker("create", "shared:1", "true", user=bob).stdout.strip()
    ready.docker("tag", "oven:1", "oven:spare", user=bob)
    for noun in ("container", "image", "volume", "network", "system"):
        flags = {"image": ("-a",), "system": ("-a", "--volumes")}.get(noun, ())
        ready.docker(noun, "prune", "-f", *flags, user=bob)
    mine = state_of(ready, bob)
    assert "his" not in mine["volumes"]
    assert ended not in mine["containers"]
    assert "shared:1" in mine["images"], "pruned by a user, though it is shared"
    assert state_of(ready, two_users.ada) == before


def test_waiting_for_anothers_end_is_no_wait(
    ready: Daemon, two_users: People, things: Things
) -> None:
    for container in (things.web, NOBODYS):
        waited = ask(ready, "POST", f"/containers/{container}/wait", user=two_users.bob, seconds=5)
        assert (waited.status, waited.message) == (404, f"No such container: {container}")


def test_names_and_volumes_are_each_ones_own(ready: Daemon, two_users: People) -> None:
    script = ("sh", "-c", "cat /store/f; hostname >/store/f; stat -c %u /store/f")
    for user in (two_users.ada, two_users.bob):
        mounted = ("run", "--rm", "-v", "store:/store", "--hostname", user.name, "shared:1")
        assert ready.docker(*mounted, *script, user=user).stdout == "0\n"
    for user in (two_users.ada, two_users.bob):
        assert ready.docker("exec", "web", "cat", "/store/f", user=user).stdout == f"{user.name}\n"
        assert ready.docker("logs", "web", user=user).stdout == f"log of {user.name}\n"
        for new in ("other", "web"):
            ready.docker("rename", "other" if new == "web" else "web", new, user=user)


def test_an_anonymous_volume_is_no_secret_but_not_anothers(
    ready: Daemon, two_users: People
) -> None:
    """A volume's name is long and random, and still opens nothing to who learns it."""
    ada, bob = two_users.ada, two_users.bob
    made = ready.docker("run", "-d", "-v", "/a", "shared:1", "sleep", "60", user=ada).stdout.strip()
    try:
        ready.docker("exec", made, "touch", "/a/hers", user=ada)
        name = one(ready, ada, "inspect", made)["Mounts"][0]["Name"]
        seen = ready.docker("run", "--rm", "-v", f"{name}:/a", "shared:1", "ls", "/a", user=bob)
        assert seen.stdout == ""
        ready.docker("volume", "rm", name, user=bob)
        assert ready.docker("exec", made, "ls", "/a", user=ada).stdout == "hers\n"
    finally:
        ready.docker("rm", "-f", "-v", made, user=ada)


def test_addresses_reach_ones_own(ready: Daemon, two_users: People, things: Things) -> None:
    """The page of Ada's ``web`` is there for her containers, and for no container of Bob's, whatever the address."""
    script = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {things.address} 8080 | tail -n 1"
    ask_page = ("sh", "-c", script)
    for user, expected in ((two_users.ada, f"{two_users.ada.name}\n"), (two_users.bob, "")):
        run = ("run", "--rm", "shared:1", *ask_page)
        got = ready.docker(*run, user=user, check=False)
        assert got.stdout == expected, got.stderr
    listed = ("run", "--rm", "shared:1", "nslookup", "web")
    assert things.address not in ready.docker(*listed, user=two_users.bob, check=False).stdout


def test_a_group_directory_is_closed_to_who_is_no_member(ready: Daemon, two_users: People) -> None:
    """``root:team 2770``: a member reads and writes in it, also through a container; another does not."""
    team = two_users.ada.home.parent / "team"
    team.mkdir()
    os.chown(team, 0, grp.getgrgid(two_users.ada.gid).gr_gid)
    team.chmod(0o2770)
    (team / "paper").write_text("draft\n")
    (team / "paper").chmod(0o660)
    mount = ("run", "--rm", "-v", f"{team}:/team")
    write = "cat /team/paper && touch /team/new"
    assert (
        ready.docker(*mount, "shared:1", "sh", "-c", write, user=two_users.ada).stdout == "draft\n"
    )
    assert (team / "new").stat().st_gid == team.stat().st_gid
    for flag in ("", ":ro"):
        words = ("run", "--rm", "-v", f"{team}:/team{flag}", "shared:1", "ls", "/team")
        refused = ready.docker(*words, user=two_users.bob, check=False)
        assert refused.returncode == 125
        assert "mount-source" in refused.stderr
    parent = ("run", "--rm", "-v", f"{team.parent}:/up:ro", "shared:1", "ls", "/up/team")
    assert ready.docker(*parent, user=two_users.bob, check=False).returncode == 1


@pytest.mark.parametrize("path", ["/etc/shadow", "/root", "{data}", "{run}", "{socket}"])
@pytest.mark.parametrize("flag", ["", ":ro"])
def test_what_is_not_ones_own_is_not_mounted(
    ready: Daemon, two_users: People, path: str, flag: str
) -> None:
    places = {"data": ready.data_root, "run": ready.run_root, "socket": ready.socket}
    source = path.format(**places)
    words = ("run", "--rm", "-v", f"{source}:/x{flag}", "shared:1", "ls", "/x")
    refused = ready.docker(*words, user=two_users.ada, check=False)
    assert refused.returncode == 125
    assert "mount-source" in refused.stderr
    assert refused.stdout == ""


def test_the_third_is_refused_everywhere(ready: Daemon, two_users: People) -> None:
    """Not a member of the group: the socket itself is closed, and open it would still say no."""
    refused = ready.docker("ps", user=two_users.eve, check=False)
    assert "permission denied" in refused.stderr
    ready.socket.chmod(0o666)
    try:
        for method, path in (
            ("GET", "/_ping"),
            ("GET", "/info"),
            ("GET", "/containers/json"),
            ("GET", "/images/json"),
            ("POST", "/containers/create"),
            ("POST", "/build"),
            ("GET", "/bakehouse/v1/whoami"),
        ):
            answer = ask(ready, method, path, user=two_users.eve)
            assert answer.status == 403, path
            assert two_users.group in answer.message
    finally:
        ready.socket.chmod(0o660)

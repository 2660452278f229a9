"""Names in networks as programs in containers look them up, through the real docker command, as a user."""

from __future__ import annotations

import time
from collections.abc import Iterator

import attrs
import pytest

from tests.support.accounts import People, User
from tests.support.daemon import Daemon
from tests.support.host_python import MOUNTS, PYTHON

pytestmark = [pytest.mark.root, pytest.mark.slow]

LOOK_UP = """
import socket, sys
try:
    found = {one[4][0] for one in socket.getaddrinfo(sys.argv[1], 80, type=socket.SOCK_STREAM)}
    print(*sorted(found))
except OSError as error:
    print(error.errno)
"""
NAMED = "import socket, sys; print(socket.gethostbyaddr(sys.argv[1])[0])"
ANSWER = """
import socket, threading
record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4\\xc0\\0\\2\\x09"
def answer(query):
    kind = query[-3] if len(query) < 60 else 1
    end = 12
    while query[end]:
        end += query[end] + 1
    question = query[12:end + 5]
    found = question[-3] == 1
    return query[:2] + b"\\x81\\x80\\0\\1\\0" + bytes([found]) + bytes(4) + question + record * found
def streams():
    server = socket.create_server(("0.0.0.0", 53))
    while True:
        client, _ = server.accept()
        reply = answer(client.recv(999)[2:])
        client.sendall(len(reply).to_bytes(2, "big") + reply)
threading.Thread(target=streams, daemon=True).start()
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    query, peer = sock.recvfrom(999)
    sock.sendto(answer(query), peer)
"""


@attrs.frozen
class Ada:
    """A user, and containers of hers in which the host's own programs can be run."""

    daemon: Daemon
    user: User

    def __call__(self, *arguments: str) -> str:
        return self.daemon.docker(*arguments, user=self.user).stdout.strip()

    def start(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "600")) -> None:
        self("run", "-d", "--name", name, *MOUNTS, *options, "busybox", *command)

    def look_up(self, container: str, name: str) -> str:
        """The addresses the C library finds, or the number of its error."""
        return self("exec", container, *PYTHON, LOOK_UP, name)

    def address(self, container: str, network: str = "back") -> str:
        form = f'{{{{(index .NetworkSettings.Networks "{network}").IPAddress}}}}'
        return self("inspect", "--format", form, container)


@pytest.fixture(scope="module")
def ada(daemon: Daemon, two_users: People) -> Iterator[Ada]:
    made = Ada(daemon, two_users.ada)
    daemon.import_busybox(user=two_users.ada)
    made("network", "create", "back")
    made("network", "create", "front")
    made("network", "create", "--internal", "inside")
    made.start("web", "--network", "back", "--network-alias", "site")
    made.start("db", "--network", "back", "--network-alias", "site")
    yield made
    for container in made("ps", "-aq").split():
        made("rm", "-f", container)
    made("network", "prune", "-f")


def test_the_c_library_finds_containers_and_their_names(ada: Ada) -> None:
    db, web = ada.address("db"), ada.address("web")
    for name in ("db", "DB", "db.back"):
        assert ada.look_up("web", name) == db, name
    assert ada.look_up("web", "site").split() == sorted([db, web])
    assert ada("exec", "web", *PYTHON, NAMED, db) == "db.back"
    assert ada.look_up("web", "nobody").startswith("-")
    firsts = {ada("exec", "web", "nslookup", "site").split("\n\n")[1] for _ in range(6)}
    assert len(firsts) > 1  # they take turns


def test_the_resolver_is_where_programs_expect_it(ada: Ada) -> None:
    told = ada("exec", "web", "cat", "/etc/resolv.conf").splitlines()
    assert [line for line in told if line.startswith("nameserver")] == ["nameserver 127.0.0.11"]
    assert "ndots:0" in told[-1]
    run = ("run", "--rm", "--network", "back", "--dns", "192.0.2.1", "--dns-opt", "ndots:2")
    told = ada(*run, "busybox", "cat", "/etc/resolv.conf").splitlines()
    assert "nameserver 127.0.0.11" in told
    assert told[-1] == "options ndots:2"
    assert "127.0.0.11" not in ada("run", "--rm", "busybox", "cat", "/etc/resolv.conf")


def test_a_container_on_two_networks_finds_both_and_a_default_one_what_it_joins(ada: Ada) -> None:
    ada.start("far", "--network", "front")
    ada.start("plain")
    assert ada.look_up("far", "db") != ada.address("db")
    for name in ("far", "plain"):
        ada("network", "connect", "back", name)
        assert ada.look_up(name, "db") == ada.address("db")
        assert ada.look_up("db", name) == ada.address(name)
    ada("network", "disconnect", "front", "far")
    assert ada.look_up("far", "db") == ada.address("db")
    before = ada.address("far")
    ada("network", "connect", "front", "far")
    ada("network", "disconnect", "back", "far")
    assert ada.look_up("db", "far") != before
    ada("rename", "plain", "better")
    assert ada.look_up("web", "better") == ada.address("better")
    ada("rm", "-f", "far", "better")


def test_a_link_is_the_word_of_one_container(ada: Ada) -> None:
    database = ada("inspect", "-f", "{{.Id}}", "db")
    ada.start(
        "user", "--network", "back", "--link", "web:front-door", "--link", f"{database}:store"
    )
    assert ada.look_up("user", "front-door") == ada.address("web")
    assert ada.look_up("user", "store") == ada.address("db")
    assert ada.look_up("db", "front-door") != ada.address("web")
    ada.start("later", "--network", "front")
    ada("network", "connect", "--link", "db:base", "back", "later")
    assert ada.look_up("later", "base") == ada.address("db")
    ada("rm", "-f", "user", "later")


def test_an_internal_network_has_its_names_and_no_others(ada: Ada) -> None:
    ada.start("in1", "--network", "inside")
    ada.start("in2", "--network", "inside")
    assert ada.look_up("in1", "in2") == ada.address("in2", "inside")
    begun = time.monotonic()
    assert ada.look_up("in1", "example.org") == "-3"  # EAI_AGAIN
    assert time.monotonic() - begun < 5
    ada("rm", "-f", "in1", "in2")


def test_a_name_server_in_a_container_is_asked_by_those_told_of_it(ada: Ada) -> None:
    """It has port 53 of all its addresses, and finds names itself."""
    ada.start("dns", "--network", "back", command=(*PYTHON, ANSWER))
    for _ in range(100):
        if "ready" in ada("logs", "dns"):
            break
        time.sleep(0.05)
    ada.start("asker", "--network", "back", "--dns", ada.address("dns"))
    assert ada.look_up("asker", "some.example") == "192.0.2.9"
    assert ada.look_up("asker", "db") == ada.address("db")
    assert ada.look_up("dns", "db") == ada.address("db")
    ada("network", "connect", "front", "asker")
    ada("network", "disconnect", "back", "asker")
    # What it cannot reach by itself any more is not reached through us.
    assert ada.look_up("asker", "some.example") == "-3"
    ada("rm", "-f", "dns", "asker")


def test_names_are_found_again_after_a_restart_and_a_crash(ada: Ada) -> None:
    for end in (ada.daemon.stop, ada.daemon.kill):
        end()
        assert ada.daemon.process is None
        ada.daemon.start()
        assert ada.look_up("web", "db") == ada.address("db")
        assert ada.look_up("db", "site").split() == sorted([ada.address("db"), ada.address("web")])

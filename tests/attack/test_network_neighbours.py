"""Neighbours on the network: two people's containers, the host's services, published ports (attacks.md 23).

The attacker is a member of the user group with what containers have by default, raw sockets among it; where that is not
enough for the attack, the container's network is entered with root's means, as if its owner had got hold of more.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import attrs
import pytest

from tests.support.accounts import People, User, credentials
from tests.support.enclosed import HOST, OUTSIDE, Enclosed, Place, enclosed
from tests.support.host_python import MOUNTS, PYTHON

pytestmark = [pytest.mark.root, pytest.mark.slow]

WEB = "echo $0 >/tmp/index.html; exec httpd -f -p 80 -h /tmp"


@attrs.frozen
class Street:
    """One container of each of the two, called ``web``, each serving its owner's name at port 80."""

    world: Enclosed
    ada: User
    bob: User

    def address(self, user: User, key: str = "IPAddress") -> str:
        asked = self.world.daemon.docker("inspect", "web", user=user).stdout
        (network,) = json.loads(asked)[0]["NetworkSettings"]["Networks"].values()
        found: str = network[key]
        return found

    def gateway(self, user: User) -> str:
        return self.address(user, "Gateway")

    def inside(self, user: User, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command in a person's container, as they would run it."""
        return self.world.daemon.docker("exec", "web", *argv, user=user, check=False)

    def fetch(self, user: User, address: str, port: int = 80) -> str:
        """What a person's container gets from there; empty when it does not reach it."""
        url = f"http://{address}:{port}/index.html"
        return self.inside(user, "timeout", "1", "wget", "-q", "-O", "-", url).stdout.strip()

    def netns(self, user: User) -> Place:
        return self.world.container("web", user)

    def run(self, user: User, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``docker run`` of a short life."""
        words = ("run", "--rm", *arguments, "busybox", "true")
        return self.world.daemon.docker(*words, user=user, check=False)


@pytest.fixture(scope="module")
def street(two_users: People) -> Iterator[Street]:
    with enclosed(two_users.group) as world:
        for user in (two_users.ada, two_users.bob):
            world.daemon.import_busybox(user=user)
            run = (
                "run",
                "-d",
                "--name",
                "web",
                *MOUNTS,
                "busybox",
                "/bin/sh",
                "-c",
                WEB,
                user.name,
            )
            world.daemon.docker(*run, user=user)
        yield Street(world, two_users.ada, two_users.bob)


def test_an_owner_reaches_their_own_and_nobody_elses_by_address(street: Street) -> None:
    ada, bob = street.address(street.ada), street.address(street.bob)
    assert street.fetch(street.ada, ada) == street.ada.name
    assert street.fetch(street.bob, ada) == ""
    assert street.fetch(street.ada, bob) == ""
    assert street.inside(street.bob, "ping", "-c", "1", "-W", "1", ada).returncode != 0
    assert street.world.host.ask(ada, 80, user=street.bob) == ""


def test_another_cannot_be_found_by_arp(street: Street) -> None:
    """Nobody answers for their address on one's own wire, nor is a route to it over that wire any use."""
    ada = street.address(street.ada)
    asked = street.inside(street.bob, "arping", "-c", "1", "-w", "1", "-I", "eth0", ada)
    assert "Received 0" in asked.stdout
    bob = street.netns(street.bob)
    bob.sh(f"ip route add {ada}/32 dev eth0")
    try:
        assert bob.ask(ada, 80) == ""
    finally:
        bob.sh(f"ip route del {ada}/32")


def test_another_is_not_reached_over_link_local_ipv6(street: Street) -> None:
    script = (
        "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0; ip addr add {}/64 dev eth0 nodad; "
        "ip -6 route replace default via fe80::1 dev eth0 || true"
    )
    ada, bob = street.netns(street.ada), street.netns(street.bob)
    ada.sh(script.format("fe80::a"))
    bob.sh(script.format("fe80::b"))
    with ada.serving("ada", "::", 8081), street.world.host.serving("host", "::", 8082):
        assert ada.ask("fe80::a%eth0", 8081) == "ada"
        assert bob.ask("fe80::a%eth0", 8081) == ""
        for address in ("ff02::1%eth0", "fe80::1%eth0"):
            assert bob.run("ping", "-6", "-c", "1", "-W", "1", address).returncode != 0
        assert "fe80" not in street.world.host.sh("ip -6 -o addr show | grep bh || true")
        # A service of the host's at every address is reached over IPv4 alone.
        assert bob.ask(street.gateway(street.bob), 8082) == "host"


FORGE = """
import socket, sys
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
source, target, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
data = b"forged"
udp = (4444).to_bytes(2, "big") + port.to_bytes(2, "big") + (8 + len(data)).to_bytes(2, "big") + b"\\0\\0" + data
head = bytes.fromhex("4500000000010000401100000000")[:12]
packet = head + socket.inet_aton(source) + socket.inet_aton(target) + udp
sock.sendto(packet, (target, 0))
print("sent")
"""
LISTEN = """
import socket, sys
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.bind((sys.argv[1], 8083))
sock.settimeout(10)
print("ready", flush=True)
got = [""]
while got[-1] != sys.argv[2]:
    got.append(sock.recvfrom(99)[1][0])
print(*got)
"""


def test_a_forged_source_goes_nowhere(street: Street) -> None:
    """With raw sockets, which containers have: as another's address, as the host's, as a gateway's, as loopback's."""
    own = street.address(street.bob)
    forged = (street.address(street.ada), street.gateway(street.ada), HOST, OUTSIDE, "127.0.0.1")
    listen = [sys.executable, "-I", "-S", "-c", LISTEN, "0.0.0.0", own]
    enter = ["nsenter", f"--net=/proc/{street.world.host.pid}/ns/net", "--", *listen]
    with subprocess.Popen(enter, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        for source in (*forged, own):
            sent = street.inside(street.bob, *PYTHON, FORGE, source, HOST, "8083")
            assert sent.stdout == "sent\n", sent.stderr
        assert listener.communicate()[0].split() == [own]


CLAIM = """
import socket, sys
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
sock.bind(("eth0", 0))
mine, address = sock.getsockname()[4], socket.inet_aton(sys.argv[1])
for operation in (1, 2):
    arp = bytes.fromhex("0001080006040000")[:7] + bytes([operation]) + mine + address + mine + address
    sock.send(b"\\xff" * 6 + mine + b"\\x08\\x06" + arp)
print("sent")
"""


def test_claiming_others_addresses_by_arp_moves_no_traffic(street: Street) -> None:
    for user in (street.ada, street.bob):
        for claimed in (street.gateway(user), street.address(user), HOST, OUTSIDE):
            assert street.inside(street.bob, *PYTHON, CLAIM, claimed).stdout == "sent\n"
    street.netns(street.bob).sh("ip neigh flush all")  # its own frames came back to it
    with street.world.host.serving("host", "0.0.0.0", 8084):
        assert street.netns(street.ada).ask(street.gateway(street.ada), 8084) == "host"
    with street.world.outside.serving("outside", "0.0.0.0", 8085):
        assert street.netns(street.ada).ask(OUTSIDE, 8085) == "outside"


SNIFF = """
import socket, sys, time
sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
sock.settimeout(0.2)
until = time.monotonic() + 1.5
print("ready", flush=True)
while time.monotonic() < until:
    try:
        if sys.argv[1].encode() in sock.recv(2000):
            print("seen")
    except TimeoutError:
        pass
"""


def test_nobody_listens_in_on_another(street: Street) -> None:
    ask = ["docker", "exec", "web", *PYTHON, SNIFF]
    seen = {}
    for user, secret in ((street.bob, "for-ada"), (street.ada, "for-ada")):
        with subprocess.Popen(
            [*ask, secret],
            env=street.world.daemon.environment(user),
            **credentials(user),
            cwd="/",
            stdout=subprocess.PIPE,
            text=True,
        ) as sniffer:
            assert sniffer.stdout is not None
            assert sniffer.stdout.readline() == "ready\n"
            with street.world.host.serving(secret, "0.0.0.0", 8086):
                told = street.netns(street.ada).ask(street.gateway(street.ada), 8086)
                assert told == secret
            seen[user.name] = "seen" in sniffer.communicate()[0]
    assert seen == {street.bob.name: False, street.ada.name: True}


def test_the_hosts_services_are_reached_where_they_are_meant_to_be(street: Street) -> None:
    """As with Docker: what listens at the gateway or everywhere, yes; on loopback, or at another's gateway, no."""
    host, bob = street.world.host, street.netns(street.bob)
    own, others = street.gateway(street.bob), street.gateway(street.ada)
    bob.sh(
        "ip addr flush dev lo; echo 1 >/proc/sys/net/ipv4/conf/eth0/route_localnet;"
        f"ip route add 127.0.0.0/8 via {own} dev eth0"
    )
    try:
        with host.serving("everywhere", "0.0.0.0", 8087), host.serving("own", own, 8088):
            assert bob.ask(own, 8087) == "everywhere"
            assert bob.ask(HOST, 8087) == "everywhere"
            assert bob.ask(own, 8088) == "own"
            assert bob.ask(others, 8087) == ""
            assert bob.ask("127.0.0.1", 8087) == ""
        for protocol in ("tcp", "udp"):
            with host.serving("loopback", "127.0.0.1", 8089, protocol):
                assert host.ask("127.0.0.1", 8089, protocol) == "loopback"
                for address in ("127.0.0.1", "127.9.9.9", own, HOST):
                    assert bob.ask(address, 8089, protocol) == ""
            with host.serving("other's", others, 8090, protocol):
                assert bob.ask(others, 8090, protocol) == ""
    finally:
        bob.sh("ip route del 127.0.0.0/8; ip addr add 127.0.0.1/8 dev lo")


def test_anothers_name_server_is_silent(street: Street) -> None:
    query = (
        "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(float(sys.argv[2]));"
        "s.connect((sys.argv[1], 53));"
        "s.send(bytes.fromhex('abcd01000001000000000000') + b'\\3web\\0\\0\\1\\0\\1');"
        "print(s.recv(512)[:2].hex())"
    )
    own = street.inside(street.bob, *PYTHON, query, street.gateway(street.bob), "8")
    assert own.stdout == "abcd\n"
    for asker in (street.netns(street.bob), street.world.host, street.world.outside):
        done = asker.run(sys.executable, "-I", "-S", "-c", query, street.gateway(street.ada), "1")
        assert done.stdout == ""


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
@pytest.mark.parametrize("at", ["0.0.0.0", "127.0.0.1", HOST, "::"])
def test_a_local_services_port_is_not_taken_over(street: Street, at: str, protocol: str) -> None:
    asked = {"::": "127.0.0.1", "0.0.0.0": HOST}.get(at, at)
    with street.world.host.serving("the service", at, 18_200, protocol):
        for publish in ("18200:80", f"{HOST}:18200:80", "127.0.0.1:18200:80", "18199-18201:80-82"):
            if publish.startswith((HOST, "127")) and at in {HOST, "127.0.0.1"} - {publish[:-9]}:
                continue  # another address: that is no conflict
            ran = street.run(street.bob, "-p", f"{publish}/{protocol}")
            assert ran.returncode == 125, publish
            assert "18200" in ran.stderr
            assert street.world.host.ask(asked, 18_200, protocol) == "the service"


def test_what_is_published_is_nobody_elses(street: Street) -> None:
    """Neither another's container nor a program of the host's gets it, and nobody is told whose it is."""
    daemon, host = street.world.daemon, street.world.host
    publish = ("-p", "18210:80", "-p", "127.0.0.1:18211:80", "-p", "18212:80/udp")
    daemon.docker(
        "run", "-d", "--name", "shop", *publish, "busybox", "sleep", "60", user=street.ada
    )
    try:
        for wanted in ("18210:80", f"{HOST}:18210:80", "127.0.0.1:18210:80", "18211:80"):
            ran = street.run(street.bob, "-p", wanted)
            assert ran.returncode == 125
            assert "taken on this host" in ran.stderr
            assert street.ada.name not in ran.stderr
        assert street.run(street.bob, "-p", "18212:80/udp").returncode == 125
        assert street.run(street.bob, "-p", "18212:80/tcp").returncode == 0  # that is free
        bind = (
            "import socket, sys; socket.socket(type=int(sys.argv[1])).bind(('', int(sys.argv[2])))"
        )
        for kind, port in (("1", "18210"), ("2", "18212")):
            done = host.run(sys.executable, "-c", bind, kind, port, user=street.bob)
            assert "Address already in use" in done.stderr
        own = street.run(street.ada, "-p", "18210:80")
        assert "container shop" in own.stderr
    finally:
        daemon.docker("rm", "-f", "shop", user=street.ada)
    assert street.run(street.bob, "-p", "18210:80").returncode == 0


def test_what_is_published_on_loopback_stays_there(street: Street) -> None:
    daemon, outside = street.world.daemon, street.world.outside
    publish = ("-p", "127.0.0.1:18220:80", "-p", "18221:80")
    run = ("run", "-d", "--name", "shop", *publish, "busybox", "sh", "-c", WEB, "ada")
    daemon.docker(*run, user=street.ada)
    forward = "ip route add 127.0.0.0/8 via {0} dev wire; ip addr flush dev lo"
    outside.sh("echo 1 >/proc/sys/net/ipv4/conf/wire/route_localnet;" + forward.format(HOST))
    asked = ("curl", "-s", "-m", "1")
    try:
        (network,) = json.loads(daemon.docker("inspect", "shop", user=street.ada).stdout)[0][
            "NetworkSettings"
        ]["Networks"].values()
        assert outside.run(*asked, f"http://{HOST}:18221").stdout == "ada\n"
        for address in ("127.0.0.1:18220", f"{HOST}:18220", f"{network['IPAddress']}:80"):
            assert outside.run(*asked, f"http://{address}").stdout == "", address
            assert street.fetch(street.bob, *address.split(":")) == ""  # type: ignore[arg-type]
        assert street.world.host.run(*asked, "http://127.0.0.1:18220").stdout == "ada\n"
    finally:
        outside.sh("ip route del 127.0.0.0/8; ip addr add 127.0.0.1/8 dev lo")
        daemon.docker("rm", "-f", "shop", user=street.ada)


def test_the_hosts_own_firewall_has_the_last_word(street: Street) -> None:
    """What an administrator drops on the way to containers is dropped, whatever a user publishes."""
    daemon, host, outside = street.world.daemon, street.world.host, street.world.outside
    run = ("run", "-d", "--name", "shop", "-p", "18230:80", "-p", "18231:80", "busybox")
    daemon.docker(*run, "sh", "-c", WEB, "ada", user=street.ada)
    rules = (
        "add table inet own; add chain inet own f { type filter hook forward priority 10; policy accept; };"
        "add rule inet own f iifname wire meta l4proto tcp ct original proto-dst 18231 drop"
    )
    host.sh(f"nft '{rules}'")
    try:
        fetch = [
            outside.run("curl", "-s", "-m", "1", f"http://{HOST}:{port}").stdout
            for port in (18_230, 18_231)
        ]
        assert fetch == ["ada\n", ""]
    finally:
        host.sh("nft delete table inet own")
        daemon.docker("rm", "-f", "shop", user=street.ada)


def test_a_person_of_the_host_reaches_what_is_published_and_their_own(street: Street) -> None:
    host, ada = street.world.host, street.address(street.ada)
    asked = ("curl", "-s", "-m", "1", f"http://{ada}")
    assert host.run(*asked, user=street.ada).stdout == f"{street.ada.name}\n"
    assert host.run(*asked, user=street.bob).stdout == ""


def test_a_port_that_changed_hands_is_the_new_owners_also_for_who_asked_before(
    street: Street,
) -> None:
    """Whoever keeps sending datagrams from one port is led to who publishes now, not to who did."""
    daemon, outside = street.world.daemon, street.world.outside
    echo = "import socket, sys; s = socket.socket(type=socket.SOCK_DGRAM); s.bind(('', 53))\nwhile True: s.sendto(sys.argv[1].encode(), s.recvfrom(99)[1])"
    ask = (
        "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(0.5); s.bind(('', 40000));"
        f"s.connect(('{HOST}', 18240)); s.send(b'?'); print(s.recv(99).decode())"
    )
    told = []
    try:
        for user in (street.ada, street.bob):
            run = ("run", "-d", "--name", "shop", "-p", "18240:53/udp", *MOUNTS, "busybox")
            daemon.docker(*run, *PYTHON, echo, user.name, user=user)
            tries = (outside.run(sys.executable, "-c", ask).stdout.strip() for _ in range(10))
            told.append(next(filter(None, tries), ""))
            daemon.docker("rm", "-f", "shop", user=user)
            if user is street.ada:  # her next container gets the address
                run = ("run", "-d", "--name", "next", *MOUNTS, "busybox")
                daemon.docker(*run, *PYTHON, echo, "the wrong one", user=user)
    finally:
        for user in (street.ada, street.bob):
            daemon.docker("rm", "-f", "shop", "next", user=user, check=False)
    assert told == [street.ada.name, street.bob.name]


LOOK_UP = """
import socket, sys
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.settimeout(6)
sock.connect(("127.0.0.11", 53))
name = b"".join(bytes([len(label)]) + label.encode() for label in sys.argv[1].split("."))
sock.send(bytes.fromhex("abcd01000001000000000000") + name + b"\\0\\0\\1\\0\\1")
print(".".join(map(str, sock.recv(512)[-4:])))
"""


def test_names_are_of_ones_own_networks_whatever_the_hosts_firewall_takes_in(
    street: Street,
) -> None:
    """Two networks of the same name, a host that takes nothing in: names are not asked for over the wire."""
    daemon, host = street.world.daemon, street.world.host
    address = {}
    for user in (street.ada, street.bob):
        daemon.docker("network", "create", "lane", user=user)
        for name in ("look", user.name):
            run = ("run", "-d", "--name", name, "--network", "lane", *MOUNTS, "busybox")
            daemon.docker(*run, "sleep", "600", user=user)
        form = "{{.NetworkSettings.Networks.lane.IPAddress}}"
        told = daemon.docker("inspect", "-f", form, user.name, user=user)
        address[user] = told.stdout.strip()
    host.sh(
        "nft 'add table inet own; add chain inet own i { type filter hook input priority 10; };"
        " add rule inet own i iifname != lo drop'"
    )
    try:
        for asker in (street.ada, street.bob):
            for asked in (street.ada, street.bob):
                look_up = ("exec", "look", *PYTHON, LOOK_UP)
                told = daemon.docker(*look_up, asked.name, user=asker, check=False)
                assert (told.stdout.strip() == address[asked]) is (asked is asker)
    finally:
        host.sh("nft delete table inet own")
        for user in (street.ada, street.bob):
            daemon.docker("rm", "-f", "look", user.name, user=user)
            daemon.docker("network", "rm", "lane", user=user)


@pytest.mark.parametrize("length", [64, 12, 3])
def test_anothers_network_does_not_exist(street: Street, length: int) -> None:
    """By its id and the beginning of it: word for word what is said of one that nobody has (attacks.md 16, 17)."""
    daemon, ada, bob = street.world.daemon, street.ada, street.bob
    made = daemon.docker("network", "create", "private", user=ada).stdout.strip()
    target, missing = made[:length], "f" * length
    try:
        for words in (
            ("network", "inspect", "{}"),
            ("network", "rm", "{}"),
            ("network", "connect", "{}", "web"),
            ("network", "disconnect", "{}", "web"),
            ("run", "--rm", "--name", "x{}", "--network", "{}", "busybox", "true"),
            ("ps", "-a", "--filter", "network={}"),
            ("network", "ls", "--filter", "id={}"),
            ("events", "--since", "0", "--until", "0s", "--filter", "network={}"),
            ("create", "--name", "y{}", "--network", "{}", "busybox", "true"),
        ):
            told, unknown = (
                daemon.docker(*(word.format(name) for word in words), user=bob, check=False)
                for name in (target, missing)
            )
            assert told.returncode == unknown.returncode, words
            assert told.stderr.replace(target, "X") == unknown.stderr.replace(missing, "X")
            if words[:2] == ("network", "ls"):  # a short id is part of one's own by chance
                assert "private" not in told.stdout
            elif words[0] != "create":  # which tells the id of what it made
                assert told.stdout.replace(target, "X") == unknown.stdout.replace(missing, "X")
        daemon.docker("network", "prune", "-f", user=bob)
        assert daemon.docker("network", "inspect", "private", user=ada).returncode == 0
    finally:
        for user in (ada, bob):
            made_ones = daemon.docker("ps", "-aqf", "status=created", user=user).stdout.split()
            daemon.docker("rm", *made_ones, user=user, check=False)
        daemon.docker("network", "rm", "private", user=ada)


def test_one_who_makes_networks_without_end_leaves_others_theirs(street: Street) -> None:
    daemon, ada, bob = street.world.daemon, street.ada, street.bob
    made = [f"n{number}" for number in range(80)]
    try:
        ended = next(
            number
            for number, name in enumerate(made)
            if daemon.docker("network", "create", name, user=bob, check=False).returncode
        )
        assert 0 < ended < len(made)
        told = daemon.docker("network", "create", "more", user=bob, check=False)
        assert "are allowed" in told.stderr
        for subnet in ("10.208.0.0/12", "10.208.0.0/13", "0.0.0.0/0", f"{HOST}/30"):
            wide = ("network", "create", "--subnet", subnet, "wide")
            assert daemon.docker(*wide, user=ada, check=False).returncode
        daemon.docker("network", "create", "mine", user=ada)
        daemon.docker("run", "--rm", "--network", "mine", "busybox", "true", user=ada)
    finally:
        daemon.docker("network", "rm", *made, user=bob, check=False)
        daemon.docker("network", "rm", "mine", user=ada, check=False)


def test_where_networks_have_ipv6_it_leads_nobody_to_another(street: Street) -> None:
    daemon, host = street.world.daemon, street.world.host
    address, gateway, inside = {}, {}, {}
    run = ("run", "-d", "--name", "six", "--network", "six", "busybox", "sleep", "600")
    try:
        for user in (street.ada, street.bob):
            daemon.docker("network", "create", "--ipv6", "six", user=user)
            daemon.docker(*run, user=user)
            shown = json.loads(daemon.docker("inspect", "six", user=user).stdout)[0]
            there = shown["NetworkSettings"]["Networks"]["six"]
            address[user], gateway[user] = there["GlobalIPv6Address"], there["IPv6Gateway"]
            inside[user] = street.world.container("six", user)
        ada, bob = inside[street.ada], inside[street.bob]
        shown_links = host.sh("ip -6 -o addr show scope link | grep -E ' bh' || true")
        link_local = [line.split()[3].partition("/")[0] for line in shown_links.splitlines()]
        with ada.serving("ada", "::", 8092), host.serving("host", "::", 8093):
            assert host.ask(address[street.ada], 8092) == "ada"
            assert host.ask(address[street.ada], 8092, user=street.bob) == ""
            assert bob.ask(address[street.ada], 8092) == ""
            assert bob.ask(gateway[street.bob], 8093) == "host"
            assert bob.ask(gateway[street.ada], 8093) == ""
            heard = [bob.ask(f"{one}%eth0", 8093) for one in link_local]
            assert heard.count("host") <= 1  # at most at its own gateway
        with host.serving("loopback", "::1", 8094):
            assert bob.ask("::1", 8094) == bob.ask(gateway[street.bob], 8094) == ""
    finally:
        for user in (street.ada, street.bob):
            daemon.docker("rm", "-f", "six", user=user, check=False)
            daemon.docker("network", "rm", "six", user=user, check=False)

"""Networks that people make, through the real docker command: as an administrator and as a user."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import attrs
import pytest

from tests.support.accounts import People, User
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

SERVE = "mkdir /w; hostname >/w/index.html; exec httpd -f -p 8080 -h /w"


@attrs.frozen
class Person:
    """One who runs docker; ``user`` is None for root."""

    daemon: Daemon
    user: User | None

    def __call__(self, *arguments: str) -> str:
        return self.daemon.docker(*arguments, user=self.user).stdout.strip()

    def refused(self, *arguments: str) -> str:
        done = self.daemon.docker(*arguments, user=self.user, check=False)
        assert done.returncode, done.stdout
        return done.stderr.strip()

    def inspect(self, *what: str) -> dict[str, Any]:
        shown = json.loads(self(*(what if len(what) > 1 else ("inspect", *what))))
        found: dict[str, Any] = shown[0]
        return found

    def networks_of(self, container: str) -> dict[str, Any]:
        found: dict[str, Any] = self.inspect(container)["NetworkSettings"]["Networks"]
        return found

    def serve(self, name: str, *options: str) -> str:
        """A container that tells its host name at port 8080, and does so already."""
        made = self("run", "-d", "--name", name, "-h", name, *options, "bb", "sh", "-c", SERVE)
        for _ in range(50):
            if self.ask(name, "127.0.0.1") == name:
                return made
        pytest.fail(f"{name} does not serve: {self('logs', name)}")

    def ask(self, container: str, host: str, port: int = 8080) -> str:
        """What a server says to a container; empty when it is not reached. A static program looks up no names."""
        if host[0] != "[" and (not host[0].isdigit() or "." not in host):
            host = next(iter(self.resolves(container, host)), "192.0.2.1")
        argv = ("exec", container, "timeout", "1", "wget", "-qO-", f"http://{host}:{port}/")
        return self.daemon.docker(*argv, user=self.user, check=False).stdout.strip()

    def resolves(self, container: str, name: str) -> list[str]:
        argv = ("exec", container, "nslookup", name)
        said = self.daemon.docker(*argv, user=self.user, check=False).stdout
        answer = said.partition("\n\n")[2]
        return sorted(
            line.rpartition(" ")[2] for line in answer.splitlines() if line.startswith("Address")
        )


@pytest.fixture(scope="module")
def engine(daemon: Daemon, two_users: People) -> Daemon:
    for user in (None, two_users.ada, two_users.bob):
        daemon.import_busybox("bb", user=user)
    return daemon


@pytest.fixture(params=["admin", "user"])
def person(request: pytest.FixtureRequest, engine: Daemon, two_users: People) -> Iterator[Person]:
    """Who has nothing before and nothing after."""
    made = Person(engine, None if request.param == "admin" else two_users.ada)
    yield made
    clear(made)


def default_route(person: Person, container: str) -> str:
    routes = person("exec", container, "ip", "route").splitlines()
    return next((line for line in routes if line.startswith("default")), "")


def clear(person: Person) -> None:
    containers = person("ps", "-aq").split()
    if containers:
        person("rm", "-f", "-v", *containers)
    person("network", "prune", "-f")


def test_a_network_is_made_listed_looked_at_and_removed(person: Person) -> None:
    made = person("network", "create", "--label", "of=lab", "-o", "x=y", "--attachable", "back")
    assert len(made) == 64
    shown = person.inspect("network", "inspect", "back")
    assert (shown["Id"], shown["Driver"], shown["Scope"]) == (made, "bridge", "local")
    assert (shown["Labels"], shown["Options"]) == ({"of": "lab"}, {"x": "y"})
    assert (shown["Internal"], shown["Attachable"], shown["EnableIPv6"]) == (False, True, False)
    assert shown["IPAM"]["Driver"] == "default"
    (config,) = shown["IPAM"]["Config"]
    assert config["Subnet"].endswith("/24")
    assert person("network", "ls", "-q", "--no-trunc", "-f", "name=back") == made
    for kept, filter_ in (
        (True, "id=" + made[:8]),
        (True, "driver=bridge"),
        (True, "type=custom"),
        (False, "type=builtin"),
        (True, "label=of"),
        (True, "label=of=lab"),
        (False, "label=of=x"),
        (True, "dangling=true"),
        (False, "dangling=false"),
        (True, "scope=local"),
        (False, "name=none"),
    ):
        names = person("network", "ls", "--format", "{{.Name}}", "-f", filter_).split()
        assert ("back" in names) is kept, filter_
    assert "network with name back already exists" in person.refused("network", "create", "back")
    assert person("network", "rm", "back") == "back"
    assert "network back not found" in person.refused("network", "inspect", "back")


def test_what_everybody_has_stays(person: Person) -> None:
    for name in ("bridge", "host", "none"):
        told = person.refused("network", "rm", name)
        assert f"{name} is a pre-defined network and cannot be removed" in told
        told = person.refused("network", "create", name)
        assert f"operation is not permitted on predefined {name} network" in told
    assert 'plugin "macvlan" not found' in person.refused("network", "create", "-d", "macvlan", "x")


def test_containers_of_a_network_find_each_other_by_name(person: Person) -> None:
    person("network", "create", "back")
    person.serve("web", "--network", "back", "--network-alias", "site")
    person.serve("two", "--network", "back", "--network-alias", "site")
    person("network", "create", "other")
    person.serve("far", "--network", "other")
    web = person.inspect("web")
    address = web["NetworkSettings"]["Networks"]["back"]["IPAddress"]
    for name in ("web", "web.back", web["Id"][:12]):
        assert person.ask("two", name) == "web", name
    assert len(person.resolves("two", "site")) == 2
    assert {"site", web["Id"][:12]} <= set(web["NetworkSettings"]["Networks"]["back"]["Aliases"])
    # Networks of one owner are apart, by address and by name.
    assert person.ask("far", address) == ""
    assert person.ask("far", "web") == ""
    told = person.refused("network", "rm", "back")
    assert "has active endpoints" in told
    members = person.inspect("network", "inspect", "back")["Containers"]
    assert {one["Name"] for one in members.values()} == {"web", "two"}
    person("rm", "-f", "web", "two")
    assert person("network", "rm", "back") == "back"


def test_a_network_that_is_not_there_is_told_at_start(person: Person) -> None:
    told = person.refused("run", "--rm", "--network", "nowhere", "bb", "true")
    assert "network nowhere not found" in told
    assert "Unable to find image" not in told


def test_a_container_is_connected_and_disconnected_while_it_runs(person: Person) -> None:
    for name in ("back", "front"):
        person("network", "create", name)
    person.serve("db", "--network", "back")
    person.serve("web", "--network", "front")
    assert person.ask("web", "db") == ""
    person("network", "connect", "--alias", "site", "back", "web")
    assert person.ask("web", "db") == "db"
    assert person.ask("db", "site") == "web"
    assert set(person.networks_of("web")) == {"back", "front"}
    links = person("exec", "web", "ls", "/sys/class/net").split()
    assert {"eth0", "eth1"} <= set(links)
    address = person.networks_of("web")["back"]["IPAddress"]
    assert f"{address}\tweb" in person("exec", "web", "cat", "/etc/hosts")
    told = person.refused("network", "connect", "back", "web")
    assert "endpoint with name web already exists in network back" in told
    person("network", "disconnect", "back", "web")
    assert person.ask("web", "db") == ""
    assert set(person.networks_of("web")) == {"front"}
    assert address not in person("exec", "web", "cat", "/etc/hosts")
    assert "eth1" not in person("exec", "web", "ls", "/sys/class/net").split()
    told = person.refused("network", "disconnect", "back", "web")
    assert "is not connected to network back" in told
    told = person.refused("network", "disconnect", "-f", "back", "web")
    assert "is not connected to network back" in told


def test_a_container_that_does_not_run_is_connected_as_well(person: Person) -> None:
    for name in ("back", "front"):
        person("network", "create", name)
    person("create", "--name", "web", "--network", "front", "bb", "sleep", "1000")
    person("network", "connect", "back", "web")
    assert {name: one["IPAddress"] for name, one in person.networks_of("web").items()} == {
        "back": "",
        "front": "",
    }
    person("start", "web")
    assert all(one["IPAddress"] for one in person.networks_of("web").values())
    person("stop", "-t", "0", "web")
    person("network", "disconnect", "front", "web")
    person("start", "web")
    assert set(person.networks_of("web")) == {"back"}
    assert "eth1" not in person("exec", "web", "ls", "/sys/class/net").split()
    person("stop", "-t", "0", "web")
    person("network", "rm", "back")
    assert "network back not found" in person.refused("start", "web")
    person("network", "disconnect", "-f", "back", "web")
    person("network", "connect", "front", "web")
    person("start", "web")


def test_a_container_that_was_taken_off_every_network_stays_off(person: Person) -> None:
    person("network", "create", "back")
    person("run", "-d", "--name", "web", "-p", "8080", "bb", "sleep", "1000")
    person("network", "disconnect", "bridge", "web")
    for _ in range(2):
        assert person.networks_of("web") == {}
        links = person("exec", "web", "ls", "/sys/class/net").split()
        assert "lo" in links
        assert "eth0" not in links
        person("restart", "-t", "0", "web")
    person("network", "connect", "back", "web")
    assert set(person.networks_of("web")) == {"back"}
    assert person("port", "web")
    person("run", "-d", "--name", "alone", "--network", "none", "bb", "sleep", "1000")
    told = person.refused("network", "connect", "back", "alone")
    assert "with one of the networks in private (none) mode" in told


def test_the_way_out_is_the_first_network_by_name_that_has_one(person: Person) -> None:
    person("network", "create", "bbb")
    person("network", "create", "aaa")
    person("network", "create", "--internal", "a-inside")
    person("run", "-d", "--name", "web", "--network", "bbb", "-p", "8080", "bb", "sh", "-c", SERVE)

    def route() -> str:
        return default_route(person, "web")

    def published() -> str:
        port = person("port", "web", "8080/tcp").splitlines()[0].rpartition(":")[2]
        done = person.daemon.run(["curl", "-sS", "-m", "2", f"http://127.0.0.1:{port}/"])
        return f"{port} {bool(done.stdout)}"

    before = published()
    assert before.endswith("True")
    gateway = {
        name: person.inspect("network", "inspect", name)["IPAM"]["Config"][0]["Gateway"]
        for name in ("aaa", "bbb")
    }
    assert gateway["bbb"] in route()
    person("network", "connect", "a-inside", "web")
    assert gateway["bbb"] in route()
    person("network", "connect", "aaa", "web")
    assert gateway["aaa"] in route()
    assert published() == before
    person("network", "disconnect", "aaa", "web")
    assert gateway["bbb"] in route()
    assert published() == before
    person("network", "disconnect", "bbb", "web")
    assert route() == ""
    assert person.daemon.docker("port", "web", user=person.user).stdout == ""
    person("network", "connect", "aaa", "web")
    assert published().endswith("True")


def test_an_internal_network_leads_nowhere(person: Person) -> None:
    person("network", "create", "--internal", "inside")
    person.serve("db", "--network", "inside", "-p", "8080")
    person.serve("web", "--network", "inside")
    assert person.ask("web", "db") == "db"
    shown = person.inspect("db")["NetworkSettings"]
    assert not any(shown["Ports"].values())
    assert shown["Networks"]["inside"]["Gateway"] == ""
    assert default_route(person, "web") == ""


def test_addresses_are_asked_for_where_the_subnet_was_named(person: Person) -> None:
    ranges = (
        "--subnet",
        "10.211.7.0/24",
        "--gateway",
        "10.211.7.9",
        "--ip-range",
        "10.211.7.64/26",
    )
    person("network", "create", *ranges, "--aux-address", "router=10.211.7.64", "named")
    (config,) = person.inspect("network", "inspect", "named")["IPAM"]["Config"]
    assert config == {
        "Subnet": "10.211.7.0/24",
        "IPRange": "10.211.7.64/26",
        "Gateway": "10.211.7.9",
        "AuxiliaryAddresses": {"router": "10.211.7.64"},
    }
    told = person.refused("network", "create", "--subnet", "10.211.7.128/25", "again")
    assert "Pool overlaps with other one on this address space" in told
    sleep = ("bb", "sleep", "1000")
    person("run", "-d", "--name", "any", "--network", "named", *sleep)
    assert person.networks_of("any")["named"]["IPAddress"] == "10.211.7.65"
    person("run", "-d", "--name", "web", "--network", "named", "--ip", "10.211.7.66", *sleep)
    assert person.networks_of("web")["named"]["IPAddress"] == "10.211.7.66"
    # It is kept for it while it does not run.
    person("stop", "-t", "0", "web")
    person("run", "-d", "--name", "more", "--network", "named", *sleep)
    assert person.networks_of("more")["named"]["IPAddress"] == "10.211.7.67"
    asked = ("run", "-d", "--network", "named", "--ip", "10.211.7.66", *sleep)
    assert "Address already in use" in person.refused(*asked)
    person("start", "web")
    assert person.networks_of("web")["named"]["IPAddress"] == "10.211.7.66"
    person("network", "create", "plain")
    for network, why in (
        ("plain", "only when connecting to networks with user configured subnets"),
        ("bridge", "user specified IP address is supported on user defined networks only"),
    ):
        told = person.refused("create", "--network", network, "--ip", "10.211.7.70", *sleep)
        assert why in told
    told = person.refused("create", "--network", "named", "--ip", "10.212.7.70", *sleep)
    assert "It does not belong to any of this network's subnets" in told


def test_containers_of_one_owner_share_a_network_namespace(person: Person) -> None:
    person.serve("web")
    asked = (
        "run",
        "--rm",
        "--network",
        "container:web",
        "bb",
        "wget",
        "-qO-",
        "http://127.0.0.1:8080/",
    )
    assert person(*asked) == "web"
    told = person.refused("run", "--rm", "--network", "container:nobody", "bb", "true")
    assert "No such container: nobody" in told
    person("stop", "-t", "0", "web")
    told = person.refused("run", "--rm", "--network", "container:web", "bb", "true")
    assert "cannot join network of a non running container" in told
    person("start", "web")
    person("run", "-d", "--name", "side", "--network", "container:web", "bb", "sleep", "1000")
    assert person.networks_of("side") == {}
    told = person.refused("network", "connect", "bridge", "side")
    assert "container sharing network namespace with another container" in told


def test_networks_are_pruned_by_label_and_use(person: Person) -> None:
    for name, label in (("one", "a=1"), ("two", "a=2"), ("used", "a=1")):
        person("network", "create", "--label", label, name)
    person("run", "-d", "--network", "used", "bb", "sleep", "1000")
    assert person("network", "prune", "-f", "--filter", "label=a=1").split()[-1] == "one"
    names = person("network", "ls", "--format", "{{.Name}}").split()
    assert {"two", "used"} <= set(names)
    assert "one" not in names


def test_networks_and_their_containers_are_events(person: Person) -> None:
    person("network", "create", "back")
    person("run", "--rm", "--network", "back", "bb", "true")
    person("network", "rm", "back")
    told = person(
        "events",
        "--since",
        "0",
        "--until",
        f"{time.time() + 0.2:.3f}",
        "--filter",
        "type=network",
        "--filter",
        "network=back",
        "--format",
        "{{.Action}}",
    )
    assert told.split()[-4:] == ["create", "connect", "disconnect", "destroy"]


def test_options_of_a_network_are_acted_on_or_refused(person: Person) -> None:
    person(
        "network",
        "create",
        "-o",
        "com.docker.network.driver.mtu=1400",
        "-o",
        "com.docker.network.bridge.enable_icc=false",
        "apart",
    )
    person.serve("web", "--network", "apart")
    person.serve("two", "--network", "apart")
    assert person("exec", "web", "cat", "/sys/class/net/eth0/mtu") == "1400"
    assert person.ask("two", person.networks_of("web")["apart"]["IPAddress"]) == ""
    person.refused("network", "create", "-o", "com.docker.network.bridge.name=br7", "x")
    told = person.refused("network", "create", "-o", "com.docker.network.driver.mtu=many", "x")
    assert "invalid value for com.docker.network.driver.mtu" in told


def test_people_have_networks_of_their_own(engine: Daemon, two_users: People) -> None:
    ada, bob = Person(engine, two_users.ada), Person(engine, two_users.bob)
    made = ada("network", "create", "back")
    bob("network", "create", "back")
    try:
        ada.serve("web", "--network", "back")
        bob.serve("two", "--network", "back")
        address = ada.networks_of("web")["back"]["IPAddress"]
        assert bob.ask("two", "web") == ""
        assert bob.ask("two", address) == ""
        for asked in (
            ("network", "inspect", made),
            ("network", "rm", made),
            ("network", "connect", made, "two"),
        ):
            assert "not found" in bob.refused(*asked)
        told = bob.refused("run", "--rm", "--network", made, "bb", "true")
        assert "not found" in told
        told = bob.refused("network", "create", "--subnet", "192.0.2.0/24", "mine")
        assert "refused by the rule subnet" in told
        container = ada.inspect("web")["Id"]
        told = bob.refused("run", "--rm", "--network", f"container:{container}", "bb", "true")
        assert "No such container" in told
        assert Person(engine, None).inspect("network", "inspect", made)["Name"] == "back"
    finally:
        clear(ada)
        clear(bob)


def test_a_network_with_ipv6_speaks_it_inside_outside_and_through_published_ports(
    person: Person,
) -> None:
    subnets = ("--subnet", "10.211.9.0/24", "--subnet", "fdba:5e00:9::/64")
    person("network", "create", "--ipv6", *subnets, "six")
    config = person.inspect("network", "inspect", "six")["IPAM"]["Config"]
    assert [one["Gateway"] for one in config] == ["10.211.9.1", "fdba:5e00:9::1"]
    person("network", "create", "--ipv6", "chosen")
    chosen = person.inspect("network", "inspect", "chosen")
    assert chosen["EnableIPv6"]
    assert chosen["IPAM"]["Config"][1]["Subnet"].startswith("fdb")
    person("network", "create", "four")
    person.serve("web", "--network", "six", "--ip6", "fdba:5e00:9::77", "-p", "8080")
    person.serve("two", "--network", "six")
    person.serve("far", "--network", "chosen")
    person.serve("old", "--network", "four")
    shown = person.networks_of("web")["six"]
    assert shown["GlobalIPv6Address"] == "fdba:5e00:9::77"
    assert (shown["GlobalIPv6PrefixLen"], shown["IPv6Gateway"]) == (64, "fdba:5e00:9::1")
    assert "fdba:5e00:9::77\tweb" in person("exec", "web", "cat", "/etc/hosts")
    assert person.ask("two", "[fdba:5e00:9::77]") == "web"
    assert person.ask("far", "[fdba:5e00:9::77]") == ""
    ports = {line.rpartition(":") for line in person("port", "web", "8080/tcp").splitlines()}
    (number,) = {port for _, _, port in ports}
    assert {address for address, _, _ in ports} == {"0.0.0.0", "[::]"}
    for asker, address in (("far", "fdba:5e00:9::1"), ("two", "fdba:5e00:9::1")):
        assert person.ask(asker, f"[{address}]", int(number)) == "web", asker
    asked = ["curl", "-sS", "-m", "2", f"http://[fdba:5e00:9::1]:{number}/"]
    assert person.daemon.run(asked).stdout.strip() == "web"
    assert person.ask("old", "[fdba:5e00:9::1]", int(number)) == ""
    person("network", "connect", "four", "two")
    assert person.ask("two", "[fdba:5e00:9::77]") == "web"


def test_networks_and_who_is_on_them_outlive_the_daemon(engine: Daemon, two_users: People) -> None:
    ada = Person(engine, two_users.ada)
    subnet = ("--subnet", "10.211.11.0/24", "--subnet", "fdba:5e00:b::/64", "--ipv6")
    ada("network", "create", *subnet, "--label", "a=b", "back")
    ada("network", "create", "--internal", "inside")
    before = ada.inspect("network", "inspect", "back")
    ada.serve("web", "--network", "back", "--network-alias", "site", "-p", "8080")
    ada.serve("two", "--network", "inside")
    ada("network", "connect", "inside", "web")
    kept = ("--network", "back", "--ip", "10.211.11.9", "bb", "sleep", "1000")
    ada("create", "--name", "kept", *kept)
    networks, port = ada.networks_of("web"), ada("port", "web", "8080/tcp").splitlines()[0]
    try:
        engine.kill()
        engine.start()
        assert ada.networks_of("web") == networks
        shown = ada.inspect("network", "inspect", "back")
        assert shown | {"Containers": {}} == before
        assert ada.ask("two", "web") == "web"
        assert len(ada.resolves("web", "site")) == 2
        number = port.rpartition(":")[2]
        asked = ["curl", "-sS", "-m", "2", f"http://127.0.0.1:{number}/"]
        assert engine.run(asked).stdout.strip() == "web"
        asked[-1] = f"http://[fdba:5e00:b::1]:{number}/"
        assert engine.run(asked).stdout.strip() == "web"
        for _ in range(8):
            ada("run", "-d", "--network", "back", "bb", "sleep", "1000")
        taken = {
            one["IPv4Address"]
            for one in ada.inspect("network", "inspect", "back")["Containers"].values()
        }
        assert "10.211.11.9/24" not in taken
        ada("start", "kept")
        assert ada.networks_of("kept")["back"]["IPAddress"] == "10.211.11.9"
        ada("network", "disconnect", "back", "web")
        assert set(ada.networks_of("web")) == {"inside"}
    finally:
        clear(ada)


def test_links_on_the_default_bridge_tell_names_and_variables(person: Person) -> None:
    person.serve("db", "-e", "FOO=1", "--expose", "8080")
    linked = ("--link", "db:store")
    told = person("run", "--rm", "--name", "web", *linked, "bb", "sh", "-c", "env; cat /etc/hosts")
    address = person.networks_of("db")["bridge"]["IPAddress"]
    for line in (
        "STORE_NAME=/web/store",
        "STORE_ENV_FOO=1",
        f"STORE_PORT=tcp://{address}:8080",
        f"STORE_PORT_8080_TCP_ADDR={address}",
        f"{address}\tstore",
        f"{address}\tdb",
    ):
        assert line in told.splitlines(), told
    person("create", "--name", "web", *linked, "bb", "env")
    person("stop", "-t", "0", "db")
    told = person.refused("start", "-a", "web")
    assert "Cannot link to a non running container: /db AS /web/store" in told
    person("rm", "--link", "web/store")
    assert "STORE" not in person("start", "-a", "web")
    assert "could not get container for nobody" in person.refused(
        "run", "--rm", "--link", "nobody:x", "bb", "true"
    )

"""network/names.py: who is called what, and for whom."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import attrs
import pytest

from supervisor.network.names import Address, Asker, NamedEndpoint, NamedNetwork, Names

FRONT, BACK, DEFAULT, INNER = 1, 2, 3, 4
WEB, STORE, TWIN = "a" * 64, "b" * 64, "c" * 64


def network(number: int, name: str, *, named: bool = True, internal: bool = False) -> NamedNetwork:
    subnets = (IPv4Network(f"10.0.{number}.0/24"), IPv6Network(f"fd00:{number}::/64"))
    return NamedNetwork(number, name, subnets, named, internal)


def endpoint(number: int, container: str, name: str, last: int, *aliases: str) -> NamedEndpoint:
    return NamedEndpoint(number, container, name, (v4(number, last),), aliases)


def v4(number: int, last: int) -> IPv4Address:
    return IPv4Address(f"10.0.{number}.{last}")


@pytest.fixture
def names() -> Names:
    found = Names()
    found.open(network(FRONT, "front"))
    found.open(network(BACK, "back.end"))
    found.open(network(DEFAULT, "bridge", named=False))
    found.open(network(INNER, "inner", internal=True))
    found.enter(endpoint(FRONT, WEB, "web", 2, "www", "shared"))
    found.enter(endpoint(FRONT, TWIN, "twin", 3, "shared"))
    found.enter(endpoint(BACK, STORE, "store", 2))
    return found


def asker(names: Names, number: int, last: int) -> Asker:
    found = names.asker(number, v4(number, last))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "name", ["web", "WEB", "web.", "www", "aaaaaaaaaaaa", "web.front", "Www.Front."]
)
def test_a_container_has_its_name_its_short_id_and_its_aliases(names: Names, name: str) -> None:
    assert names.addresses_of(asker(names, FRONT, 3), name) == (v4(FRONT, 2),)


@pytest.mark.parametrize("name", ["", "front", "we", "store", "store.back.end", "web.back.end"])
def test_what_is_on_other_networks_has_no_name(names: Names, name: str) -> None:
    assert names.addresses_of(asker(names, FRONT, 2), name) is None


def test_a_shared_alias_stands_for_all_that_have_it(names: Names) -> None:
    assert names.addresses_of(asker(names, FRONT, 2), "shared") == (v4(FRONT, 2), v4(FRONT, 3))
    names.leave(FRONT, WEB)
    assert names.addresses_of(asker(names, FRONT, 3), "shared") == (v4(FRONT, 3),)


def test_who_is_on_several_networks_gets_the_names_of_all_at_any_gateway(names: Names) -> None:
    names.enter(endpoint(BACK, WEB, "web", 9))
    for at in (asker(names, FRONT, 2), asker(names, BACK, 9)):
        assert names.addresses_of(at, "store") == (v4(BACK, 2),)
        assert names.addresses_of(at, "store.BACK.end") == (v4(BACK, 2),)
        assert names.addresses_of(at, "twin") == (v4(FRONT, 3),)
        assert names.addresses_of(at, "web.back.end") == (v4(BACK, 9),)
    assert names.addresses_of(asker(names, BACK, 9), "web") == (v4(FRONT, 2),)  # its first network
    names.leave(BACK, WEB)
    assert names.addresses_of(asker(names, FRONT, 2), "store") is None


def test_the_default_bridge_has_no_names_and_answers_for_the_others(names: Names) -> None:
    names.enter(endpoint(DEFAULT, STORE, "store", 2))
    names.enter(endpoint(DEFAULT, TWIN, "twin", 3))
    assert names.addresses_of(asker(names, DEFAULT, 2), "twin") is None
    assert names.addresses_of(asker(names, DEFAULT, 2), "twin.bridge") is None
    assert names.addresses_of(asker(names, DEFAULT, 3), "web") == (v4(FRONT, 2),)
    assert names.names_of(asker(names, DEFAULT, 2), v4(DEFAULT, 3)) is None


def test_only_who_can_be_on_a_network_is_an_asker_there(names: Names) -> None:
    assert names.asker(FRONT, v4(BACK, 2)) is None
    assert names.asker(9, v4(9, 2)) is None
    assert names.asker(FRONT, IPv6Address("fd00:2::1")) is None
    assert names.asker(FRONT, IPv6Address("fd00:1::7")) == Asker((FRONT,))
    assert names.addresses_of(asker(names, FRONT, 200), "web") == (v4(FRONT, 2),)


def test_addresses_have_names_on_the_askers_networks_alone(names: Names) -> None:
    assert names.names_of(asker(names, FRONT, 2), v4(FRONT, 3)) == ("twin.front",)
    assert names.names_of(asker(names, FRONT, 2), v4(FRONT, 9)) is None
    assert names.names_of(asker(names, FRONT, 2), v4(BACK, 2)) is None


def test_a_new_name_is_known_at_once_and_the_old_one_is_gone(names: Names) -> None:
    names.enter(endpoint(BACK, WEB, "web", 9))
    names.rename(WEB, "site")
    names.rename("d" * 64, "nobody")
    for number, last in ((FRONT, 3), (BACK, 2)):
        at = asker(names, number, last)
        assert names.addresses_of(at, "web") is None
        assert names.addresses_of(at, "site") is not None
    assert names.addresses_of(asker(names, FRONT, 3), "www") == (v4(FRONT, 2),)


def test_a_link_is_the_word_of_one_container_alone(names: Names) -> None:
    linked = attrs.evolve(endpoint(FRONT, TWIN, "twin", 3), links=(("DB", "web"), ("web", "twin")))
    names.enter(linked)
    assert names.addresses_of(asker(names, FRONT, 3), "db") == (v4(FRONT, 2),)
    assert names.addresses_of(asker(names, FRONT, 3), "web") == (v4(FRONT, 3),)
    assert names.addresses_of(asker(names, FRONT, 2), "db") is None


def test_questions_leave_where_one_network_leads_outside(names: Names) -> None:
    names.enter(endpoint(INNER, STORE, "store", 2))
    names.enter(endpoint(INNER, TWIN, "inner-twin", 3))
    assert not names.asks_outside(asker(names, INNER, 99))
    assert names.asks_outside(asker(names, INNER, 2))
    names.leave(BACK, STORE)
    assert not names.asks_outside(asker(names, INNER, 2))


def test_given_resolvers_are_asked_unless_the_asker_could_not_reach_them(names: Names) -> None:
    fine = ("192.0.2.1", "10.0.1.3", "2001:db8::1")
    never = ("127.0.0.53", "::1", "::ffff:127.0.0.1", "0.0.0.0", "224.0.0.1", "169.254.1.1")
    others = ("10.0.2.2", "fd00:2::5", "fe80::1%eth0", "nonsense", "::ffff:10.0.2.2")
    asking = attrs.evolve(endpoint(FRONT, WEB, "web", 2), servers=(*fine, *never, *others))
    names.enter(asking)
    assert names.servers_of(asker(names, FRONT, 2)) == fine
    assert names.servers_of(asker(names, FRONT, 3)) is None
    assert names.servers_of(Asker((FRONT,))) is None


def test_a_closed_network_leaves_nothing(names: Names) -> None:
    names.enter(endpoint(BACK, WEB, "web", 9))
    names.close(FRONT)
    names.close(FRONT)
    assert names.asker(FRONT, v4(FRONT, 2)) is None
    assert asker(names, BACK, 9) == Asker((BACK,), WEB)
    names.leave(BACK, WEB)
    names.leave(BACK, STORE)
    names.close(BACK)
    assert not names._networks_of


def test_an_address_that_went_to_another_is_the_others(names: Names) -> None:
    addresses: tuple[Address, ...] = (v4(FRONT, 3), ip_address("fd00:1::3"))
    names.enter(NamedEndpoint(FRONT, STORE, "store", addresses))
    names.leave(FRONT, TWIN)
    assert names.names_of(asker(names, FRONT, 2), addresses[0]) == ("store.front",)
    names.enter(NamedEndpoint(FRONT, STORE, "store", addresses[:1]))
    assert names.asker(FRONT, addresses[1]) == Asker((FRONT,))

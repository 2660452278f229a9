"""network/resolvers.py: whom a container may ask for names."""

from pathlib import Path

from supervisor.network.resolvers import choose, read

GATEWAY = "10.208.0.1"
SYSTEMD = "nameserver 192.0.2.53\nnameserver 192.0.2.54\nsearch lab.example\n"


def test_servers_elsewhere_are_told_behind_ours() -> None:
    chosen = choose("nameserver 192.0.2.1\nnameserver 192.0.2.2\n", SYSTEMD)
    assert chosen.upstream == ("192.0.2.1", "192.0.2.2")
    assert chosen.told(GATEWAY) == (GATEWAY, "192.0.2.1", "192.0.2.2")
    assert chosen.told(None) == ("192.0.2.1", "192.0.2.2")


def test_a_resolver_on_loopback_is_asked_by_us_alone() -> None:
    chosen = choose(
        "nameserver 127.0.0.53\noptions edns0 trust-ad\nsearch a.example b.example\n", ""
    )
    assert chosen.upstream == ("127.0.0.53",)
    assert chosen.told(GATEWAY) == (GATEWAY,)
    assert (chosen.options, chosen.search) == (("edns0", "trust-ad"), ("a.example", "b.example"))


def test_behind_systemd_resolved_its_own_servers_are_direct() -> None:
    chosen = choose("nameserver 127.0.0.53\n", SYSTEMD)
    assert chosen.upstream == ("127.0.0.53",)
    assert chosen.told(GATEWAY) == (GATEWAY, "192.0.2.53", "192.0.2.54")


def test_ipv6_and_broken_servers_are_no_use_to_a_container() -> None:
    chosen = choose(
        "nameserver 2001:db8::1\nnameserver fe80::1%eth0\nnameserver nonsense\nnameserver\n", ""
    )
    assert chosen.upstream == ("2001:db8::1", "fe80::1%eth0")
    assert chosen.direct == ()


def test_at_most_three_are_told() -> None:
    text = "".join(f"nameserver 192.0.2.{n}\n" for n in range(1, 6))
    assert choose(text, "").told(GATEWAY) == (GATEWAY, "192.0.2.1", "192.0.2.2")


def test_no_file_is_no_servers(tmp_path: Path) -> None:
    assert read(tmp_path / "a", tmp_path / "b") == choose("", "")

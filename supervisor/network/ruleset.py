"""The packet filter's table, as nft scripts. Pure: values in, text out.

Words: a **bridge** is one network's; the **people** of a bridge are the host users who may speak to what is behind it; a
**publication** maps a host port to a container's.

What the table does, and why each rule is there:

* ``guard`` looks at what a container sends before anything else does. It must come from an address behind its bridge
  (no spoofing), may not go to 127.0.0.0/8 (``route_localnet`` would let it reach the host's loopback services), and is
  IPv4 where the network has no IPv6: what is sent there is link-local mischief. Where it has, neighbours are asked for
  from the unspecified address too.
* ``arriving`` and ``sent_here`` map published ports, for packets to an address of the host. The first leaves 127.0.0.0/8
  alone: it runs before the kernel refuses such packets from a wire, so a neighbour could reach ports published on
  loopback only.
* ``forward`` lets in answers, what was published, and what goes from a bridge to itself (which the kernel sends here
  when ``bridge-nf-call-iptables`` is on). All else is dropped: other networks' containers, and neighbours on the wire
  who know our subnets. From an internal network nothing goes anywhere else.
* ``input`` keeps containers from the gateways of other bridges, and those of an internal network from all of the host
  but their gateway.
* ``output`` lets root and the bridge's own people in; other host users reach what is published, as anybody can.
* ``leaving`` gives packets the host's address: on their way out, and where a container reaches its own or a sibling's
  published port through the host, whose answer would otherwise not come back this way.

No rule is ever added for an owner, container or port: those are elements of sets and maps, so a packet costs the same
at the thousandth. An ``accept`` here does not overrule a drop in anybody else's table.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import attrs

_CHAINS = """
	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifname @bridges jump from_container
	}
	chain from_container {
		meta nfproto ipv6 iifname != @speaking_ipv6 drop
		ip6 saddr :: icmpv6 type nd-neighbor-solicit accept
		ip daddr 127.0.0.0/8 drop
		fib saddr . iif oif 0 drop
	}
	chain arriving {
		type nat hook prerouting priority dstnat; policy accept;
		ip daddr 127.0.0.0/8 return
		fib daddr type local jump published
	}
	chain sent_here {
		type nat hook output priority -100; policy accept;
		fib daddr type local jump published
	}
	chain published {
		ip6 daddr ::1 return
		meta nfproto ipv4 dnat ip to meta l4proto . ip daddr . th dport map @published_at
		meta nfproto ipv4 dnat ip to meta l4proto . th dport map @published_anywhere
		meta nfproto ipv6 dnat ip6 to meta l4proto . ip6 daddr . th dport map @published_ipv6_at
		meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @published_ipv6_anywhere
	}
	chain leaving {
		type nat hook postrouting priority srcnat; policy accept;
		oifname @bridges ip saddr 127.0.0.0/8 masquerade
		oifname @bridges ip saddr @subnets ct status dnat masquerade
		oifname != @bridges ip saddr @hidden masquerade
		oifname @bridges ip6 saddr @subnets_ipv6 ct status dnat masquerade
		oifname != @bridges ip6 saddr @hidden_ipv6 masquerade
	}
	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname @internal jump from_internal
		oifname @bridges jump to_container
	}
	chain from_internal {
		iifname . oifname @within accept
		drop
	}
	chain to_container {
		ct state established,related accept
		ct status dnat accept
		iifname . oifname @within accept
		drop
	}
	chain input {
		type filter hook input priority filter; policy accept;
		iifname @internal icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept
		iifname @internal fib daddr . iif type != local drop
		iifname @bridges ip daddr @subnets fib daddr . iif type != local drop
		iifname @bridges ip6 daddr @subnets_ipv6 fib daddr . iif type != local drop
	}
	chain output {
		type filter hook output priority filter; policy accept;
		oifname @bridges jump from_host
	}
	chain from_host {
		ct state established,related accept
		ct status dnat accept
		meta skuid 0 accept
		oifname . meta skuid @people accept
		meta skuid > 0 drop
	}
"""

_SETS = (
    ("set", "bridges", "type ifname"),
    ("set", "within", "type ifname . ifname"),
    ("set", "people", "type ifname . uid"),
    ("set", "internal", "type ifname"),
    ("set", "speaking_ipv6", "type ifname"),
    ("set", "subnets", "type ipv4_addr; flags interval"),
    ("set", "hidden", "type ipv4_addr; flags interval"),
    ("set", "subnets_ipv6", "type ipv6_addr; flags interval"),
    ("set", "hidden_ipv6", "type ipv6_addr; flags interval"),
    (
        "map",
        "published_at",
        "type inet_proto . ipv4_addr . inet_service : ipv4_addr . inet_service",
    ),
    (
        "map",
        "published_anywhere",
        "type inet_proto . inet_service : ipv4_addr . inet_service",
    ),
    (
        "map",
        "published_ipv6_at",
        "type inet_proto . ipv6_addr . inet_service : ipv6_addr . inet_service",
    ),
    (
        "map",
        "published_ipv6_anywhere",
        "type inet_proto . inet_service : ipv6_addr . inet_service",
    ),
)


@attrs.frozen
class Bridge:
    """One network's bridge.

    Attributes:
        owner: The host user who may speak to what is behind it.
        internal: Without a way out.
        within: Its containers may speak to each other.
        hidden: What they send out gets the host's address.
        subnet_ipv6: None where it has no IPv6.
    """

    name: str
    subnet: IPv4Network
    owner: int
    internal: bool = False
    within: bool = True
    hidden: bool = True
    subnet_ipv6: IPv6Network | None = None


@attrs.frozen
class Publication:
    """A published port. ``host_address`` 0.0.0.0 or :: stands for every address of the host of its kind.

    Both addresses are of one kind.
    """

    protocol: str
    host_address: IPv4Address | IPv6Address
    host_port: int
    address: IPv4Address | IPv6Address
    port: int


def whole(table: str, bridges: Iterable[Bridge], publications: Iterable[Publication]) -> str:
    """The table with all that is in it. In one transaction it takes the place of what was there, if anything was."""
    sets = "".join(f"\t{kind} {name} {{ {shape}; }}\n" for kind, name, shape in _SETS)
    return (
        f"table inet {table}\ndelete table inet {table}\n"
        f"table inet {table} {{\n{sets}{_CHAINS.lstrip(chr(10))}}}\n"
        + "".join(enter(table, bridge) for bridge in bridges)
        + "".join(publish(table, publications))
    )


def gone(table: str) -> str:
    """No table; it need not be there."""
    return f"table inet {table}\ndelete table inet {table}\n"


def enter(table: str, bridge: Bridge) -> str:
    """The bridge is one of ours. Success too when it already is."""
    return "".join(
        f"add element inet {table} {name} {{ {element} }}\n" for name, element in _of(bridge)
    )


def leave(table: str, bridge: Bridge) -> str:
    """The bridge is none of ours. Success too when it was not."""
    return enter(table, bridge) + "".join(
        f"delete element inet {table} {name} {{ {element} }}\n" for name, element in _of(bridge)
    )


def publish(table: str, publications: Iterable[Publication]) -> str:
    """Map host ports to containers. Success too when they already are so."""
    return "".join(
        f"add element inet {table} {_map_of(one)} {{ {_key(one)} : {one.address} . {one.port} }}\n"
        for one in publications
    )


def unpublish(table: str, publications: Iterable[Publication]) -> str:
    """Unmap host ports. Success too when they were not mapped: nft's ``destroy`` is newer than what hosts have."""
    gone = list(publications)
    return publish(table, gone) + "".join(
        f"delete element inet {table} {_map_of(one)} {{ {_key(one)} }}\n" for one in gone
    )


def _of(bridge: Bridge) -> list[tuple[str, str]]:
    quoted = f'"{bridge.name}"'
    hidden, speaking = bridge.hidden and not bridge.internal, bridge.subnet_ipv6 is not None
    elements = (
        (True, "bridges", quoted),
        (bridge.within, "within", f"{quoted} . {quoted}"),
        (True, "people", f"{quoted} . {bridge.owner}"),
        (bridge.internal, "internal", quoted),
        (True, "subnets", str(bridge.subnet)),
        (hidden, "hidden", str(bridge.subnet)),
        (speaking, "speaking_ipv6", quoted),
        (speaking, "subnets_ipv6", str(bridge.subnet_ipv6)),
        (speaking and hidden, "hidden_ipv6", str(bridge.subnet_ipv6)),
    )
    return [(name, element) for wanted, name, element in elements if wanted]


def _map_of(publication: Publication) -> str:
    kind = "published_ipv6" if isinstance(publication.host_address, IPv6Address) else "published"
    return f"{kind}_anywhere" if publication.host_address.is_unspecified else f"{kind}_at"


def _key(publication: Publication) -> str:
    address = publication.host_address
    at = "" if address.is_unspecified else f" . {address}"
    return f"{publication.protocol}{at} . {publication.host_port}"

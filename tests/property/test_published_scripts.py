"""Scripts of any publications: each key once, and nothing in them but what it should be."""

from __future__ import annotations

import re
from ipaddress import IPv4Address

from hypothesis import given
from hypothesis import strategies as st

from supervisor.network.ruleset import Publication, publish, unpublish

ports = st.integers(1, 65_535)
addresses = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
publications = st.sets(
    st.builds(Publication, st.sampled_from(["tcp", "udp"]), addresses, ports, addresses, ports),
    max_size=20,
)
ADDRESS = r"\d+(\.\d+){3}"
LINE = re.compile(
    rf"(add|delete) element inet bakehouse published_(anywhere \{{ (tcp|udp)|at \{{ (tcp|udp) \. {ADDRESS})"
    rf" \. \d+( : {ADDRESS} \. \d+)? \}}"
)


@given(publications)
def test_a_line_for_each_and_nothing_else(wanted: set[Publication]) -> None:
    added = publish("bakehouse", sorted(wanted, key=str)).splitlines()
    assert len(added) == len(wanted)
    assert all(LINE.fullmatch(line) for line in added)
    removed = unpublish("bakehouse", sorted(wanted, key=str)).splitlines()
    assert removed[: len(added)] == added
    assert [line.partition(" :")[0] for line in added] == [
        line.replace("delete", "add", 1).removesuffix(" }") for line in removed[len(added) :]
    ]

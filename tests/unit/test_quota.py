"""Quotas: the lines that are told, admission at the edge, the counters behind it under any order of events, suspension."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.events import OwnerResume, OwnerSuspend
from supervisor.access.identity import Identity, Role
from supervisor.access.quota import Unit, Use, admit, quotas
from supervisor.access.suspension import REASON_CHARACTERS_MAX, open_suspensions
from supervisor.cli.people import limits_of, quota_row, uid_of
from supervisor.config import JournalConfig, OwnerConfig
from supervisor.database.database import open_database
from supervisor.errors import InvalidArgument, NotFound, PermissionDenied, ResourceExhausted
from supervisor.events.journal import open_events
from supervisor.network.publishing import BoundPort, PortHolders

ADMIN = Identity(0, 0, (0,), "root", "/root", Role.ADMIN)
ADA = Identity(4_711, 4_711, (4_711,), "ada", "/home/ada", Role.USER)


def test_every_line_is_of_a_use_and_a_setting() -> None:
    use = Use(cpu_cores=0.5, memory_bytes=10, pids=3, containers=2, builds=1, ports=4)
    lines = {one.name: one for one in quotas(use, OwnerConfig(containers_max=7, cpus_max=1.5))}
    assert (lines["containers"].used, lines["containers"].allowed) == (2, 7)
    assert (lines["cpu"].used, lines["cpu"].allowed, lines["cpu"].unit) == (0.5, 1.5, Unit.CORES)
    assert lines["memory"].allowed is None
    assert {field.name for field in attrs.fields(Use)} >= {"volumes", "execs", "networks"}
    assert set(lines) >= {"pids", "builds", "networks", "ports", "volumes", "execs"}


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 5))
def test_nobody_gets_beyond_what_is_allowed(have: int, allowed: int, more: int) -> None:
    if not allowed or have + more <= allowed:
        admit("make a thing", have, allowed, more=more, hint="remove one")
        return
    with pytest.raises(ResourceExhausted) as caught:
        admit("make a thing", have, allowed, more=more, hint="remove one")
    told = f"cannot make a thing: you have {have}, and {allowed} are allowed"
    assert (caught.value.message, caught.value.hint) == (told, "remove one")


PORTS = st.builds(
    BoundPort,
    container_port=st.just(80),
    protocol=st.sampled_from(["tcp", "udp"]),
    host_address=st.sampled_from(["0.0.0.0", "::", "127.0.0.1"]),
    host_port=st.integers(8_000, 8_003),
)
STEPS = st.lists(
    st.tuples(st.booleans(), st.sampled_from(["a", "b", "c"]), st.lists(PORTS, max_size=4))
)
OWNER_OF = {"a": 1, "b": 1, "c": 2}


@given(STEPS)
def test_published_ports_are_counted_whatever_happens(
    steps: list[tuple[bool, str, list[BoundPort]]],
) -> None:
    """Ports are added twice (recovery, renaming), and taken away that were never there (an undone start)."""
    holders = PortHolders()
    model: set[tuple[str, str, int]] = set()
    for adding, container, ports in steps:
        keys = {(container, port.protocol, port.host_port) for port in ports}
        if adding:
            holders.add(container, f"name-{container}", OWNER_OF[container], ports)
            model |= keys
        else:
            holders.remove(container, ports)
            model -= keys
        for owner in (1, 2):
            have = sum(OWNER_OF[one] == owner for one, _, _ in model)
            assert holders.count(owner) == have


def test_a_refusal_of_ports_names_who_has_most() -> None:
    holders = PortHolders()
    holders.add("a", "web", 1, [BoundPort(80, "tcp", "0.0.0.0", port) for port in (8_000, 8_001)])
    holders.add("b", "db", 1, [BoundPort(80, "tcp", "0.0.0.0", 9_000)])
    holders.add("c", "others", 2, [BoundPort(80, "tcp", "0.0.0.0", p) for p in range(9_100, 9_110)])
    holders.admit(1, 1, 4)
    holders.admit(1, 100, 0)
    with pytest.raises(ResourceExhausted, match="you have 3, and 4 are allowed") as caught:
        holders.admit(1, 2, 4)
    assert "container web has 2" in caught.value.hint
    assert "others" not in caught.value.text()


async def test_a_suspension_holds_until_it_is_taken_back(tmp_path: Path) -> None:
    async with open_database(tmp_path / "db") as database:
        async with open_events(database, JournalConfig()) as events:
            async with open_suspensions(database, events) as suspensions:
                suspensions.check(ADA)
                await suspensions.suspend(ADA.uid, "too many miners", ADMIN)
                with pytest.raises(
                    PermissionDenied, match=r"rule suspended: root .*too many miners"
                ):
                    suspensions.check(ADA)
                suspensions.check(attrs.evolve(ADA, role=Role.ADMIN))
    async with open_database(tmp_path / "db") as database:
        async with open_events(database, JournalConfig()) as events:
            async with open_suspensions(database, events) as suspensions:
                assert suspensions.of(ADA.uid) is not None
                with pytest.raises(InvalidArgument):
                    await suspensions.suspend(ADA.uid, "x" * (REASON_CHARACTERS_MAX + 1), ADMIN)
                with pytest.raises(InvalidArgument):
                    await suspensions.suspend(ADA.uid, "one\ntwo", ADMIN)
                await suspensions.resume(ADA.uid, ADMIN)
                await suspensions.resume(ADA.uid, ADMIN)
                suspensions.check(ADA)
                page = await events.page(0, visible_to=ADA.uid)
                kinds = [type(event.data) for event in page.events]
                assert kinds == [OwnerSuspend, OwnerResume]


def test_limits_are_written_as_people_write_them() -> None:
    words = ("memory_bytes_max=4g", "cpus-max=1.5", "pids_max=default", "containers_max=10")
    assert limits_of(words) == {
        "memory_bytes_max": 4 * 2**30,
        "cpus_max": 1.5,
        "pids_max": None,
        "containers_max": 10,
    }
    for word in ("containers_max", "=3", "containers_max=", "containers_max=many"):
        with pytest.raises(InvalidArgument):
            limits_of((word,))


def test_an_owner_is_named_by_account_or_uid() -> None:
    assert uid_of("root") == "0"
    assert uid_of("4294967294") == "4294967294"
    with pytest.raises(NotFound):
        uid_of("no-such\x1b[person")


def test_a_quota_is_one_row() -> None:
    line = {"name": "memory", "unit": "bytes", "used": 1_500_000.0, "allowed": 3_000_000.0}
    assert quota_row(line) == ("memory", "1.5MB", "3MB", "50%")
    assert quota_row({"name": "pids", "unit": "count", "used": 3.0}) == ("pids", "3", "-", "-")

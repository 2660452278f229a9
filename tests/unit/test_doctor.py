"""The doctor: what is asked of a host and how bad its lack is; the table; its words; and that no library is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from supervisor.api.native.own_view import own_findings, ranges
from supervisor.api.services import HostFacts
from supervisor.config import AccessConfig, Config
from supervisor.doctor import checks, judge, judge_store
from supervisor.doctor.checks import Check, examine
from supervisor.doctor.facts import (
    CgroupMounts,
    DaemonSeen,
    Disk,
    Forwarding,
    Ids,
    Kernel,
    Program,
    Tried,
    Units,
)
from supervisor.doctor.findings import (
    Finding,
    Standing,
    as_table,
    broken,
    degraded,
    exit_status,
    ok,
    overall,
    plain,
    unseen,
)
from supervisor.doctor.place import Place, place_of
from supervisor.monitor.detect import CALM, Level, Verdict

ROOT = Path(__file__).parents[2]
GIB = 2**30
EVERY = frozenset(judge.NEEDED_CAPABILITIES) | {"SYS_RESOURCE"}
ALL_V2 = frozenset({"cpu", "memory", "pids", "io", "cpuset"})
WELL, BAD = Tried(worked=True, said="fine"), Tried(worked=False, said="no such device")
DISK = Disk("/var/lib", "ext4", frozenset({"rw"}), False, 100 * GIB, 50 * GIB, 1_000, 500)
IDS = Ids(1_879_048_192, 4, frozenset(), (), 1_000, 2**32 - 1)


def standings(findings: Iterable[Finding]) -> dict[str, str]:
    """The worst of each subject."""
    worst: dict[str, Standing] = {}
    for one in findings:
        if one.standing in {Standing.DEGRADED, Standing.BROKEN}:
            assert one.said
        worst[one.subject] = overall([Finding("", worst.get(one.subject, Standing.OK), ""), one])
    return {subject: standing.value for subject, standing in worst.items()}


@pytest.mark.parametrize(
    ("release", "capabilities", "expected"),
    [
        ("6.1.0-18-amd64", EVERY, {"kernel": "ok"}),
        ("5.19.0", None, {"kernel": "degraded"}),
        ("5.15.0-91-generic", EVERY, {"kernel": "broken"}),
        ("6.18.4", EVERY - {"SYS_RESOURCE"}, {"kernel": "ok", "privileges": "degraded"}),
        ("6.18.4", EVERY - {"SYS_ADMIN"}, {"kernel": "ok", "privileges": "broken"}),
    ],
)
def test_kernels(
    release: str, capabilities: frozenset[str] | None, expected: dict[str, str]
) -> None:
    assert standings(judge.kernel(Kernel(release, "x86_64", capabilities))) == expected


@pytest.mark.parametrize(
    ("mounts", "expected"),
    [
        (CgroupMounts(frozenset(), "/sys/fs/cgroup", ALL_V2, True), "ok"),
        (CgroupMounts(frozenset(), "/sys/fs/cgroup", ALL_V2, None), "ok"),
        (CgroupMounts(frozenset(), "/sys/fs/cgroup", ALL_V2 - {"io"}, True), "degraded"),
        (CgroupMounts(frozenset(), "/sys/fs/cgroup", ALL_V2 - {"memory"}, True), "broken"),
        (CgroupMounts(frozenset(), "/sys/fs/cgroup", ALL_V2, False), "broken"),
        (
            CgroupMounts(
                frozenset({"cpu", "memory", "pids", "blkio", "cpuset"}), "/u", frozenset(), True
            ),
            "degraded",
        ),
        (CgroupMounts(frozenset(), "", frozenset(), None), "broken"),
    ],
)
def test_cgroups(mounts: CgroupMounts, expected: str) -> None:
    assert standings(judge.cgroups(mounts)) == {"cgroups": expected}


def test_pressure() -> None:
    assert standings(judge.pressure(frozenset({"cpu", "memory", "io"}))) == {"pressure": "ok"}
    assert standings(judge.pressure(frozenset({"cpu"}))) == {"pressure": "degraded"}


@pytest.mark.parametrize(
    ("crun", "runc", "expected"),
    [
        (Program("crun", "/crun", "1", True), Program("runc", ""), "ok"),
        (
            Program("crun", "/crun", "1", False, "no"),
            Program("runc", "/runc", "1", True),
            "degraded",
        ),
        (Program("crun", "/crun", "1", False, "no"), Program("runc", ""), "broken"),
        (Program("crun", ""), Program("runc", ""), "broken"),
        (Program("crun", "/crun", "1"), Program("runc", ""), "unseen"),
    ],
)
def test_runtimes(crun: Program, runc: Program, expected: str) -> None:
    findings = list(judge.runtimes((crun, runc)))
    if expected == "unseen":
        assert [one.standing for one in findings] == [Standing.UNSEEN]
    else:
        assert standings(findings) == {"runtime": expected}


def test_programs() -> None:
    there = tuple(Program(name, f"/usr/bin/{name}") for name in judge.HELPERS)
    good = judge.helpers(there, seccomp_profile="/p", profile_there=True)
    assert standings(good) == {"programs": "ok"}
    lacking = (*there[:-1], Program("tini-static", ""))
    assert standings(judge.helpers(lacking, seccomp_profile="/p", profile_there=False)) == {
        "seccomp": "broken",
        "programs": "degraded",
    }
    assert standings(judge.conmon(Program("conmon", ""))) == {"conmon": "broken"}
    assert standings(judge.conmon(Program("conmon", "/c", "2", False, "no"))) == {
        "conmon": "broken"
    }
    assert standings(judge.conmon(Program("conmon", "/c", "2", True))) == {"conmon": "ok"}


@pytest.mark.parametrize(
    ("tried", "changed", "expected"),
    [
        (WELL, {}, {"ids": "ok", "id ranges": "ok"}),
        (BAD, {}, {"ids": "broken", "id ranges": "ok"}),
        (WELL, {"namespaces_max": 0}, {"ids": "broken", "id ranges": "ok"}),
        (WELL, {"ours": 65_536}, {"ids": "broken", "id ranges": "ok"}),
        # an account takes one range of the four, subordinate ids that lie across two take both
        (WELL, {"accounts": frozenset({1_879_048_192})}, {"ids": "ok", "id ranges": "ok"}),
        (
            WELL,
            {"subordinate": ((1_879_048_190, 65_538 + 2 * 65_536),)},
            {"ids": "ok", "id ranges": "ok"},
        ),
        (
            WELL,
            {"subordinate": ((1_879_048_000, 65_536 * 4),)},
            {"ids": "ok", "id ranges": "broken"},
        ),
        (WELL, {"subordinate": ((0, 2**32),)}, {"ids": "ok", "id ranges": "broken"}),
    ],
)
def test_ids(tried: Tried, changed: Mapping[str, Any], expected: dict[str, str]) -> None:
    seen = Ids(**{**vars(IDS), **changed})
    assert standings(judge.user_namespaces(tried, seen)) == expected


def test_the_ranges_left_are_counted() -> None:
    seen = Ids(**{**vars(IDS), "accounts": frozenset({IDS.pool_first_id + 65_536, 1000})})
    assert "3 of 4 ranges" in list(judge.user_namespaces(WELL, seen))[-1].said


def test_the_firewall() -> None:
    assert standings(judge.firewall(WELL, WELL)) == {"firewall": "ok"}
    assert standings(judge.firewall(BAD, WELL)) == {"firewall": "broken"}
    assert standings(judge.firewall(WELL, BAD)) == {"firewall": "broken"}
    assert [one.standing for one in judge.firewall(None, None)] == [Standing.UNSEEN]
    absent = Tried(worked=False, said="libnftables.so.1: cannot open shared object file")
    assert next(judge.firewall(absent, WELL)).advice == "apt install libnftables1"


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (Forwarding(True, True, False, (), False), {"forwarding": "ok", "filtering": "ok"}),
        (Forwarding(False, True, False, (), False), {"forwarding": "ok", "filtering": "ok"}),
        (Forwarding(False, False, False, (), False), {"forwarding": "broken", "filtering": "ok"}),
        (
            Forwarding(True, True, True, ("ip filter FORWARD",), True),
            {"forwarding": "ok", "filtering": "ok"},
        ),
        (
            Forwarding(True, True, True, ("inet fw forward",), False),
            {"forwarding": "ok", "filtering": "degraded"},
        ),
    ],
)
def test_forwarding(seen: Forwarding, expected: dict[str, str]) -> None:
    assert standings(judge.forwarding(seen)) == expected


def test_bridges_that_pass_iptables_are_told_only_where_it_drops() -> None:
    told = list(judge.forwarding(Forwarding(True, True, True, ("ip filter FORWARD",), False)))
    assert "bridge-nf-call-iptables" in told[-1].said
    told = list(judge.forwarding(Forwarding(True, True, True, (), False)))
    assert "bridge-nf-call-iptables" not in told[-1].said


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ({}, "ok"),
        (dict.fromkeys(judge.UNITS, "active"), "ok"),
        ({**dict.fromkeys(judge.UNITS, "inactive"), "bakehouse.socket": "active"}, "ok"),
        (dict.fromkeys(judge.UNITS, "inactive"), "degraded"),
        ({**dict.fromkeys(judge.UNITS, "active"), "bakehouse.service": "failed"}, "broken"),
        ({"bakehouse.socket": "active"}, "broken"),
    ],
)
def test_units(states: dict[str, str], expected: str) -> None:
    assert standings(judge.units(Units(running=True, states=states))) == {"systemd": expected}
    assert standings(judge.units(Units(running=False, states={}))) == {"systemd": "ok"}


@pytest.mark.parametrize(
    ("changed", "tried", "expected"),
    [
        ({}, WELL, "ok"),
        ({}, BAD, "broken"),
        ({"read_only": True}, WELL, "broken"),
        ({"kind": "nfs4"}, None, "degraded"),
    ],
)
def test_storage(changed: Mapping[str, Any], tried: Tried | None, expected: str) -> None:
    disk = Disk(**{**vars(DISK), **changed})
    assert standings(judge_store.storage(disk, tried))["storage"] == expected


def test_project_quotas_are_told_where_there_are_some() -> None:
    disk = Disk(**{**vars(DISK), "options": frozenset({"prjquota"})})
    assert "has project quotas" in list(judge_store.storage(disk, WELL))[-1].said
    assert "has no project quotas" in list(judge_store.storage(DISK, WELL))[-1].said


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, {"disk": "ok", "inodes": "ok"}),
        ({"bytes_free": 9 * GIB}, {"disk": "degraded", "inodes": "ok"}),
        ({"bytes": 6 * GIB, "bytes_free": 4 * GIB}, {"disk": "degraded", "inodes": "ok"}),
        ({"bytes_free": GIB // 4}, {"disk": "broken", "inodes": "ok"}),
        ({"inodes_free": 50}, {"disk": "ok", "inodes": "degraded"}),
        ({"inodes_free": 5}, {"disk": "ok", "inodes": "broken"}),
        ({"inodes": 0, "inodes_free": 0}, {"disk": "ok"}),
    ],
)
def test_room(changed: Mapping[str, Any], expected: dict[str, str]) -> None:
    disk = Disk(**{**vars(DISK), **changed})
    assert standings(judge_store.room(disk)) == expected


def test_the_daemon() -> None:
    def told(changed: Mapping[str, Any]) -> str:
        seen = DaemonSeen("/s", **{"answers": False, "complaint": "why", **changed})
        return standings(judge_store.daemon(seen))["daemon"]

    assert told({}) == "degraded"  # there is none
    assert told({"listening": True}) == "broken"
    assert told({"listening": True, "refused": True}) == "broken"
    answering = {"answers": True, "version": "1"}
    assert told({**answering, "client_version": "1"}) == "ok"
    assert told({**answering, "client_version": "2"}) == "degraded"


def test_the_daemons_own_view() -> None:
    facts = HostFacts("1", "6", "Debian", "12", "x86_64", "h", 2, GIB, "crun", "/crun", "1.8", "v2")
    assert set(standings(own_findings(facts, CALM, DISK)).values()) == {"ok"}
    lacking = attrs.evolve(facts, lacks=("memory.high: none",))
    tight = Verdict(Level.TIGHT, "memory some 30 %")
    seen = standings(own_findings(lacking, tight, DISK))
    assert (seen["limits"], seen["verdict"]) == ("degraded", "degraded")
    few = Config(access=AccessConfig(range_pool_owners_max=10))
    assert (ranges(few, 8).standing, ranges(few, 9).standing) == (Standing.OK, Standing.DEGRADED)


def test_what_was_not_seen_is_no_fault() -> None:
    assert overall([unseen("a", "b")]) is Standing.OK
    assert overall([ok("a", "b"), degraded("a", "b"), unseen("a", "b")]) is Standing.DEGRADED
    assert exit_status([degraded("a", "b")]) == 0
    assert exit_status([degraded("a", "b")], strict=True) == 1
    assert exit_status([degraded("a", "b"), broken("a", "b", "c")]) == 1


def test_it_is_told_in_plain_text_and_as_a_table() -> None:
    found = [ok("kernel", "Linux"), broken("conmon", "not \x1b[31minstalled", "apt install conmon")]
    assert plain(found) == (
        "ok        kernel        Linux\n"
        "broken    conmon        not ?[31minstalled\n"
        "                        -> apt install conmon\n"
    )
    assert as_table(found)["standing"] == "broken"


def test_a_check_that_cannot_look_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(_: Place) -> Iterable[Finding]:
        raise PermissionError(13, "Permission denied")

    def unreadable(_: Place) -> Iterable[Finding]:
        raise OSError(5, "Input/output error")

    table = (
        Check("one", forbidden),
        Check("two", unreadable),
        Check("three", lambda _: [ok("three", "")], before=False),
    )
    monkeypatch.setattr(checks, "CHECKS", table)
    found = dict(examine(Place()))
    assert [findings[0].standing.value for findings in found.values()] == ["unseen", "unseen", "ok"]
    assert "three" not in dict(examine(Place(), before=True))


def test_the_settings_that_matter_are_read(tmp_path: Path) -> None:
    file = tmp_path / "bakehouse.toml"
    file.write_text(
        'data_root = "/d"\n[access]\nuser_group = "students"\nrange_pool_owners_max = 3\n'
    )
    place = place_of(file)
    assert (place.data_root, place.user_group, place.pool_owners) == (Path("/d"), "students", 3)
    file.write_text("[access\n")
    assert standings(judge.settings(place_of(file).settings_fault)) == {"settings": "broken"}
    assert list(judge.settings("")) == []


def test_the_doctors_usual_place_is_the_daemons() -> None:
    place, config = Place(), Config()
    assert (place.data_root, place.run_root) == (config.data_root, config.run_root)
    assert place.pool_first_id == config.access.range_pool_first_id
    assert place.pool_owners == config.access.range_pool_owners_max
    assert (place.user_group, place.admin_group) == (
        config.access.user_group,
        config.access.admin_group,
    )
    assert (place.runtimes, place.conmon) == (config.runtime.runtimes, config.runtime.conmon)
    assert place.seccomp_profile == config.runtime.seccomp_profile


def test_no_library_is_needed() -> None:
    """It looks at hosts where nothing is installed yet."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import supervisor.doctor.__main__, supervisor.doctor.trials\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names))"
    )
    words = [sys.executable, "-I", "-S", "-c", program]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['__main__', 'supervisor']"

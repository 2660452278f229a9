"""No mix of settings gets a user past a line of the table."""

from __future__ import annotations

import attrs
from hypothesis import given
from hypothesis import strategies as st

from supervisor.access.policy import UNLISTED, Access, Bounds, decide
from supervisor.access.requests import ContainerRequest, MountKind, MountRequest, PortRequest
from supervisor.access.rules import TABLE
from tests.support.people import ADA, identity

USER = identity(ADA)
BOUNDS = Bounds()

ADMIN_VALUES: dict[str, object] = {
    "privileged": True,
    "pid_mode": "host",
    "ipc_mode": "host",
    "uts_mode": "host",
    "userns_mode": "host",
    "cgroupns_mode": "host",
    "network_mode": "host",
    "cgroup_parent": "/x",
    "cap_add": ("SYS_ADMIN",),
    "security_opt": ("seccomp=unconfined",),
    "sysctls": {"kernel.core_pattern": "x"},
    "device_rules": ("c 1:3 rwm",),
    "oom_score_adj": -1,
    "runtime": "x",
    "masked_paths": (),
    "readonly_paths": (),
    "annotations": {"a": "b"},
    "unknown_fields": ("HostConfig.Surprise",),
}

FREE_VALUES: dict[str, object] = {
    "name": "web",
    "env": ("A=b",),
    "tty": True,
    "user": "0",
    "labels": {"a": "b"},
    "auto_remove": True,
    "network_mode": "none",
    "cap_drop": ("ALL",),
    "cap_add": ("CHOWN",),
}


@attrs.frozen
class LaterRequest(ContainerRequest):
    """A request that grew fields nobody gave a line."""

    surprise: str = ""
    other_surprise: tuple[str, ...] = ()


def some_of(values: dict[str, object]) -> st.SearchStrategy[dict[str, object]]:
    return st.sets(st.sampled_from(sorted(values))).map(
        lambda names: {name: values[name] for name in names}
    )


@given(some_of(FREE_VALUES), some_of(ADMIN_VALUES))
def test_each_admin_value_is_refused_whatever_stands_beside_it(
    free: dict[str, object], admin: dict[str, object]
) -> None:
    request = ContainerRequest(image="x", **{**free, **admin})  # type: ignore[arg-type]
    refused = {refusal.field for refusal in decide(USER, request, BOUNDS, TABLE).refusals}
    assert refused == set(admin)


@given(some_of(FREE_VALUES), st.text(), st.lists(st.text()).map(tuple))
def test_a_field_without_a_line_never_passes(
    free: dict[str, object], one: str, other: tuple[str, ...]
) -> None:
    table = {**TABLE, LaterRequest: TABLE[ContainerRequest]}
    request = LaterRequest(image="x", surprise=one, other_surprise=other, **free)  # type: ignore[arg-type]
    refused = {
        refusal.field
        for refusal in decide(USER, request, BOUNDS, table).refusals
        if refusal.rule == UNLISTED
    }
    assert refused == {
        name for name, value in (("surprise", one), ("other_surprise", other)) if value
    }


@given(st.lists(st.tuples(st.integers(0, 65_535), st.integers(0, 65_535)), max_size=8))
def test_low_ports_never_pass(pairs: list[tuple[int, int]]) -> None:
    ports = tuple(PortRequest(inside, host_port=outside) for inside, outside in pairs)
    refusals = decide(USER, ContainerRequest(image="x", ports=ports), BOUNDS, TABLE).refusals
    assert [refusal.field for refusal in refusals] == [
        f"ports[{index}].host_port"
        for index, port in enumerate(ports)
        if 0 < port.host_port < 1_024
    ]


@given(st.lists(st.sampled_from(["proc", "sys", "dev", "..", ".", "", "home", "shm"]), max_size=6))
def test_the_kernels_trees_never_pass_however_spelt(parts: list[str]) -> None:
    source = "/" + "/".join(parts)
    seen: list[str] = []
    for part in parts:
        if part == "..":
            del seen[-1:]
        elif part not in {"", "."}:
            seen.append(part)
    hostile = bool(seen) and seen[0] in {"proc", "sys", "dev"} and seen[:2] != ["dev", "shm"]
    mount = MountRequest(kind=MountKind.BIND, source=source, target="/x")
    verdict = decide(USER, ContainerRequest(image="x", mounts=(mount,)), BOUNDS, TABLE)
    assert verdict.allowed is not hostile


def test_the_values_above_cover_every_guarded_field() -> None:
    guarded = {
        name
        for name, line in TABLE[ContainerRequest].items()
        if line.access in {Access.ADMIN, Access.BOUNDED}
    }
    assert guarded - set(ADMIN_VALUES) == {
        "devices",
        "ulimits",
    }  # no single value of these is refused on every host

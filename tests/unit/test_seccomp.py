"""People's own seccomp profiles: an administrator's as it is, a user's as what it takes away from the default."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.access.requests import ContainerRequest
from supervisor.errors import InvalidArgument
from supervisor.runtime.seccomp import container_seccomp, custom_profile, parse_profile

MASKED = {"index": 0, "value": 7, "op": "SCMP_CMP_MASKED_EQ"}
EQUAL = {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}


def profile(default: str, *rules: dict[str, object]) -> str:
    return json.dumps({"defaultAction": f"SCMP_ACT_{default}", "syscalls": rules})


def allow(*names: str, **more: object) -> dict[str, object]:
    return {"names": names, "action": "SCMP_ACT_ALLOW", **more}


def deny(*names: str) -> dict[str, object]:
    return {"names": names, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}


DEFAULT = parse_profile(
    profile("ERRNO", allow("read", "chmod", "open"), allow("clone", args=[MASKED])).encode()
)


def outcome(text: str, *, narrowed: bool = True) -> dict[str, list[object]]:
    """The calls that are allowed, each with its conditions."""
    request = ContainerRequest(image="i", security_opt=(f"seccomp={text}",))
    whole = container_seccomp(DEFAULT, request, frozenset(), narrowed=narrowed)
    assert whole is not None
    found: dict[str, list[object]] = {"default": [whole["defaultAction"]]}
    rules = whole["syscalls"]
    assert isinstance(rules, list)
    for rule in rules:
        if rule["action"] == "SCMP_ACT_ALLOW":
            for name in rule["names"]:
                found.setdefault(name, []).append([arg["value"] for arg in rule.get("args", ())])
    return found


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        (profile("ALLOW", deny("chmod")), {"read": [[]], "open": [[]], "clone": [[7]]}),
        (profile("ERRNO", allow("read", "mount", "bpf")), {"read": [[]]}),
        (profile("ALLOW"), {"read": [[]], "chmod": [[]], "open": [[]], "clone": [[7]]}),
        (profile("ERRNO", allow("clone", args=[MASKED])), {"clone": [[7]]}),
        (profile("ERRNO", allow("clone", args=[EQUAL])), {}),
        (profile("ERRNO", allow("clone"), allow("open", args=[EQUAL])),
         {"open": [[8]], "clone": [[7]]}),
        (profile("ERRNO", {"name": "read", "action": "SCMP_ACT_ALLOW"}), {"read": [[]]}),
        (profile("ERRNO"), {}),
    ],
)  # fmt: skip
def test_a_users_profile_only_takes_away(text: str, calls: dict[str, list[object]]) -> None:
    assert outcome(text) == {"default": ["SCMP_ACT_ERRNO"], **calls}


def test_an_administrators_profile_takes_the_place_of_the_default() -> None:
    assert outcome(profile("LOG", allow("bpf")), narrowed=False) == {
        "default": ["SCMP_ACT_LOG"],
        "bpf": [[]],
    }


CALLS = st.sampled_from(["read", "chmod", "open", "clone", "mount", "bpf"])
RULES = st.lists(
    st.builds(
        lambda names, action, args: {"names": names, "action": action, "args": args},
        st.lists(CALLS, min_size=1, max_size=3),
        st.sampled_from(["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_LOG"]),
        st.sampled_from([None, [MASKED], [EQUAL]]),
    ),
    max_size=4,
)


@given(st.sampled_from(["ALLOW", "ERRNO", "LOG", "KILL"]), RULES)
def test_nothing_is_ever_added(default: str, rules: list[dict[str, object]]) -> None:
    most: dict[str, list[object]] = {"read": [[]], "chmod": [[]], "open": [[]], "clone": [[7]]}
    found = outcome(profile(default, *rules))
    assert found.pop("default") == ["SCMP_ACT_ERRNO"]
    for name, conditions in found.items():
        assert all(condition in most[name] or most[name] == [[]] for condition in conditions)


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", "7", "{}", '{"defaultAction": "SCMP_ACT_NOTIFY"}', '{"defaultAction": 7}',
        profile("ALLOW", {"names": ["x"], "action": "SCMP_ACT_NOTIFY"}),
        profile("ALLOW", {"names": ["x"], "action": "SCMP_ACT_ERRNO", "errnoRet": 9_999}),
        profile("ALLOW", allow("x", args=[{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}])),
        profile("ALLOW", allow("x", args=[{"index": 0, "value": -1, "op": "SCMP_CMP_EQ"}])),
        profile("ALLOW", allow("x", args=[{"index": 0, "value": 0, "op": "=="}])),
        profile("ALLOW", deny("x" * 300_000)),
    ],
)  # fmt: skip
def test_what_is_no_profile_is_told(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Decoding seccomp profile failed"):
        custom_profile(text)


LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=4)
KEYS = st.sampled_from(["defaultAction", "syscalls", "names", "action", "args", "archMap", "index"])


@given(
    st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
        max_leaves=8,
    )
)
def test_any_json_is_a_profile_or_is_told(value: object) -> None:
    try:
        custom_profile(json.dumps(value))
    except InvalidArgument:
        return

"""Compiled filters are used for what they were compiled from, and for nothing else."""

from __future__ import annotations

import base64
from pathlib import Path

from supervisor.runtime.filters import ANNOTATION, FILTERS_MAX, Filters

Spec = dict[str, object]


def spec(action: str, **more: object) -> Spec:
    return {"linux": {"seccomp": {"defaultAction": action}}, **more}


def compiled(place: Path, program: bytes) -> Path:
    place.mkdir(exist_ok=True)
    (place / "seccomp.bpf").write_bytes(program)
    return place


def test_a_program_is_used_for_its_own_profile_alone(tmp_path: Path) -> None:
    filters = Filters()
    state = compiled(tmp_path / "a", b"program")
    assert filters.needs(spec("A"))
    filters.learn(spec("A"), state)
    applied = filters.applied(spec("A", annotations={"kept": "yes"}))
    assert applied["annotations"] == {
        "kept": "yes",
        ANNOTATION: base64.b64encode(b"program").decode(),
    }
    assert applied["linux"] == spec("A")["linux"]
    assert not filters.needs(applied)
    assert filters.applied(spec("B")) == spec("B")


def test_without_a_profile_or_a_program_there_is_nothing_to_learn(tmp_path: Path) -> None:
    filters = Filters()
    unfiltered: Spec = {"linux": {}}
    assert not filters.needs(unfiltered)
    filters.learn(unfiltered, compiled(tmp_path / "a", b"program"))
    assert filters.applied(unfiltered) == unfiltered
    filters.learn(spec("A"), tmp_path / "nowhere")
    filters.learn(spec("A"), compiled(tmp_path / "empty", b""))
    assert filters.applied(spec("A")) == spec("A")


def test_those_used_last_are_kept(tmp_path: Path) -> None:
    filters = Filters()
    state = compiled(tmp_path / "a", b"program")
    for number in range(FILTERS_MAX):
        filters.learn(spec(str(number)), state)
    filters.applied(spec("0"))
    filters.learn(spec("one more"), state)
    assert "annotations" in filters.applied(spec("0"))
    assert "annotations" not in filters.applied(spec("1"))

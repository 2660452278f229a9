"""Compiled seccomp filters, kept so that each is compiled once.

Compiling the default profile takes crun (libseccomp, that is) longer than all the rest of a container's creation. What
it compiled lies beside its state as ``seccomp.bpf``, and it takes such a program back by an annotation of its own.

Rules: a program is used only for the very ``linux.seccomp`` it was compiled from, by the same daemon's runtime. The
profile stays in the spec: a runtime that does not know the annotation compiles it, and nothing runs unfiltered.
"""

from __future__ import annotations

import base64
import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import orjson
from attrs import define, field

ANNOTATION = "run.oci.seccomp_bpf_data"
FILE = "seccomp.bpf"
FILTERS_MAX = 64
FILTER_BYTES_MAX = 1 << 20

Spec = dict[str, object]


@define(eq=False)
class Filters:
    """The programs known, by what they were compiled from; the ones used last are kept."""

    _programs: OrderedDict[bytes, str] = field(factory=OrderedDict)

    def applied(self, spec: Spec) -> Spec:
        """The spec, with its filter's program where that is known."""
        key = _key(spec)
        program = self._programs.get(key or b"")
        if key is None or program is None:
            return spec
        self._programs.move_to_end(key)
        annotations = spec.get("annotations")
        before = annotations if isinstance(annotations, Mapping) else {}
        return {**spec, "annotations": {**before, ANNOTATION: program}}

    def needs(self, spec: Spec) -> bool:
        """Whether its filter is one to learn: it has one, and it was not applied."""
        annotations = spec.get("annotations")
        applied = isinstance(annotations, Mapping) and ANNOTATION in annotations
        return not applied and _profile(spec) is not None

    def learn(self, spec: Spec, state: Path) -> None:
        """Take up what was compiled for a container of this ``spec``, whose state is in this directory. Blocks.

        A runtime that leaves nothing there teaches nothing.
        """
        key = _key(spec)
        if key is None:
            return
        try:
            with (state / FILE).open("rb") as file:
                program = file.read(FILTER_BYTES_MAX + 1)
        except OSError:
            return
        if 0 < len(program) <= FILTER_BYTES_MAX:
            self._programs[key] = base64.b64encode(program).decode()
            while len(self._programs) > FILTERS_MAX:
                self._programs.popitem(last=False)


def _profile(spec: Spec) -> object | None:
    linux = spec.get("linux")
    return linux.get("seccomp") if isinstance(linux, Mapping) else None


def _key(spec: Spec) -> bytes | None:
    profile = _profile(spec)
    return None if profile is None else hashlib.sha256(orjson.dumps(profile)).digest()

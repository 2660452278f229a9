"""What single owners may use: the settings' defaults, and over them what an administrator set for one person. Pure.

Words: a *limit* is a key of ``[owner]`` in the settings, see :class:`~supervisor.config.OwnerConfig`; an owner's *own*
limits are those that were set for them; *changes* are new values by name, ``None`` for the default again.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping

import attrs
import cattrs

from protocol.errors import Fault
from supervisor.config import OwnerConfig
from supervisor.errors import InvalidArgument

Value = int | float
Changes = Mapping[str, Value | None]

LIMITS: Mapping[str, attrs.Attribute[object]] = {
    field.name: field for field in attrs.fields(OwnerConfig)
}
MEBIBYTE = 1_048_576
BYTES_MIN = 6 * MEBIBYTE
"""Docker's least memory of a container; with less for all of theirs nobody could run one."""

_WEIGHT = (1, 10_000)
_BOUNDS: Mapping[str, tuple[float, float]] = {
    "cpu_weight": _WEIGHT,
    "io_weight": _WEIGHT,
    "cpus_max": (0.01, 100_000),
    "memory_high_bytes": (BYTES_MIN, 2**62),
    "memory_bytes_max": (BYTES_MIN, 2**62),
    "pids_max": (16, 4_194_304),
}
"""Least and most; the kernel knows nothing smaller, or nothing could be run with it."""
_OTHERS = (1, 2**62)
_WEIGHTS = {"cpu_weight", "io_weight"}


def effective(defaults: OwnerConfig, own: Mapping[str, Value]) -> OwnerConfig:
    """The limits that hold. What a newer version wrote down and we do not know is left out."""
    known = {name: value for name, value in own.items() if name in LIMITS}
    return cattrs.structure({**attrs.asdict(defaults), **known}, OwnerConfig)


def changed(own: Mapping[str, Value], changes: Changes) -> dict[str, Value]:
    """An owner's own limits after ``changes``."""
    after = {**own, **changes}
    return {name: value for name, value in after.items() if value is not None}


def check(changes: Changes) -> None:
    """Let changes pass that make sense.

    Raises:
        InvalidArgument: They do not; every fault is told.
    """
    faults = [fault for name, value in changes.items() for fault in _faults(name, value)]
    if faults:
        raise InvalidArgument("cannot set the owner's limits", faults=faults)


def check_defaults(defaults: OwnerConfig) -> None:
    """The same for the settings.

    Raises:
        InvalidArgument: See :func:`check`.
    """
    values: dict[str, Value] = attrs.asdict(defaults)
    faults = [fault for name, value in values.items() for fault in _faults(name, value)]
    if faults:
        raise InvalidArgument("cannot use the settings of [owner]", faults=faults)


def _faults(name: str, value: Value | None) -> Iterator[Fault]:
    field = LIMITS.get(name)
    if field is None:
        likely = difflib.get_close_matches(name, LIMITS, n=1)
        hint = f"did you mean {likely[0]}?" if likely else f"there are: {', '.join(LIMITS)}"
        yield Fault(f"{name}: no such limit", hint=hint)
    elif value is not None:
        yield from _value_faults(name, value, whole=isinstance(field.default, int))


def _value_faults(name: str, value: Value, *, whole: bool) -> Iterator[Fault]:
    least, most = _BOUNDS.get(name, _OTHERS)
    if isinstance(value, bool) or (whole and not isinstance(value, int)):
        yield Fault(f"{name}: {value!r} is not a whole number")
    elif not (least <= value <= most or (value == 0 and name not in _WEIGHTS)):
        none = "" if name in _WEIGHTS else "0 (no limit), or "
        yield Fault(f"{name}: {value} is out of bounds", hint=f"{none}{least:,} to {most:,}")

"""Signals by name or number, as Docker takes them; pure. See signal(7)."""

from __future__ import annotations

import signal

from supervisor.errors import InvalidArgument

SIGRTMIN, SIGRTMAX = 34, 64
NUMBER_MAX = 64


def parse_signal(text: str) -> int:
    """The number of ``TERM``, ``SIGTERM``, ``15``, ``RTMIN+3``.

    Raises:
        InvalidArgument: No such signal; Docker's wording.
    """
    name = text.strip().upper()
    if name.isdigit():
        number = int(name) if len(name) <= len(str(NUMBER_MAX)) else 0
    else:
        number = _named(name.removeprefix("SIG"))
    if not 0 < number <= NUMBER_MAX:
        raise InvalidArgument(f"Invalid signal: {text}")
    return number


def signal_name(number: int) -> str:
    """``SIGTERM`` and the like, or the number where it has no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def _named(name: str) -> int:
    for base, start, sign in (("RTMIN", SIGRTMIN, 1), ("RTMAX", SIGRTMAX, -1)):
        if name.startswith(base):
            offset = name.removeprefix(base).lstrip("+-")
            return start + sign * int(offset) if offset.isdigit() else (0 if offset else start)
    member = signal.Signals.__members__.get(f"SIG{name}")
    return 0 if member is None else int(member)

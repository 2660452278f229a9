"""How people write a log's bounds, ``10m`` and ``3``; for the policy and for who keeps the log alike. Pure."""

from __future__ import annotations

import re

_SIZE = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?) ?([kmgtp]?)i?b?", re.IGNORECASE | re.ASCII)
_COUNT = re.compile(r"[+-]?[0-9]{1,9}", re.ASCII)


def size_bytes(text: str) -> int | None:
    """Bytes of ``1.5g``, ``10 MB``, ``1000``, in powers of 1,000 as dockerd has it; None for what is no size."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    return int(float(match[1]) * 1_000 ** " kmgtp".index(match[2].lower() or " "))


def count(text: str) -> int | None:
    """A number of files; None for what is no whole number."""
    return int(text) if _COUNT.fullmatch(text) else None

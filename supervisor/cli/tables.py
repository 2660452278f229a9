"""Short lists for people: containers, images."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

GAP = "   "
SHORT_ID = 12
_UNITS = ("B", "kB", "MB", "GB", "TB")
_THOUSAND = 1000


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns as wide as their widest cell."""
    lines = [tuple(titles), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        sys.stdout.write(GAP.join(cells).rstrip() + "\n")


def reloaded(told: object) -> list[str]:
    """The answer of ``POST /bakehouse/v1/reload``, a line for each setting."""
    found = told if isinstance(told, Mapping) else {}
    lines = [f"changed: {name}" for name in _list(found.get("changed"))]
    lines += [f"after a restart: {name}" for name in _list(found.get("waiting"))]
    return lines or ["nothing has changed"]


def containers(listed: object) -> list[tuple[str, ...]]:
    """Rows of ``GET /containers/json``: id, image, command, status, ports, name."""
    return [
        (
            _text(row, "Id")[:SHORT_ID],
            _text(row, "Image"),
            _shortened(_text(row, "Command")),
            _text(row, "Status"),
            ", ".join(_port(port) for port in _tables(row.get("Ports"))),
            ", ".join(str(name).removeprefix("/") for name in _list(row.get("Names"))),
        )
        for row in _tables(listed)
    ]


def images(listed: object, now: datetime) -> list[tuple[str, ...]]:
    """Rows of ``GET /images/json``, one for each name: name, tag, id, age, size."""
    rows: list[tuple[str, ...]] = []
    for row in _tables(listed):
        identity = _text(row, "Id").removeprefix("sha256:")[:SHORT_ID]
        age = _age(row.get("Created"), now)
        size = human_bytes(_number(row.get("Size")))
        for name in _list(row.get("RepoTags")) or ["<none>:<none>"]:
            repository, _, tag = str(name).rpartition(":")
            rows.append((repository, tag, identity, age, size))
    return rows


def human_bytes(count: int) -> str:
    """``12.3MB``, in powers of a thousand as Docker prints sizes."""
    size, unit = float(count), 0
    while size >= _THOUSAND and unit < len(_UNITS) - 1:
        size, unit = size / _THOUSAND, unit + 1
    return f"{size:.3g}{_UNITS[unit]}"


def _age(created: object, now: datetime) -> str:
    seconds = int((now - datetime.fromtimestamp(_number(created), UTC)).total_seconds())
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = seconds // size
            return f"{count} {name}{'s' if count > 1 else ''} ago"
    return "just now"


def _port(port: Mapping[str, object]) -> str:
    inner = f"{port.get('PrivatePort')}/{port.get('Type', 'tcp')}"
    public = port.get("PublicPort")
    return f"{port.get('IP') or '*'}:{public}->{inner}" if public else inner  # shown, not bound


def _shortened(command: str, most: int = 30) -> str:
    return command if len(command) <= most else f"{command[: most - 1]}…"


def _tables(value: object) -> list[Mapping[str, object]]:
    return [row for row in _list(value) if isinstance(row, dict)]


def _list(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _text(row: Mapping[str, object], key: str) -> str:
    return str(row.get(key) or "")


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0

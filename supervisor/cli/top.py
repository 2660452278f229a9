"""``bakehouse top``: a sample as a table, as plain text, as JSON. Pure: a sample in, something to print out.

Rules: one row for each owner, their containers and builds below it, who uses the processors most comes first. What the
host does not tell is a dash, never a zero. Names are others' input: control characters in them are not printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import orjson

from protocol.samples import ContainerSample, HostSample, OwnerSample, Usage

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

COLUMNS = ("OWNER", "NAME", "CPU", "MEMORY", "LIMIT", "PIDS", "READ/s", "WRITE/s", "STALL", "OOM")
TEXT_COLUMNS = 2  # the rest are figures, and stand to the right
BYTES_STEP = 1_024
UNITS = ("B", "K", "M", "G", "T", "P")
STYLES: Mapping[str, str] = {"calm": "green", "tight": "yellow", "critical": "bold red"}
UNKNOWN = "-"


@attrs.frozen
class Row:
    """One line of the table: its cells as text, and whether it sums up an owner."""

    cells: tuple[str, ...]
    owner: bool


def plain(sample: HostSample, names: Mapping[int, str]) -> str:
    """Text in columns, for pipes and dumb terminals; ``names`` are accounts by uid."""
    lines = [COLUMNS, *(row.cells for row in rows(sample, names))]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    body = ["  ".join(_aligned(line, widths)).rstrip() for line in lines]
    return "\n".join([*summary(sample), "", *body]) + "\n"


def table(sample: HostSample, names: Mapping[int, str]) -> Group:
    """The same for a terminal, with colours."""
    from rich.console import Group
    from rich.text import Text

    head = [Text(line) for line in summary(sample)]
    head[-1].stylize(STYLES.get(sample.verdict, ""))
    return Group(*head, _grid(rows(sample, names)))


def as_json(sample: HostSample) -> str:
    """One line of JSON with everything in it; fields are named with their units."""
    return orjson.dumps(attrs.asdict(sample)).decode()


def summary(sample: HostSample) -> tuple[str, ...]:
    """The host in three lines; the last is the verdict."""
    used = sample.memory_total_bytes - sample.memory_available_bytes
    stalls = (
        f"cpu {percent(sample.cpu_some_percent)}",
        f"memory {percent(sample.memory_some_percent)} (all: {percent(sample.memory_full_percent)})",
        f"disks {percent(sample.io_some_percent)} (all: {percent(sample.io_full_percent)})",
    )
    tickets = f"{sample.tickets.held} working, {sample.tickets.waiting} waiting"
    return (
        f"{sample.cpu_cores:.2f} of {sample.processors} processors busy, "
        f"load {sample.load1:.2f} {sample.load5:.2f} {sample.load15:.2f}, "
        f"memory {size(used)} of {size(sample.memory_total_bytes)}",
        f"waited in the last 10 s: {', '.join(stalls)}; starts and steps: {tickets}",
        f"{sample.verdict}: {printable(sample.reason)}" if sample.reason else sample.verdict,
    )


def rows(sample: HostSample, names: Mapping[int, str]) -> list[Row]:
    """Owners, the busiest first, each followed by what they run, likewise."""
    found: list[Row] = []
    for owner in sorted(sample.owners, key=_busiest):
        who = printable(names.get(owner.owner, str(owner.owner)))
        theirs = [each for each in sample.containers if each.owner == owner.owner]
        count = f"{owner.containers} container{'' if owner.containers == 1 else 's'}"
        found.append(Row((who, count, *_figures(owner.usage)), owner=True))
        found.extend(
            Row(("", printable(each.name), *_figures(each.usage)), owner=False)
            for each in sorted(theirs, key=_busiest)
        )
    return found


def size(count: float | None) -> str:
    """Bytes in at most four digits and a unit: ``999B``, ``1.5K``, ``20M``."""
    if count is None:
        return UNKNOWN
    value = float(count)
    for unit in UNITS[:-1]:
        if value < BYTES_STEP - 0.5:
            return f"{value:.0f}{unit}" if unit == "B" or value >= 10 else f"{value:.1f}{unit}"  # noqa: PLR2004
        value /= BYTES_STEP
    return f"{value:.1f}{UNITS[-1]}"


def percent(value: float | None) -> str:
    """A whole percentage, or a dash."""
    return UNKNOWN if value is None else f"{value:.0f}%"


def printable(text: str) -> str:
    """The text without anything a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _busiest(each: OwnerSample | ContainerSample) -> tuple[float, int, str]:
    name = each.name if isinstance(each, ContainerSample) else ""
    return (-each.usage.cpu_cores, each.owner, name)


def _figures(usage: Usage) -> tuple[str, ...]:
    pids = f"{usage.pids}/{usage.pids_limit}" if usage.pids_limit else str(usage.pids)
    stalled = [
        value for value in (usage.memory_full_percent, usage.io_full_percent) if value is not None
    ]
    return (
        f"{usage.cpu_cores * 100:.0f}%",
        size(usage.memory_bytes),
        size(usage.memory_limit_bytes),
        pids,
        size(usage.io_read_bytes_per_second),
        size(usage.io_write_bytes_per_second),
        percent(max(stalled, default=None)),
        str(usage.oom_kills) if usage.oom_kills else "",
    )


def _aligned(cells: tuple[str, ...], widths: list[int]) -> list[str]:
    return [
        cell.ljust(width) if column < TEXT_COLUMNS else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]


def _grid(found: list[Row]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column, title in enumerate(COLUMNS):
        made.add_column(title, justify="left" if column < TEXT_COLUMNS else "right", no_wrap=True)
    for row in found:  # Text, not str: rich would take a name like [red]x for markup
        made.add_row(*map(Text, row.cells), style="bold" if row.owner else "")
    return made

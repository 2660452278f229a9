"""``bakehouse doctor``: the host looked at from here, then the daemon's own view; shown as it is found."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from supervisor.cli.connection import Request, ask
from supervisor.doctor import judge_store
from supervisor.doctor.checks import examine
from supervisor.doctor.facts import DaemonSeen
from supervisor.doctor.findings import (
    Finding,
    Findings,
    Standing,
    as_table,
    exit_status,
    plain,
    printable,
)
from supervisor.doctor.place import place_of
from supervisor.errors import BakehouseError, PermissionDenied

if TYPE_CHECKING:
    from rich.table import Table

ANSWER_SECONDS = 10.0
STYLES: Mapping[Standing, str] = {
    Standing.OK: "green",
    Standing.UNSEEN: "dim",
    Standing.DEGRADED: "yellow",
    Standing.BROKEN: "bold red",
}


def doctor(socket: str, config: Path | None, *, strict: bool, as_json: bool) -> int:
    """Look at everything and tell it; the exit status."""
    checks = _examined(socket, config)
    if as_json:
        found = [finding for _, findings in checks for finding in findings]
        sys.stdout.write(f"{json.dumps(as_table(found))}\n")
    elif sys.stdout.isatty():
        found = _live(checks)
    else:
        found = []
        for _, findings in checks:
            sys.stdout.write(plain(findings))
            sys.stdout.flush()
            found += findings
    return exit_status(found, strict=strict)


def _examined(socket: str, config: Path | None) -> Iterator[tuple[str, Findings]]:
    yield from examine(place_of(config))
    yield "daemon", trio.run(functools.partial(_asked, socket))


async def _asked(socket: str) -> Findings:
    """Whether the daemon answers, and what it says of itself."""
    answer: object = None
    complaints: list[BakehouseError] = []
    with trio.move_on_after(ANSWER_SECONDS):
        try:
            async with ask(socket, Request("GET", "/bakehouse/v1/doctor")) as got:
                answer = await got.json()
        except* BakehouseError as group:
            complaints += _leaves(group)
    if not isinstance(answer, dict):
        return tuple(judge_store.daemon(await _silent(socket, complaints)))
    version, client = str(answer.get("version")), metadata.version("bakehouse")
    seen = DaemonSeen(socket, answers=True, version=version, client_version=client)
    return (*judge_store.daemon(seen), *_told(answer.get("findings")))


async def _silent(socket: str, complaints: list[BakehouseError]) -> DaemonSeen:
    """Why there is no answer."""
    usual = f"what listens at {socket} gives no answer of bakehoused's"
    return DaemonSeen(
        socket,
        answers=False,
        complaint=complaints[0].message if complaints else usual,
        refused=any(isinstance(one, PermissionDenied) for one in complaints),
        listening=await trio.Path(socket).exists(),
    )


def _leaves(group: BaseExceptionGroup[BakehouseError]) -> Iterator[BakehouseError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def _told(listed: object) -> Iterator[Finding]:
    """The daemon's own findings, marked as its own."""
    for one in listed if isinstance(listed, list) else []:
        if isinstance(one, dict) and one.get("standing") in set(Standing):
            told = {key: str(one.get(key, "")) for key in ("subject", "said", "advice")}
            standing = Standing(str(one["standing"]))
            yield Finding(f"its {told['subject']}", standing, told["said"], told["advice"])


def _live(checks: Iterator[tuple[str, Findings]]) -> list[Finding]:
    from rich.console import Console
    from rich.live import Live

    found: list[Finding] = []
    with Live(_table(found), console=Console(highlight=False), auto_refresh=False) as live:
        for _, findings in checks:
            found += findings
            live.update(_table(found), refresh=True)
    return found


def _table(found: list[Finding]) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("")
    made.add_column("WHAT", no_wrap=True)
    made.add_column("FOUND", overflow="fold")
    for one in found:  # Text, not str: rich would take brackets for markup
        said = Text(printable(one.said))
        if one.advice:
            said.append(f"\n-> {printable(one.advice)}", style="bold")
        made.add_row(Text(one.standing.value, style=STYLES[one.standing]), Text(one.subject), said)
    return made

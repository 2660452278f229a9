"""What a container's processes are and use: top and stats."""

from __future__ import annotations

import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from supervisor.api.call import Call
from supervisor.api.docker import view_top
from supervisor.api.docker.containers import found
from supervisor.api.docker.view_stats import stats
from supervisor.api.http import JsonObject, Response, json_line, json_response
from supervisor.clock import now_ns
from supervisor.errors import Conflict, NotFound
from supervisor.tasks import in_thread

if TYPE_CHECKING:
    from supervisor.monitor.samples import GroupSample
    from supervisor.runtime.keeper import Keeper

STATS_SECONDS = 1.0
_NET_DEV_COLUMNS = (
    "rx_bytes", "rx_packets", "rx_errors", "rx_dropped", "", "", "", "",
    "tx_bytes", "tx_packets", "tx_errors", "tx_dropped",
)  # fmt: skip


async def top(call: Call) -> Response:
    """``GET /containers/{id}/top``."""
    keeper = found(call)
    await keeper.started()
    if not keeper.alive:
        raise Conflict(f"Container {keeper.record.id} is not running")
    shown = view_top.columns(call.query.text("ps_args"))
    cgroups = keeper.parts.tree.cgroups

    def look() -> list[list[str]]:
        host = _host()
        seen = (_process(pid, host) for pid in sorted(cgroups.pids(keeper.group)))
        return [view_top.row(process, shown) for process in seen if process is not None]

    rows = await in_thread(look)
    return json_response({"Titles": view_top.titles(shown), "Processes": rows})


def _process(pid: int, host: view_top.Host) -> view_top.Process | None:
    """A process from proc(5); None when it has ended meanwhile."""
    directory = Path("/proc") / str(pid)
    try:
        uid = directory.stat().st_uid
        command_line = (directory / "cmdline").read_bytes()
        text = (directory / "stat").read_text(errors="replace")
    except OSError:
        return None
    return view_top.parse(pid, uid, text, command_line, host)


def _host() -> view_top.Host:
    since_boot = float(Path("/proc/uptime").read_text().split()[0])
    memory = next(
        line.split()[1]
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemTotal:")
    )
    now = now_ns() / 1_000_000_000
    return view_top.Host(now, now - since_boot, int(memory), _user)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


async def stats_of(call: Call) -> Response | None:
    """``GET /containers/{id}/stats``: one a second, or one that waits a second for its rates, or one at once."""
    keeper = found(call)
    if not call.query.flag("stream", default=True):
        before = None
        if not call.query.flag("one-shot"):
            before = await _sample(call, keeper)
            await trio.sleep(STATS_SECONDS if before else 0)
        return json_response(await _stats(call, keeper, before, await _sample(call, keeper)))
    answer = call.connection.streamed("application/json")
    async with call.connection.while_client_stays():
        before = await _sample(call, keeper)
        while not keeper.gone.is_set():
            await trio.sleep(STATS_SECONDS)
            now = await _sample(call, keeper)
            await answer.send(json_line(await _stats(call, keeper, before, now)))
            before = now
    await answer.finish()
    return None


async def _sample(call: Call, keeper: Keeper) -> GroupSample | None:
    """None when it does not run."""
    try:
        return await call.services.monitor.sample(keeper.group)
    except NotFound:
        return None


async def _stats(
    call: Call, keeper: Keeper, before: GroupSample | None, now: GroupSample | None
) -> JsonObject:
    process = keeper.state.process
    networks: Mapping[str, JsonObject] = {}
    if now is not None and process is not None and keeper.record.request.network_mode != "host":
        networks = await in_thread(lambda: _networks(process.pid))
    return stats(keeper.record.id, keeper.record.name, now, before, networks)


def _networks(pid: int) -> Mapping[str, JsonObject]:
    """Counters by interface of the process' network namespace, from its ``net/dev``."""
    try:
        lines = (Path("/proc") / str(pid) / "net/dev").read_text().splitlines()[2:]
    except OSError:
        return {}
    found_networks: dict[str, JsonObject] = {}
    for line in lines:
        name, _, counters = line.partition(":")
        if name.strip() == "lo":
            continue
        pairs = zip(_NET_DEV_COLUMNS, map(int, counters.split()), strict=False)
        found_networks[name.strip()] = {column: value for column, value in pairs if column}
    return found_networks

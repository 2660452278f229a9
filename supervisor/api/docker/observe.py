"""What a container's processes are and use: top and stats."""

from __future__ import annotations

import pwd
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from protocol.events import ContainerTop
from supervisor.api.call import Call
from supervisor.api.docker import ps, view_stats, view_top
from supervisor.api.docker.containers import found
from supervisor.api.http import JsonObject, Response, json_line, json_response
from supervisor.clock import now_ns
from supervisor.errors import Conflict, InvalidArgument, NotFound, Unavailable
from supervisor.linux.mounts import told_as
from supervisor.linux.spawner import Command
from supervisor.runtime.oci_runtime import ENVIRONMENT
from supervisor.tasks import in_thread

if TYPE_CHECKING:
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
    arguments = call.query.text("ps_args")
    shown = view_top.columns(arguments)
    titles, rows = await (
        _asked_of_ps(keeper, ps.words(arguments)) if shown is None else _seen(keeper, shown)
    )
    await keeper.row.tell(ContainerTop())
    return json_response({"Titles": titles, "Processes": rows})


async def _seen(keeper: Keeper, shown: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    cgroups = keeper.parts.tree.cgroups

    def look() -> list[list[str]]:
        host = _host()
        seen = (_process(pid, host) for pid in sorted(cgroups.pids(keeper.group)))
        return [view_top.row(process, shown) for process in seen if process is not None]

    return view_top.titles(shown), await in_thread(look)


async def _asked_of_ps(keeper: Keeper, words: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """What the host's ps tells; some of its options cannot be combined with pids, and are asked for all processes."""
    parts = keeper.parts
    pids = await in_thread(lambda: parts.tree.cgroups.pids(keeper.group))
    path = shutil.which("ps", path=ENVIRONMENT["PATH"])
    if path is None:
        raise Unavailable(
            "cannot list the processes so: this host has no ps", "leave out the options"
        )
    chosen = ("-q", ",".join(map(str, sorted(pids))))
    with told_as("list the processes"):
        done = await parts.spawner.run(Command((path, *words, *chosen), env=ENVIRONMENT))
        if done.returncode and pids:
            done = await parts.spawner.run(Command((path, *words), env=ENVIRONMENT))
    if done.returncode and pids:
        complaint = done.stderr.decode(errors="replace").strip().partition("\n")[0]
        raise InvalidArgument(f"ps: {complaint[:200]}")
    return ps.table(done.stdout.decode(errors="replace"), pids)


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
    stream, at_once = call.query.flag("stream", default=True), call.query.flag("one-shot")
    if stream and at_once:
        raise InvalidArgument("cannot have stream=true and one-shot=true")
    if not stream:
        before = None
        if not at_once:
            before = await _look(call, keeper)
            await trio.sleep(STATS_SECONDS if before else 0)
        return json_response(await _stats(keeper, before, await _look(call, keeper)))
    answer = call.connection.streamed("application/json")
    await answer.start()
    async with call.connection.while_client_stays():
        before = await _look(call, keeper)
        while not keeper.gone.is_set():
            with trio.move_on_after(STATS_SECONDS):
                await keeper.gone.wait()
            now = await _look(call, keeper)
            await answer.send(json_line(await _stats(keeper, before, now)))
            before = now
    await answer.finish()
    return None


async def _look(call: Call, keeper: Keeper) -> view_stats.Seen | None:
    """None when it does not run."""
    cgroups = keeper.parts.tree.cgroups
    try:
        sample = await call.services.monitor.sample(keeper.group)
    except NotFound:
        return None
    return view_stats.Seen(sample, await in_thread(lambda: cgroups.details(keeper.group)))


async def _stats(
    keeper: Keeper, before: view_stats.Seen | None, now: view_stats.Seen | None
) -> JsonObject:
    process = keeper.state.process
    networks: Mapping[str, JsonObject] = {}
    if now is not None and process is not None and keeper.record.request.network_mode != "host":
        networks = await in_thread(lambda: _networks(process.pid))
    return view_stats.stats(keeper.record.id, keeper.record.name, now, before, networks)


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

"""The daemon's stop, at any moment of a container's start, run, exec and end; then the next daemon's life.

Each place costs two lives of an engine, so a dozen or two are taken, evenly spread over the steps of all tasks.
"""

from __future__ import annotations

import faulthandler
import os
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio

from supervisor.access.requests import ExecRequest, HealthRequest, RestartRequest
from supervisor.config import Config
from supervisor.errors import BakehouseError
from supervisor.linux.cgroup import detect
from supervisor.runtime.processes import boot_id, identify
from supervisor.runtime.records import ContainerState, load_state
from supervisor.runtime.status import ALIVE, Status
from tests.support.cancelling import run_cancelled
from tests.support.engines import ADA_IDENTITY, Engine, engine_in

pytestmark = [pytest.mark.root, pytest.mark.slow]

PATIENCE_SECONDS = 30
NAME = "web"
MAY_BE = {Status.CREATED, Status.RUNNING, Status.EXITED, Status.RESTARTING, Status.STARTING}
"""What a container may be when the next daemon has taken over; the last two by its policy."""

Life = Callable[[Engine], Awaitable[None]]


async def life(made: Engine) -> None:
    """A container is created, started on a bridge, executed in, stopped and removed."""
    keeper = await made.create("sleep", "60", name=NAME, network_mode="bridge")
    await keeper.perform(keeper.start)
    one = await made.containers.create_exec(ADA_IDENTITY, keeper, ExecRequest(command=("true",)))
    await one.start(None)
    await one.ended.wait()
    await keeper.perform(lambda: keeper.stop(1, 15))
    await made.remove(keeper)


async def tended_life(made: Engine) -> None:
    """One is probed, ends by itself and is started by its policy, until it is stopped and removed."""
    keeper = await made.create(
        *("sh", "-c", "sleep 0.2; exit 3"),
        name=NAME,
        restart=RestartRequest("always"),
        health=HealthRequest(test=("CMD", "true"), interval_ns=50_000_000),
    )
    await keeper.perform(keeper.start)
    probed = False
    while not probed or not keeper.state.backoff.count:
        probed = probed or bool(keeper.state.health and keeper.state.health.log)
        await trio.sleep(0.01)
    await keeper.perform(lambda: keeper.stop(0, 9))
    await made.remove(keeper)


async def cut_off(root: Path, lived: Life, at: int) -> int:
    """One daemon's life, told to stop at a certain step of a container's; how many steps it had come to."""

    async with engine_in(root, farewell=False) as made:
        return (await run_cancelled(lambda: lived(made), at, every_task=True)).checkpoints


def state_of(root: Path) -> ContainerState | None:
    """What is written down of the container between two lives."""
    connection = sqlite3.connect(f"file:{root}/data/database.sqlite?mode=ro", uri=True)
    try:
        row = connection.execute("SELECT state FROM containers").fetchone()
    finally:
        connection.close()
    return None if row is None else load_state(row[0])


def check_truth(root: Path, state: ContainerState | None) -> None:
    """What runs is written down as running; what is written down as running runs, or its end can still be told."""
    if state is None:
        return
    assert state.status is not Status.STARTING  # undone, not left
    process = state.process
    alive = process is not None and identify(process.pid, boot_id()) == process
    assert not alive or state.status in ALIVE, state
    if state.status in ALIVE and not alive:
        for _ in range(100):
            if list(root.glob("run/containers/u1000/*/exit/*")):
                return
            time.sleep(0.01)
        raise AssertionError(state)


OWNERS_KEEP = (
    "fd ",
    "row of ",
    "cgroup u1000",
    "path {data}/layers/",
    "path {run}/containers/u1000",
    "path {run}/ns/user/",
    "mount {run}/ns/user/",
    "mount {run}/views/",
    "mount {run}/pins",
    "mount {run}/cgroup2",
    "link bh{tag}-",
)
"""What an owner has between two containers, and a daemon as long as it lives."""


async def next_life(root: Path) -> None:
    """The next daemon takes over; once the container is removed nothing is left of the one before."""
    async with engine_in(root) as made:
        for keeper in made.containers.every():
            assert keeper.state.status in MAY_BE
            await made.remove(keeper)
        config = made.parts.config
        kept = tuple(
            one.format(data=config.data_root, run=config.run_root, tag=config.instance_tag)
            for one in OWNERS_KEEP
        )
        found = (await made.ground.settled()).things
        left = [one for one in found if not one.startswith(kept)]
        left += [one for one in found if one.startswith("cgroup u1000/") and "monitors" not in one]
        left += [one for one in found if "/containers/u1000/" in one]
        assert not left, "\n".join(left)


def check_host(root: Path, tag: str) -> None:
    """Nothing is left on the host when the last daemon has stopped."""
    assert str(root) not in Path("/proc/self/mountinfo").read_text()
    assert not [name for name in os.listdir("/sys/class/net") if f"{tag}-" in name]
    assert not detect(f"bakehouse-{tag}").children("")
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                words = Path(f"/proc/{name}/cmdline").read_text(errors="replace")
            except OSError:
                continue
            assert str(root) not in words, words.replace("\0", " ")


@pytest.mark.parametrize(("lived", "points"), [(life, 25), (tended_life, 10)])
async def test_the_daemon_stops_anywhere(lived: Life, points: int, root: Path) -> None:
    faulthandler.cancel_dump_traceback_later()  # on a busy host it takes longer than a test should
    with trio.fail_after(PATIENCE_SECONDS):
        whole = await cut_off(root, lived, 0)
    for at in (1 + (whole - 1) * number // (points - 1) for number in range(points)):
        try:
            with trio.fail_after(PATIENCE_SECONDS):
                await cut_off(root, lived, at)
                check_truth(root, state_of(root))
                await next_life(root)
        except (AssertionError, BakehouseError) as error:
            error.add_note(f"stopped at step {at} of about {whole}")
            raise
    check_host(root, Config(data_root=root / "data", run_root=root / "run").instance_tag)

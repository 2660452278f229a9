"""The spawner's requests and the verbs on M, cancelled anywhere."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from supervisor.errors import BakehouseError
from supervisor.linux import mounts
from supervisor.linux.idmap import IdMap, IdRange
from supervisor.linux.spawner import Command, Credentials, Spawner, open_spawner, start_spawner
from tests.support.cancelling import Ground, cancel_everywhere

pytestmark = pytest.mark.root

SLEEP = ("/bin/sh", "-c", "sleep 60 & sleep 0.01")
MAP = IdMap(
    uids=(IdRange(0, 1_000, 1), IdRange(1, 700_000, 999)),
    gids=(IdRange(0, 1_000, 1), IdRange(1, 700_000, 999)),
)


@asynccontextmanager
async def ground_in(root: Path) -> AsyncIterator[Ground]:
    seed = start_spawner(root / "run", "bakehouse-test")
    async with open_spawner(seed) as spawner:
        try:
            ground = Ground(spawner, seed.helper.pid, (root,))
            await ground.remember()
            yield ground
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 10):
                await mounts.release_mounts(spawner, [root])


async def nothing_remains(ground: Ground, operation: Callable[[], Awaitable[object]]) -> int:
    async def check(_: bool) -> None:
        await ground.check_nothing_remains()

    return await cancel_everywhere(operation, check)


async def test_a_spawned_command(root: Path) -> None:
    async with ground_in(root) as ground:

        async def operation() -> None:
            async with await ground.spawner.spawn(Command(("/bin/sleep", "60"))) as process:
                await trio.sleep(0.002)
                process.kill()
                assert await process.wait() == -9

        assert await nothing_remains(ground, operation) >= 4


async def test_a_command_that_cannot_start(root: Path) -> None:
    async with ground_in(root) as ground:

        async def operation() -> None:
            with pytest.raises(FileNotFoundError):
                await ground.spawner.spawn(Command(("/nowhere/to/be/found",)))

        assert await nothing_remains(ground, operation) >= 2


async def test_a_command_run_to_its_end(root: Path) -> None:
    async with ground_in(root) as ground:

        async def operation() -> None:
            done = await ground.spawner.run(
                Command(("/bin/sh", "-c", "cat; echo told >&2; sleep 0.01")), input=b"x" * 200_000
            )
            assert (done.returncode, len(done.stdout), done.stderr) == (0, 200_000, b"told\n")

        assert await nothing_remains(ground, operation) >= 4


async def test_an_errand_with_an_fd(root: Path) -> None:
    async with ground_in(root) as ground:

        async def operation() -> None:
            os.close(await mounts.open_in_mounts(ground.spawner, root))
            fd = await mounts.open_as(ground.spawner, "/etc/passwd", Credentials(1, 1), os.O_RDONLY)
            os.close(fd)

        assert await nothing_remains(ground, operation) >= 4


Verb = Callable[[Spawner, Path], Awaitable[object]]


async def overlaid(spawner: Spawner, root: Path) -> None:
    for name in ("lowers/one", "lowers/two", "upper", "work"):
        (root / name).mkdir(parents=True, exist_ok=True)
    await mounts.overlay(
        spawner, root / "lowers", ["one", "two"], root / "upper", root / "work", root / "pin"
    )


async def viewed(spawner: Spawner, root: Path) -> None:
    (root / "source").mkdir(exist_ok=True)
    await mounts.idmapped_view(spawner, root / "source", root / "pin", MAP, read_only=False)


async def with_user_namespace(spawner: Spawner, root: Path) -> None:
    await mounts.user_namespace(spawner, root / "pin", MAP)


async def with_network_namespace(spawner: Spawner, root: Path) -> None:
    await mounts.network_namespace(spawner, root / "pin", None)
    (await mounts.netlink_socket(spawner, root / "pin")).close()
    os.close(await mounts.open_namespace(spawner, root / "pin"))


async def granted(spawner: Spawner, root: Path) -> None:
    who = Credentials(0, 0)
    await mounts.grant_path(
        spawner, f"{root}/granted/{{a}}/b", who, writable=True, create=True, target=root / "pin"
    )


@pytest.mark.parametrize(
    "verb", [overlaid, viewed, with_user_namespace, with_network_namespace, granted]
)
async def test_a_verb_has_happened_or_not_and_is_undone_by_unmount(verb: Verb, root: Path) -> None:
    """Every other run comes upon what a cancelled one left, and must not mind."""
    async with ground_in(root) as ground:
        runs = 0

        async def operation() -> None:
            await verb(ground.spawner, root)

        async def check(completed: bool) -> None:
            nonlocal runs
            runs += 1
            if not completed and runs % 2:
                await verb(ground.spawner, root)
            await mounts.unmount(ground.spawner, root / "pin")
            await ground.check_nothing_remains()

        assert await cancel_everywhere(operation, check) >= 2


async def test_unmounting_again_after_a_cancelled_one(root: Path) -> None:
    async with ground_in(root) as ground:

        async def operation() -> None:
            await overlaid(ground.spawner, root)
            await mounts.unmount(ground.spawner, root / "pin")

        async def check(_: bool) -> None:
            await mounts.unmount(ground.spawner, root / "pin")
            await ground.check_nothing_remains()

        assert await cancel_everywhere(operation, check) >= 4


async def test_a_refused_grant(root: Path) -> None:
    async with ground_in(root) as ground:

        async def operation() -> None:
            with pytest.raises(BakehouseError):
                await mounts.grant_path(
                    ground.spawner,
                    "/root/x",
                    Credentials(1_000, 1_000),
                    writable=True,
                    create=True,
                    target=root / "pin",
                )

        assert await nothing_remains(ground, operation) >= 2

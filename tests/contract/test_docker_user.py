"""Our rules in DOCKER-USER, with the real iptables, in network namespaces of their own."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typing_extensions import override

from supervisor.linux import mounts
from supervisor.linux.spawner import Command, Completed, Spawner
from supervisor.network.neighbours import Neighbours
from tests.support.spawners import spawner_in

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not shutil.which("iptables"), reason="needs iptables"),
]
ENV = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}


class Elsewhere(Spawner):
    """The spawner, but all it runs is in one network namespace."""

    def __init__(self, spawner: Spawner, namespace: int) -> None:
        self._real = spawner
        self._namespaces = (namespace,)

    @override
    async def run(
        self,
        command: Command,
        *,
        input: bytes = b"",
        output_bytes_max: int = 1 << 20,
    ) -> Completed:
        moved = Command(command.argv, command.env, namespaces=self._namespaces)
        return await self._real.run(moved, input=input, output_bytes_max=output_bytes_max)

    async def rules(self) -> list[str]:
        done = await self.run(Command(("iptables", "-S"), ENV))
        return done.stdout.decode().splitlines()

    async def iptables(self, *arguments: str) -> None:
        done = await self.run(Command(("iptables", *arguments), ENV))
        assert done.returncode == 0, done.stderr


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Elsewhere]:
    pin = tmp_path / "run" / "ns" / "host"
    async with spawner_in(tmp_path / "run") as spawner:
        await mounts.network_namespace(spawner, pin, None)
        namespace = await mounts.open_namespace(spawner, pin)
        try:
            yield Elsewhere(spawner, namespace)
        finally:
            os.close(namespace)
            await mounts.unmount(spawner, pin)


async def test_without_dockerd_nothing_is_touched(host: Elsewhere) -> None:
    before = await host.rules()
    neighbours = Neighbours(host, "bh-", "bakehouse")
    await neighbours.enter()
    await neighbours.leave()
    assert await host.rules() == before
    assert not any("bakehouse" in rule for rule in before)


async def test_beside_dockerd_our_rules_come_once_and_go_again(host: Elsewhere) -> None:
    await host.iptables("-P", "FORWARD", "DROP")
    await host.iptables("-N", "DOCKER-USER")
    await host.iptables("-A", "FORWARD", "-j", "DOCKER-USER")
    await host.iptables("-A", "DOCKER-USER", "-s", "203.0.113.0/24", "-j", "DROP")
    await host.iptables("-A", "DOCKER-USER", "-j", "RETURN")
    before = await host.rules()
    ours, other = (
        Neighbours(host, "bh-", "bakehouse"),
        Neighbours(host, "bhabc123-", "bakehouse-abc123"),
    )
    for _ in range(2):
        await ours.enter()
    entered = await host.rules()
    chain = [rule for rule in entered if rule.startswith("-A DOCKER-USER")]
    assert len(chain) == 6
    assert "203.0.113.0/24" in chain[0]
    assert chain[-1] == "-A DOCKER-USER -j RETURN"
    await other.enter()
    await other.leave()
    assert await host.rules() == entered
    await host.iptables("-F", "DOCKER-USER")
    await ours.enter()
    assert len([rule for rule in await host.rules() if "bakehouse" in rule]) == 4
    await ours.leave()
    assert [r for r in await host.rules() if not r.startswith("-A DOCKER-USER")] == [
        r for r in before if not r.startswith("-A DOCKER-USER")
    ]

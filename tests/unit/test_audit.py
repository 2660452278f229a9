"""Refusals are told to the journal, a bounded number a minute, the rest counted."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from protocol.events import AccessRefuse
from supervisor.access.audit import Audit, open_audit
from supervisor.access.policy import Action
from supervisor.access.requests import ContainerRequest
from supervisor.config import Config, JournalConfig
from supervisor.database.database import open_database
from supervisor.errors import InvalidArgument, PermissionDenied
from supervisor.events.journal import Events, open_events
from tests.support.people import ADA, BOB, identity

CONFIG = Config(journal=JournalConfig(refusals_per_minute_max=3))
HOSTILE = ContainerRequest(image="x", privileged=True)


@attrs.frozen
class Gate:
    """The gate and the journal behind it."""

    audit: Audit
    events: Events

    async def told(self, owner: int) -> list[int]:
        """How many refusals each event of ``owner`` stands for."""
        page = await self.events.page(0, visible_to=owner)
        return [event.data.count for event in page.events if isinstance(event.data, AccessRefuse)]


@asynccontextmanager
async def gate(path: Path) -> AsyncIterator[Gate]:
    async with (
        open_database(path / "database.sqlite") as database,
        open_events(database, CONFIG.journal) as events,
    ):
        async with open_audit(events, CONFIG) as audit:
            yield Gate(audit, events)


async def test_a_flood_is_counted_into_one(tmp_path: Path) -> None:
    async with gate(tmp_path) as at:
        for _ in range(10):
            with pytest.raises(PermissionDenied, match="privileged"):
                await at.audit.enforce(identity(ADA), Action.CONTAINER_CREATE, HOSTILE, "web")
        with pytest.raises(PermissionDenied):
            await at.audit.enforce(identity(BOB), Action.CONTAINER_CREATE, HOSTILE, "web")
        assert await at.told(ADA.uid) == [1, 1, 1]
        await at.audit._close(trio.current_time() + 61)
        assert await at.told(ADA.uid) == [1, 1, 1, 7]
        assert await at.told(BOB.uid) == [1]


async def test_what_was_counted_is_told_at_the_end(tmp_path: Path) -> None:
    async with (
        open_database(tmp_path / "database.sqlite") as database,
        open_events(database, CONFIG.journal) as events,
    ):
        async with open_audit(events, CONFIG) as audit:
            for _ in range(5):
                await audit.refused(ADA.uid, "x", "y", "z")
        page = await events.page(0, visible_to=ADA.uid)
        assert [
            event.data.count for event in page.events if isinstance(event.data, AccessRefuse)
        ] == [1, 1, 1, 2]


async def test_what_is_allowed_leaves_no_trace(tmp_path: Path) -> None:
    async with gate(tmp_path) as at:
        await at.audit.enforce(identity(ADA), Action.CONTAINER_CREATE, ContainerRequest(image="x"))
        with pytest.raises(InvalidArgument):
            await at.audit.enforce(
                identity(ADA), Action.CONTAINER_CREATE, ContainerRequest(image="x", uts_mode="x")
            )
        assert await at.told(ADA.uid) == []


async def test_an_endless_message_is_cut(tmp_path: Path) -> None:
    async with gate(tmp_path) as at:
        await at.audit.refused(ADA.uid, "x", "y", "z" * 1_000_000)
        (event,) = (await at.events.page(0, visible_to=ADA.uid)).events
        assert isinstance(event.data, AccessRefuse)
        assert len(event.data.message) == 2_000


async def test_a_path_the_kernel_refuses_is_refused_by_name(tmp_path: Path) -> None:
    async with gate(tmp_path) as at:
        with pytest.raises(
            PermissionDenied, match="cannot mount /root: refused by the rule mount-source"
        ) as caught:
            async with at.audit.granting(ADA.uid, "/root", read_only=True):
                raise PermissionDenied("cannot open '/root': Permission denied")
        assert caught.value.hint == "allowed: what you may read"
        assert await at.told(ADA.uid) == [1]

"""The real socket, and clients who mean no good: attacks.md 15, 18 and the door itself."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
import trio

from supervisor.access.audit import open_audit
from supervisor.access.owners import open_owners
from supervisor.access.suspension import open_suspensions
from supervisor.api.server import open_api, open_listeners
from supervisor.api.services import HostFacts, Services
from supervisor.config import ApiConfig, Config
from supervisor.database.database import open_database
from supervisor.errors import Conflict
from supervisor.events.journal import open_events
from tests.support.ways import open_way

if TYPE_CHECKING:
    from supervisor.build.builds import Builds
    from supervisor.monitor.monitor import Monitor
    from supervisor.network.networks import Networks
    from supervisor.runtime.containers import Containers
    from supervisor.runtime.disk_use import DiskUse
    from supervisor.service.reload import Reloading
    from supervisor.store.store import Store

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: it speaks as other users")

FACTS = HostFacts(
    "1", "6", "Linux", "1", "x86_64", "here", 2, 1 << 30, "crun", "/usr/bin/crun", "1", "v2"
)
NOBODY = 65_534
ABSENT = cast(
    "tuple[Store, Networks, Monitor, Containers, Builds]", (None,) * 5
)  # these requests never reach them


class Roomy:
    """Disks on which there is room for everybody."""

    async def admit(self, owner: int) -> None:
        pass


ASK = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])
s.sendall(b"GET /_ping HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
data = b""
while piece := s.recv(65536): data += piece
print(data.decode())
"""


@asynccontextmanager
async def serving(tmp_path: Path, api: ApiConfig | None = None) -> AsyncIterator[Path]:
    config = Config(data_root=tmp_path / "data", run_root=tmp_path / "run", api=api or ApiConfig())
    (tmp_path / "data").mkdir(exist_ok=True)
    async with (
        open_database(tmp_path / "data/db.sqlite") as database,
        open_events(database, config.journal) as events,
        open_owners(database, events, config) as owners,
        open_audit(events, config) as audit,
        open_suspensions(database, events) as suspensions,
    ):
        roomy, reread = cast("DiskUse", Roomy()), cast("Reloading", None)
        services = Services(
            config, database, events, owners, audit, suspensions, *ABSENT, roomy, FACTS, reread
        )
        async with open_api(services):
            yield config.socket_path


async def ask(path: Path, request: bytes) -> bytes:
    async with await trio.open_unix_socket(path) as stream:
        await stream.send_all(request)
        await stream.send_eof()
        got = b""
        while data := await stream.receive_some(65_536):
            got += data
        return got


async def test_the_socket_is_for_its_group_and_goes_with_the_daemon(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        got = await ask(path, b"GET /v1.41/_ping HTTP/1.1\r\nHost: x\r\n\r\n")
        assert got.startswith(b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n")
        assert got.endswith(b"\r\n\r\nOK")
        with pytest.raises(Conflict, match="another daemon"):
            async with open_listeners(Config(socket=path)):
                pass
        assert await ask(path, b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    assert not path.exists()


async def test_a_stale_socket_is_replaced_but_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "run/bakehouse.sock"
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    async with serving(tmp_path) as serving_path:
        assert await ask(serving_path, b"HEAD /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
    path.write_text("precious")
    with pytest.raises(Conflict):
        async with open_listeners(Config(socket=path)):
            pass
    assert path.read_text() == "precious"


async def test_a_stranger_is_refused_whatever_they_ask(tmp_path: Path) -> None:
    async with serving(tmp_path) as path:
        path.chmod(0o777)
        open_way(path.parent)
        done = await trio.to_thread.run_sync(
            lambda: subprocess.run(
                [sys.executable, "-I", "-c", ASK, str(path)],
                user=NOBODY,
                group=NOBODY,
                extra_groups=[],
                capture_output=True,
                text=True,
                check=False,
                timeout=30,
            )
        )
    assert done.stdout.startswith("HTTP/1.1 403"), done
    assert "message" in json.loads(done.stdout.partition("\n\n")[2])


async def test_connections_of_one_person_are_bounded(tmp_path: Path) -> None:
    async with serving(tmp_path, ApiConfig(connections_per_owner_max=3)) as path:
        held = [await trio.open_unix_socket(path) for _ in range(3)]
        for stream in held:
            await stream.send_all(b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        assert (await ask(path, b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(
            b"HTTP/1.1 507"
        )
        await held.pop().aclose()
        with trio.fail_after(20):
            while not (await ask(path, b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")).startswith(
                b"HTTP/1.1 200"
            ):
                await trio.sleep(0.01)
        for stream in held:
            await stream.aclose()


async def test_idle_and_slow_connections_end(tmp_path: Path) -> None:
    async with serving(tmp_path, ApiConfig(idle_seconds_max=0.1, head_seconds_max=0.1)) as path:
        with trio.fail_after(20):
            async with (
                await trio.open_unix_socket(path) as idle,
                await trio.open_unix_socket(path) as slow,
            ):
                await slow.send_all(b"GET /")
                assert await idle.receive_some() == b""
                assert (await slow.receive_some()).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("request_bytes", "status", "words"),
    [
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "DOCKER_BUILDKIT=0"),
        (
            b"POST /session HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            503,
            "DOCKER_BUILDKIT=0",
        ),
        (
            b"POST /v1.41/grpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            503,
            "DOCKER_BUILDKIT=0",
        ),
        (b"POST /v1.41/build?version=2 HTTP/1.1\r\nHost: x\r\n\r\n", 503, "DOCKER_BUILDKIT=0"),
        (b"GET /v1.47/info HTTP/1.1\r\nHost: x\r\n\r\n", 400, "too new"),
        (b"GET /nodes HTTP/1.1\r\nHost: x\r\n\r\n", 503, "This node is not a swarm manager"),
        (b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", 404, "page not found"),
        (b"GET /bakehouse/v1/stream HTTP/1.1\r\nHost: x\r\n\r\n", 426, "websocket"),
        (
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n"
            + b'{"a": 1, "a": 2} ',
            400,
            "twice",
        ),
        (
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "both",
        ),
        (
            b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n{",
            0,
            "",
        ),
    ],
)
async def test_refusals_on_the_wire(
    tmp_path: Path, request_bytes: bytes, status: int, words: str
) -> None:
    async with serving(tmp_path) as path:
        got = await ask(path, request_bytes)
        if not status:
            assert got == b""  # the client left in the middle
        else:
            assert got.startswith(b"HTTP/1.1 %d " % status), got
            assert words in json.loads(got.partition(b"\r\n\r\n")[2])["message"]
        assert (await ask(path, b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n")).endswith(
            b"OK"
        )  # and others are served


async def test_a_body_over_the_bound_is_refused_while_it_is_sent(tmp_path: Path) -> None:
    async with serving(tmp_path, ApiConfig(json_body_bytes_max=1_000)) as path:
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(
                b"POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n"
            )
            await stream.send_all(b" " * 1_000_000)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 400")

"""Base images from packages: made, published, kept; cancelled without a trace. Needs the distribution's mirror."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

from supervisor.errors import InvalidArgument, PermissionDenied
from tests.support.stores import ADA_IDENTITY, ROOT_IDENTITY, config_in, world_in

MIRROR = "deb.debian.org"


def reachable() -> bool:
    try:
        socket.create_connection((MIRROR, 80), timeout=3).close()
    except OSError:
        return False
    return Path("/usr/bin/mmdebstrap").exists()


pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(not reachable(), reason=f"needs mmdebstrap and {MIRROR}"),
]


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.stores.BOUNDS", config_in(Path("/x")).store.__class__())


@pytest.mark.usefixtures("roomy")
async def test_an_image_is_made_published_and_kept(tmp_path: Path) -> None:
    lines: list[str] = []

    async def progress(line: str) -> None:
        lines.append(line)
        await trio.lowlevel.checkpoint()

    async with world_in(tmp_path) as world:
        made = await world.store.bootstrap.bootstrap(
            ROOT_IDENTITY, "debian:bookworm", ["python3-minimal"], progress
        )
        assert lines
        shared = await world.store.images.resolve(ADA_IDENTITY, "debian:bookworm")
        assert (shared.id, shared.shared) == (made.id, True)
        assert shared.config.config.cmd == ("bash",)
        root = world.store.layers.path(shared.layers[0])
        assert (root / "usr/bin/python3").is_symlink()
        with trio.fail_after(10):
            await world.store.bootstrap.bootstrap(ROOT_IDENTITY, "debian:bookworm")


@pytest.mark.usefixtures("roomy")
async def test_cancelled_it_leaves_nothing(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        with trio.CancelScope() as scope:

            async def progress(line: str) -> None:
                if "installing" in line:
                    scope.cancel()
                await trio.lowlevel.checkpoint()

            await world.store.bootstrap.bootstrap(ROOT_IDENTITY, "debian:bookworm", (), progress)
        assert scope.cancelled_caught
        await trio.sleep(0.5)
        mine = [
            path
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if str(tmp_path).encode() in read(path)
        ]
        assert not [path for path in mine if b"mmdebstrap" in read(path)]
        assert not list((tmp_path / "data" / "partial").iterdir())
        assert not await world.store.images.list(ROOT_IDENTITY)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


async def test_who_and_what_is_refused(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        bootstrap = world.store.bootstrap.bootstrap
        with pytest.raises(PermissionDenied):
            await bootstrap(ADA_IDENTITY, "debian:bookworm")
        for reference, include in (
            ("web:1", ()),
            ("debian:--x", ()),
            ("debian:bookworm", ("--hook",)),
        ):
            with pytest.raises(InvalidArgument):
                await bootstrap(ROOT_IDENTITY, reference, include)

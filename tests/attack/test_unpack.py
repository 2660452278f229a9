"""Hostile archives (attacks.md 6): refused with a clear error, or harmless; nothing outside the layer is touched.

Twice: through the store, whose scan judges every member; and past it, straight to the cell, as if the scan knew nothing.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import trio
import zstandard

from supervisor.errors import InvalidArgument, ResourceExhausted
from supervisor.oci import tar
from supervisor.oci.tar import Kind, Member
from supervisor.store.image_records import Image
from supervisor.store.spool import in_pieces
from tests.support.archives import tar_of
from tests.support.spawners import spawner_in
from tests.support.stores import ADA_IDENTITY, World, world_in

pytestmark = pytest.mark.root

CAPABILITY = struct.pack("<6I", 0x03000001, 1 << 10, 0, 0, 0, 4_242)


def archive(*members: Member, content: bytes = b"") -> bytes:
    """Members as they are, however they are; each file has ``content``."""
    blocks = [
        tar.gnu_header(one) + (content + tar.padding(len(content)) if one.size else b"")
        for one in members
    ]
    return b"".join(blocks) + tar.END


def file(name: bytes, **more: object) -> Member:
    return Member(name, Kind.FILE, **more)  # type: ignore[arg-type]


def link(name: bytes, target: bytes, kind: Kind = Kind.SYMBOLIC_LINK) -> Member:
    return Member(name, kind, link=target)


async def imported(world: World, data: bytes) -> Image:
    return await world.store.transfer.import_(ADA_IDENTITY, in_pieces(data), "made")


async def tree(world: World, data: bytes) -> Path:
    return world.store.layers.path((await imported(world, data)).layers[0])


REFUSED: Mapping[str, tuple[bytes, str]] = {
    "climbs": (archive(file(b"../x")), "leads out"),
    "climbs later": (archive(file(b"a/b/../../../x")), "leads out"),
    "through a link": (archive(link(b"a", b"/etc"), file(b"a/x")), "written through"),
    "through a link of a link": (
        archive(link(b"b", b"."), link(b"b/a", b"/etc")),
        "written through",
    ),
    "through a file": (archive(file(b"f"), file(b"f/x")), "written through"),
    "hard link out": (archive(link(b"a", b"/etc/passwd", Kind.HARD_LINK)), "hard link"),
    "hard link up": (archive(link(b"a", b"../../etc/passwd", Kind.HARD_LINK)), "leads out"),
    "hard link to itself": (archive(link(b"a", b"a", Kind.HARD_LINK)), "hard link"),
    "hard link through a link": (
        archive(link(b"d", b"/etc"), link(b"a", b"d/passwd", Kind.HARD_LINK)),
        "hard link",
    ),
    "whiteout of its parent": (archive(file(b"d/.wh...")), "whiteout"),
    "whiteout of itself": (archive(file(b"d/.wh..")), "whiteout"),
    "whiteout of nothing": (archive(file(b".wh.")), "whiteout"),
    "whiteout through a link": (archive(link(b"d", b"/etc"), file(b"d/.wh.passwd")), "through"),
    "opaque through a link": (archive(link(b"d", b"/etc"), file(b"d/.wh..wh..opq")), "through"),
    "a size that lies": (archive(file(b"x", size=1 << 20), content=b"short"), "ends within"),
    "a directory that is a file": (archive(Member(b"d/", Kind.DIRECTORY), file(b"d")), "both"),
    "a root that is a link": (archive(link(b"./", b"/etc")), "root"),
    "an id beyond": (archive(file(b"x", uid=70_000)), "65535"),
    "a name too long": (archive(file(b"n" * 256)), "255"),
    "too deep": (archive(file(b"d/" * 600 + b"x")), "too deep"),
    "a name without end": (archive(file(b"n/" * 30_000)), "too long"),
    "a NUL in a link": (archive(link(b"l", b"")), "symbolic link"),
    "gzip damaged": (gzip.compress(bytes(4096))[:-9] + b"\0" * 9, "damaged"),
    "gzip and garbage": (gzip.compress(tar_of({"a": b""})) + b"garbage", "damaged"),
    "zstd cut off": (zstandard.compress(os.urandom(200_000))[:1000], "archive"),
    "no tar at all": (b"\x7fELF" + bytes(2000), "archive"),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_is_refused_leaves_nothing(tmp_path: Path, what: str) -> None:
    data, why = REFUSED[what]
    async with world_in(tmp_path) as world:
        with pytest.raises(InvalidArgument, match=why):
            await imported(world, data)
        assert [path.name for path in (tmp_path / "data" / "layers").iterdir()] == ["init-1"]
        assert not list((tmp_path / "data" / "partial").iterdir())
        assert not await world.store.images.list(ADA_IDENTITY)


def compressed_zeros(compress: Callable[[bytes], bytes], mebibytes: int) -> bytes:
    header = tar.gnu_header(file(b"bomb", size=mebibytes << 20))
    return compress(header + bytes(mebibytes << 20) + tar.END)


def many(count: int) -> bytes:
    return b"".join(tar.gnu_header(file(b"f%d" % number)) for number in range(count)) + tar.END


def deep_names(count: int) -> bytes:
    return archive(*(file(b"%d/" % number + b"d/" * 500 + b"x") for number in range(count)))


EXHAUSTING: Mapping[str, Callable[[], bytes]] = {
    "gzip": lambda: compressed_zeros(gzip.compress, 80),
    "zstd": lambda: compressed_zeros(zstandard.compress, 80),
    "bzip2": lambda: compressed_zeros(bz2.compress, 80),
    "xz": lambda: compressed_zeros(lambda data: lzma.compress(data, preset=0), 80),
    "a sparse lie": lambda: archive(file(b"x", size=1 << 50)),
    "entries": lambda: gzip.compress(many(25_000)),
    "directories nobody named": lambda: gzip.compress(deep_names(60)),
}


@pytest.mark.parametrize("what", EXHAUSTING)
async def test_bombs_meet_the_bounds(tmp_path: Path, what: str) -> None:
    data = EXHAUSTING[what]()
    async with world_in(tmp_path) as world:
        with trio.fail_after(20), pytest.raises(ResourceExhausted):
            await imported(world, data)
        assert not list((tmp_path / "data" / "partial").iterdir())


async def test_an_archive_longer_than_the_bound_is_refused_while_it_comes(tmp_path: Path) -> None:
    taken = 0

    async def endless() -> object:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1 << 20)
            await trio.lowlevel.checkpoint()

    async with world_in(tmp_path) as world:
        stream = endless()
        with pytest.raises(ResourceExhausted):
            await world.store.transfer.import_(ADA_IDENTITY, stream)  # type: ignore[arg-type]
        await stream.aclose()  # type: ignore[attr-defined]
    assert taken < 100


async def test_what_is_harmless_is_made_harmless(tmp_path: Path) -> None:
    data = archive(
        file(b"/absolute"),
        file(b"././/dotted"),
        Member(b"null", Kind.CHARACTER_DEVICE, mode=0o666),
        Member(b"disk", Kind.BLOCK_DEVICE),
        Member(b"fifo", Kind.FIFO),
        file(b"setuid", mode=0o4755),
        link(b"out", b"../../../../etc/passwd"),
        link(b"abs", b"/etc/passwd"),
        file(b"\xff\xfe not utf-8"),
        file(b"x" * 200 + b"/" + b"y" * 200),
        file(
            b"attributes",
            xattrs={
                b"trusted.overlay.opaque": b"y",
                b"trusted.overlay.redirect": b"/etc",
                b"user.overlay.opaque": b"y",
                b"user.mine": b"a\0b",
                b"security.capability": CAPABILITY,
                b"security.selinux": b"x",
            },
        ),
        file(b"twice", mode=0o600),
        file(b"twice", mode=0o644),
    )
    async with world_in(tmp_path) as world:
        root = await tree(world, data)
        assert (root / "absolute").exists()
        assert (root / "dotted").exists()
        assert not (root / "null").exists()
        assert not (root / "disk").exists()
        assert stat.S_ISFIFO((root / "fifo").lstat().st_mode)
        assert stat.S_IMODE((root / "setuid").stat().st_mode) == 0o4755
        assert (root / "out").readlink() == Path("../../../../etc/passwd")
        assert (root / "abs").readlink() == Path("/etc/passwd")
        assert b"\xff\xfe not utf-8" in os.listdir(os.fsencode(root))
        assert (root / ("x" * 200) / ("y" * 200)).exists()
        kept = set(os.listxattr(root / "attributes"))
        assert kept == {"user.mine", "security.capability"}
        assert os.getxattr(root / "attributes", "user.mine") == b"a\0b"
        assert len(os.getxattr(root / "attributes", "security.capability")) == 20
        assert stat.S_IMODE((root / "twice").stat().st_mode) == 0o644
        assert stat.S_IMODE(root.stat().st_mode) == 0o755


async def test_streams_of_several_members_and_what_follows_a_tar(tmp_path: Path) -> None:
    data = tar_of({"a": b"1", "b": b"2"})
    async with world_in(tmp_path) as world:
        for whole in (
            gzip.compress(data[:700]) + gzip.compress(data[700:]),
            zstandard.compress(data[:700]) + zstandard.compress(data[700:]),
            data + b"garbage after the end",
            lzma.compress(data),
            bz2.compress(data),
        ):
            assert (await tree(world, whole) / "b").read_bytes() == b"2"


async def test_marks_in_a_hostile_order(tmp_path: Path) -> None:
    data = archive(
        file(b"d/.wh.kept"),
        file(b"d/kept"),
        file(b"whole/.wh..wh..opq"),
        file(b"dir/x"),
        file(b".wh.dir"),
        file(b"new/deep/.wh.gone"),
        file(b".wh..wh.plnk"),
    )
    async with world_in(tmp_path) as world:
        root = await tree(world, data)
        assert stat.S_ISREG((root / "d" / "kept").lstat().st_mode)
        assert os.getxattr(root / "whole", "trusted.overlay.opaque") == b"y"
        assert os.getxattr(root / "dir", "trusted.overlay.opaque") == b"y"
        assert stat.S_ISCHR((root / "new" / "deep" / "gone").lstat().st_mode)
        assert not list(root.glob("**/.wh*"))


async def test_cancelled_it_leaves_nothing(tmp_path: Path) -> None:
    data = gzip.compress(
        b"".join(tar.gnu_header(file(b"f%d" % n, size=4096)) + bytes(4096) for n in range(15_000))
    )
    async with world_in(tmp_path) as world:
        for seconds in (0.05, 0.2, 0.4):
            with trio.move_on_after(seconds) as scope:
                await imported(world, data)
            assert scope.cancelled_caught
        assert not list((tmp_path / "data" / "partial").iterdir())
        assert [path.name for path in (tmp_path / "data" / "layers").iterdir()] == ["init-1"]
        await imported(world, tar_of({"a": b"still serving"}))


# --- past the scan: the cell alone -----------------------------------------------------------------------------------


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Something beside the target that must not change."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "file").write_text("mine")
    yield place
    assert {path.name: path.read_text() for path in place.iterdir()} == {"file": "mine"}


def python_tar(fill: Callable[[tarfile.TarFile], None]) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as made:
        fill(made)
    return data.getvalue()


async def straight_to_the_cell(tmp_path: Path, data: bytes) -> tuple[Path, object]:
    target = tmp_path / "target"
    target.mkdir()
    (tmp_path / "archive").write_bytes(data)
    async with spawner_in(tmp_path / "run") as spawner:
        with (tmp_path / "archive").open("rb") as stream:
            arguments = {"target": str(target), "bytes_max": 1 << 20}
            answer = await spawner.call("unpack", dict(arguments), [stream.fileno()])  # type: ignore[arg-type]
    return target, answer.value


async def test_the_cell_holds_what_the_scan_would_not_see(tmp_path: Path, outside: Path) -> None:
    names = [
        b"../outside/file",
        b"../../outside/new",
        os.fsencode(outside / "new"),
        b"/etc/bakehouse-attack",
    ]
    members = [file(name) for name in names]
    members += [
        link(b"up", b"../outside"),
        file(b"up/new"),
        link(b"abs", os.fsencode(outside)),
        file(b"abs/new"),
    ]
    members += [link(b"hard", os.fsencode(outside / "file"), Kind.HARD_LINK), file(b"good")]
    members += [
        link(b"sys", b"/usr"),
        file(b"sys/bakehouse-attack"),
        file(b"/usr/bakehouse-attack"),
    ]
    target, _ = await straight_to_the_cell(tmp_path, archive(*members))
    assert (target / "good").exists()
    assert not Path("/etc/bakehouse-attack").exists()
    assert not Path("/usr/bakehouse-attack").exists()


async def test_the_cell_makes_no_devices_and_no_endless_files(
    tmp_path: Path, outside: Path
) -> None:
    def fill(made: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("null")
        info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
        made.addfile(info)
        info = tarfile.TarInfo("large")
        info.size = 4 << 20
        made.addfile(info, io.BytesIO(bytes(4 << 20)))

    target, answer = await straight_to_the_cell(tmp_path, python_tar(fill))
    assert not (target / "null").exists()
    assert (target / "large").stat().st_size <= 1 << 20
    assert isinstance(answer, dict)
    assert answer["status"] != 0

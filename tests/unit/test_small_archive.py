"""Small archives unpacked by ourselves come out as tar unpacks them."""

from __future__ import annotations

import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest

from supervisor.build.small_archive import SMALL_BYTES_MAX, is_small, unpack_small
from supervisor.errors import InvalidArgument
from supervisor.store.scan import Bounds, Scan

pytestmark = pytest.mark.root


def unpacked(data: bytes, place: Path) -> Path:
    archive = place / "archive"
    archive.write_bytes(data)
    tree = place / "tree"
    tree.mkdir()
    descriptor = os.open(archive, os.O_RDONLY)
    try:
        assert is_small(descriptor)
        unpack_small(descriptor, tree, Scan(Bounds(1 << 20, 1_000)))
    finally:
        os.close(descriptor)
    return tree


def looks(tree: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for path in sorted(tree.rglob("*")):
        status = path.lstat()
        body = (
            path.readlink()
            if path.is_symlink()
            else path.read_bytes()
            if stat.S_ISREG(status.st_mode)
            else ""
        )
        ids = (
            status.st_uid,
            status.st_gid,
            oct(status.st_mode),
            int(status.st_mtime),
            status.st_nlink,
        )
        found.append((str(path.relative_to(tree)), ids, body))
    return found


def test_the_same_as_tar(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "d" / "e").mkdir(parents=True)
    (source / "d" / "e" / "f").write_bytes(b"x" * 5_000)
    (source / "empty").touch()
    (source / "name that is rather long ".ljust(200, "n")).write_text("long")
    os.link(source / "d" / "e" / "f", source / "g")
    (source / "l").symlink_to("../../etc")
    os.mkfifo(source / "p")
    os.chown(source / "g", 33, 44)
    (source / "d").chmod(0o2750)
    (source / "empty").chmod(0o4711)
    data = subprocess.run(["tar", "-cC", source, "."], capture_output=True, check=True).stdout
    assert looks(unpacked(data, tmp_path)) == looks(source)


def test_what_lies_is_refused(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("short")
        info.size = 10_000
        archive.addfile(info, io.BytesIO(b"x" * 10_000))
    with pytest.raises(InvalidArgument):
        unpacked(data.getvalue()[:2_000], tmp_path)


def test_times_beyond_all_measure(tmp_path: Path) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("late")
        info.pax_headers = {"mtime": "9" * 11}
        archive.addfile(info)
    assert (unpacked(data.getvalue(), tmp_path) / "late").exists()


def test_large_and_compressed_ones_are_not_small(tmp_path: Path) -> None:
    for name, data in (
        ("large", b"\0" * (SMALL_BYTES_MAX + 1)),
        ("packed", b"\x1f\x8b" + b"\0" * 100),
    ):
        (tmp_path / name).write_bytes(data)
        descriptor = os.open(tmp_path / name, os.O_RDONLY)
        assert not is_small(descriptor)
        os.close(descriptor)

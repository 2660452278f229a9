"""A tree made to lead out of itself: everything below a directory fd stays there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.linux.beneath import (
    make_directories_beneath,
    open_beneath,
    parent_beneath,
    read_file_beneath,
    stat_beneath,
    unlink_beneath,
)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    place = tmp_path / "outside"
    place.mkdir()
    (place / "secret").write_text("secret")
    return place


@pytest.fixture
def root(tmp_path: Path, outside: Path) -> Iterator[int]:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (tree / "absolute").symlink_to(outside)
    (tree / "relative").symlink_to("../outside")
    (tree / "up").symlink_to("../../../../../..")
    (tree / "etc" / "link").symlink_to("/etc/passwd")
    (tree / "magic").symlink_to("/proc/self/root")
    (tree / "loop").symlink_to("loop")
    fd = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


@pytest.mark.parametrize(
    "path",
    [
        "absolute/secret",
        "relative/secret",
        "../outside/secret",
        "/../outside/secret",
        "up/outside/secret",
        "etc/../../outside/secret",
    ],
)
def test_nothing_outside_is_reached(root: int, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_file_beneath(root, path)


def test_absolute_links_start_at_the_tree(root: int) -> None:
    assert read_file_beneath(root, "/etc/link") == b"root:x:0:0::/root:/bin/sh\n"
    assert read_file_beneath(root, "up/etc/passwd") == read_file_beneath(root, "etc/passwd")
    assert stat_beneath(root, "up").st_ino == stat_beneath(root, "/").st_ino


def test_links_of_proc_lead_nowhere() -> None:
    host = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for path in ("/proc/self/root/etc/passwd", f"/proc/self/fd/{host}", "/proc/self/cwd"):
            with pytest.raises(OSError, match="symbolic links"):
                open_beneath(host, path)
    finally:
        os.close(host)


def test_loops_and_names_that_are_none(root: int) -> None:
    with pytest.raises(OSError, match="symbolic links"):
        open_beneath(root, "loop")
    with pytest.raises(OSError, match="NUL"):
        open_beneath(root, "etc\0/passwd")
    for path in ("", "/", ".."):
        with pytest.raises(OSError, match="name"), parent_beneath(root, path):
            pass


def test_a_fifo_a_socket_and_a_giant_are_not_read(root: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "tree" / "fifo")
    with pytest.raises(OSError, match="regular"):
        read_file_beneath(root, "fifo")
    with pytest.raises(OSError, match="regular"):
        read_file_beneath(root, "etc")
    (tmp_path / "tree" / "giant").touch()
    os.truncate(tmp_path / "tree" / "giant", 1 << 40)
    with pytest.raises(OSError, match="longer"):
        read_file_beneath(root, "giant", 1000)


def test_directories_are_made_inside(root: int, tmp_path: Path, outside: Path) -> None:
    make_directories_beneath(root, "/a/b/c", 0o750)
    make_directories_beneath(root, "/a/b/c", 0o700)
    assert (tmp_path / "tree/a/b/c").stat().st_mode & 0o777 == 0o750
    make_directories_beneath(root, "up/etc/new")
    assert (tmp_path / "tree/etc/new").is_dir()
    for path, error in (
        ("absolute/new", FileNotFoundError),
        ("etc/passwd/new", NotADirectoryError),
        ("etc/passwd", NotADirectoryError),
        ("a/../../new", OSError),
    ):
        with pytest.raises(error):
            make_directories_beneath(root, path)
    assert [entry.name for entry in outside.iterdir()] == ["secret"]


def test_unlinking_takes_the_link(root: int, outside: Path) -> None:
    for _ in range(2):
        unlink_beneath(root, "absolute")
    assert (outside / "secret").exists()
    with pytest.raises(FileNotFoundError):
        stat_beneath(root, "absolute", follow=False)


def test_a_link_swapped_under_the_lookup(root: int, tmp_path: Path, outside: Path) -> None:
    """A directory that turns into a link out, and back, while it is walked through."""
    tree, done = tmp_path / "tree", threading.Event()
    (tree / "real").mkdir()
    (tree / "real" / "secret").write_text("mine")
    (tree / "trap").symlink_to(outside)
    os.symlink("real", tree / "way")

    def swap() -> None:
        while not done.is_set():
            for goal in ("../outside", "real"):
                os.symlink(goal, tree / "next")
                os.replace(tree / "next", tree / "way")

    swapper = threading.Thread(target=swap)
    swapper.start()
    seen = set()
    try:
        for _ in range(2000):
            try:
                seen.add(read_file_beneath(root, "way/secret"))
            except FileNotFoundError:
                seen.add(b"")
    finally:
        done.set()
        swapper.join()
    assert b"secret" not in seen
    assert b"mine" in seen

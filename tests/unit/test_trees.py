"""Trees that others filled: removed and measured however they are made."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.store import trees


def deep(root: Path, levels: int) -> None:
    """A chain of directories longer than PATH_MAX, made from the inside."""
    directory = os.open(root, trees.DIRECTORY)
    for _ in range(levels):
        os.mkdir("d" * 20, dir_fd=directory)
        below = os.open("d" * 20, trees.DIRECTORY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, dir_fd=directory))
    os.close(directory)


def test_a_tree_deeper_than_any_limit_is_removed(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    deep(tree, 3_000)
    trees.remove(tree)
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    tree = tmp_path / "tree"
    (tree / "a").mkdir(parents=True)
    (tree / "a" / "link").symlink_to(outside)
    (tree / "file").write_text("y")
    os.mkfifo(tree / "fifo")
    trees.remove(tree)
    trees.remove(tree)
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept").exists()
    (outside / "more").mkdir()
    trees.empty(outside)
    assert outside.exists()
    assert not list(outside.iterdir())


def test_a_file_with_two_names_counts_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 1000)
    os.link(tmp_path / "a", tmp_path / "b")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "c").write_bytes(b"y" * 10)
    (tmp_path / "s").symlink_to("a")
    assert trees.measure(tmp_path) == 1010


def test_what_vanishes_while_it_is_measured_is_gone(tmp_path: Path) -> None:
    assert trees.measure(tmp_path / "never") == 0
    (tmp_path / "a").write_bytes(b"x" * 10)
    for name in ("file", "directory", "swapped"):
        (tmp_path / name).mkdir()
    root = trees.open_directory(tmp_path)
    try:
        walked = trees.walk(root, changing=True)
        assert next(walked).name == b"a"  # the names are read, nothing else has been looked at
        (tmp_path / "file").rmdir()
        assert next(walked).name == b"directory"
        (tmp_path / "directory").rmdir()
        assert next(walked).name == b"swapped"
        (tmp_path / "swapped").rmdir()
        (tmp_path / "swapped").symlink_to("/")
        assert list(walked) == []
    finally:
        os.close(root)


def test_a_walk_is_sorted_and_bounded(tmp_path: Path) -> None:
    for name in ("b", "a/z", "a/y", "c"):
        (tmp_path / name).mkdir(parents=True)
    root = trees.open_directory(tmp_path)
    assert [entry.path for entry in trees.walk(root)] == [b"a", b"a/y", b"a/z", b"b", b"c"]
    deep(tmp_path / "c", trees.WALK_DEPTH_MAX + 5)
    with pytest.raises(trees.TooDeep):
        list(trees.walk(root))
    os.close(root)
    trees.measure(tmp_path)
    trees.empty(tmp_path)

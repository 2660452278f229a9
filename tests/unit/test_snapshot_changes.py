"""What ``docker diff`` tells, on trees made by hand as overlayfs would leave them; and copying such a tree as a layer."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from supervisor.store import copying, packing, trees
from supervisor.store.changes import changes

pytestmark = pytest.mark.root  # whiteouts are device nodes


def tree(root: Path, files: dict[str, str | None]) -> Path:
    """``None`` is a whiteout; a slash at the end a directory, two of them an opaque one."""
    root.mkdir()
    for name, content in files.items():
        path = root / name.rstrip("/")
        if name.endswith("/"):
            path.mkdir(exist_ok=True)
            if name.endswith("//"):
                os.setxattr(path, packing.OPAQUE_XATTR, b"y")
        elif content is None:
            os.mknod(path, stat.S_IFCHR, 0)
        else:
            path.write_text(content)
            os.utime(path, (0, 0))
    return root


def told(upper: Path, *lowers: Path) -> list[str]:
    letters = {0: "C", 1: "A", 2: "D"}
    return [f"{letters[one.kind]} {one.path.decode()}" for one in changes(upper, lowers)]


LOWER: dict[str, str | None] = {
    "d/": "",
    "d/file": "x",
    "d/other": "y",
    "d/sub/": "",
    "d/sub/deep": "z",
    "top": "t",
}


def test_added_changed_and_deleted(tmp_path: Path) -> None:
    lower = tree(tmp_path / "lower", LOWER)
    upper = tree(
        tmp_path / "upper",
        {
            "d/": "",
            "d/file": "longer",
            "d/other": None,
            "d/new": "",
            "fresh/": "",
            "fresh/in": "",
            "top": "t",
        },
    )
    assert told(upper, lower) == [
        "C /d",
        "C /d/file",
        "A /d/new",
        "D /d/other",
        "A /fresh",
        "A /fresh/in",
    ]


def test_a_directory_that_is_only_on_the_way_counts_when_something_in_it_changed(
    tmp_path: Path,
) -> None:
    lower = tree(tmp_path / "lower", LOWER)
    upper = tree(tmp_path / "upper", {"d/": "", "d/sub/": "", "d/sub/deep": "z!"})
    assert told(upper, lower) == ["C /d", "C /d/sub", "C /d/sub/deep"]
    untouched = tree(tmp_path / "untouched", {"d/": "", "d/sub/": "", "d/sub/deep": "z"})
    assert told(untouched, lower) == []
    (untouched / "d" / "sub").chmod(0o700)
    assert told(untouched, lower) == ["C /d", "C /d/sub"]


def test_opaque_directories_and_several_layers(tmp_path: Path) -> None:
    lower = tree(tmp_path / "lower", LOWER)
    middle = tree(tmp_path / "middle", {"d/": "", "d/other": None, "d/middle": "m"})
    upper = tree(tmp_path / "upper", {"d//": "", "d/file": "x", "top": None})
    assert told(upper, middle, lower) == ["C /d", "D /d/middle", "D /d/sub", "D /top"]
    hidden = tree(tmp_path / "hidden", {"d//": ""})
    again = tree(tmp_path / "again", {"d/": "", "d/file": "x"})
    assert told(again, hidden, lower) == ["C /d", "A /d/file"]


def test_one_kind_takes_the_place_of_another(tmp_path: Path) -> None:
    lower = tree(tmp_path / "lower", LOWER)
    upper = tree(tmp_path / "upper", {"d": "file now", "top/": "", "top/in": ""})
    assert told(upper, lower) == ["C /d", "C /top", "A /top/in"]


def test_links_lead_nowhere(tmp_path: Path) -> None:
    lower = tree(tmp_path / "lower", LOWER)
    upper = tree(tmp_path / "upper", {})
    (upper / "d").symlink_to("/etc")
    (lower / "link").symlink_to("/etc")
    (upper / "link").mkdir()
    (upper / "link" / "passwd").write_text("")
    assert told(upper, lower) == ["C /d", "C /link", "A /link/passwd"]


def test_a_written_tree_is_copied_with_its_marks(tmp_path: Path) -> None:
    upper = tree(tmp_path / "upper", {"d//": "", "d/gone": None, "file": "x"})
    os.link(upper / "file", upper / "d" / "again")
    os.chown(upper / "file", 33, 34)
    (upper / "file").chmod(0o4755)
    os.setxattr(upper / "d", "user.note", b"n")
    os.mkfifo(upper / "pipe")
    copy = tmp_path / "copy"
    copy.mkdir()
    source, target = trees.open_directory(upper), trees.open_directory(copy)
    try:
        copying.copy_layer(source, target)
    finally:
        os.close(source)
        os.close(target)
    assert packing.measure(copy) == packing.measure(upper)
    assert packing.is_opaque(copy / "d")
    assert (copy / "file").stat().st_nlink == 2
    assert stat.S_IMODE((copy / "file").stat().st_mode) == 0o4755

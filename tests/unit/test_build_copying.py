"""Where COPY puts things, and how they look there. Runs as root: files are given owners."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import attrs
import pytest

from supervisor.build import copying
from supervisor.build.copying import Rules
from supervisor.build.sources import find
from supervisor.errors import InvalidArgument
from supervisor.store import trees

pytestmark = pytest.mark.root


@attrs.frozen
class Both:
    """A context with some files, and an image with some."""

    context: Path
    image: Path

    def copy(self, *words: str, rules: Rules = Rules()) -> list[str]:  # noqa: B008
        source, root = trees.open_directory(self.context), trees.open_directory(self.image)
        try:
            copying.copy(source, find(source, words[:-1], "build context"), root, words[-1], rules)
        finally:
            os.close(source)
            os.close(root)
        return sorted(
            str(path.relative_to(self.image)) for path in self.image.rglob("*") if not path.is_dir()
        )


@pytest.fixture
def both(tmp_path: Path) -> Both:
    context, image = tmp_path / "context", tmp_path / "image"
    (context / "dir" / "deep").mkdir(parents=True)
    image.mkdir()
    for name in ("a.txt", "b.txt", "dir/c", "dir/deep/d"):
        (context / name).write_text(name)
        (context / name).chmod(0o640)
        os.utime(context / name, (1_000_000, 1_000_000))
    (context / "link").symlink_to("a.txt")
    (context / "dir" / "inner").symlink_to("/etc/passwd")
    (context / "out").symlink_to("../../../../etc")
    return Both(context, image)


def test_a_file_to_a_name_or_into_a_directory(both: Both) -> None:
    assert both.copy("a.txt", "/x/y") == ["x/y"]
    assert both.copy("a.txt", "/x/") == ["x/a.txt", "x/y"]
    assert both.copy("b.txt", "/x") == ["x/a.txt", "x/b.txt", "x/y"]
    assert both.copy("link", "/l")[0] == "l"
    assert (both.image / "l").read_text() == "a.txt"


def test_of_a_directory_the_content(both: Both) -> None:
    assert both.copy("dir", "/t") == ["t/c", "t/deep/d", "t/inner"]
    assert os.readlink(both.image / "t" / "inner") == "/etc/passwd"


def test_patterns_need_a_directory_for_several(both: Both) -> None:
    with pytest.raises(InvalidArgument, match="several sources"):
        both.copy("*.txt", "/t")
    assert both.copy("*.t[a-x]t", "/t/") == ["t/a.txt", "t/b.txt"]
    with pytest.raises(InvalidArgument, match="nothing in build context matches"):
        both.copy("*.none", "/t/")


def test_what_is_named_must_be_there_and_never_leads_out(both: Both) -> None:
    for name in ("none", "a.txt/x", "out/passwd", "../../../../etc/passwd", "/etc/passwd"):
        with pytest.raises(InvalidArgument, match="COPY failed"):
            both.copy(name, "/t/")


def test_owner_mode_and_times(both: Both) -> None:
    both.copy("dir", "/t", rules=Rules(uid=33, gid=44, epoch=500_000))
    status = (both.image / "t" / "c").stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (33, 44, 0o640)
    assert status.st_mtime == 500_000
    both.copy("dir", "/u", rules=Rules(mode=0o4755))
    assert stat.S_IMODE((both.image / "u" / "deep" / "d").stat().st_mode) == 0o4755
    assert (both.image / "u" / "c").stat().st_mtime == 1_000_000


def test_links_of_the_image_stay_in_the_image(both: Both, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (both.image / "real").mkdir()
    (both.image / "inside").symlink_to("/real")
    (both.image / "outside").symlink_to(victim)
    assert "real/a.txt" in both.copy("a.txt", "/inside/")
    with pytest.raises((InvalidArgument, OSError)):
        both.copy("a.txt", "/outside/x/")
    (both.image / "file").symlink_to(victim / "made")
    both.copy("a.txt", "/file")
    assert (both.image / "file").is_file()
    assert not (both.image / "file").is_symlink()
    assert list(victim.iterdir()) == []


def test_a_directory_and_a_file_do_not_replace_each_other(both: Both) -> None:
    (both.image / "c").mkdir()
    (both.image / "deep").write_text("in the way")
    with pytest.raises(InvalidArgument, match="a directory has its name"):
        both.copy("dir", "/")
    (both.image / "c").rmdir()
    with pytest.raises(InvalidArgument, match="something else has its name"):
        both.copy("dir", "/")
    with pytest.raises(InvalidArgument, match="a file is in the way"):
        both.copy("dir", "/deep")


def test_fifos_are_copied_and_never_opened(both: Both) -> None:
    os.mkfifo(both.context / "dir" / "fifo")
    both.copy("dir", "/t")
    assert stat.S_ISFIFO((both.image / "t" / "fifo").stat().st_mode)


def test_names_that_are_no_text(both: Both) -> None:
    (both.context / os.fsdecode(b"dir/\xff\xfe")).write_text("x")
    both.copy("dir", "/t")
    assert (both.image / os.fsdecode(b"t/\xff\xfe")).read_text() == "x"


def test_a_very_deep_tree_is_refused(both: Both) -> None:
    here = trees.open_directory(both.context / "dir")
    for _ in range(copying.DEPTH_MAX + 2):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", trees.DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    with pytest.raises(InvalidArgument, match="levels deep"):
        both.copy("dir", "/t")
    trees.remove(both.context / "dir")
    trees.remove(both.image / "t")

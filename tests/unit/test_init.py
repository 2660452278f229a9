"""The init of containers: found, copied, refused by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.errors import InvalidArgument
from supervisor.runtime import init


def test_what_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="tini-static") as caught:
        init.find_init(str(tmp_path))
    assert "package tini" in caught.value.hint


def test_the_copy_is_made_anew_when_the_hosts_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tini-static"
    monkeypatch.setattr(init, "find_init", lambda: program)
    (tmp_path / "run").mkdir()
    for text in ("one", "another"):
        program.write_text(text)
        mount = init.place_init(tmp_path / "run")
        assert Path(mount.source).read_text() == text
        assert Path(mount.source).stat().st_mode & 0o777 == 0o755
        assert mount.target == "/sbin/docker-init"
        assert "ro" in mount.options


@pytest.mark.parametrize(
    ("flags", "said"),
    [(os.ST_NOATIME, "noatime"), (os.ST_RELATIME, "relatime"), (0, "strictatime")],
)
def test_times_of_access_are_kept_as_where_the_copy_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: int, said: str
) -> None:
    here = os.statvfs(tmp_path)
    told = os.statvfs_result((*here[:8], flags, *here[9:]))
    monkeypatch.setattr(os, "statvfs", lambda _: told)
    monkeypatch.setattr(init, "find_init", lambda: Path("/bin/true"))
    assert init.place_init(tmp_path).options[-1] == said

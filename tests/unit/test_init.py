"""The init of containers: found, copied, refused by name."""

from __future__ import annotations

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

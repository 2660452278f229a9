"""What a step's cache key holds, and what it does not."""

from __future__ import annotations

import os
from pathlib import Path

import attrs

from supervisor.build import cache
from supervisor.build.content_keys import Digests, content_key
from supervisor.build.graph import Files, MakeDirectory, Run
from supervisor.build.sources import find
from supervisor.store import trees

RUN = Run(args=("/bin/sh", "-c", "make"), env=("A=1",), working_dir="/", user="")
COPY = Files(sources=("a",), target="/x")


def key_below(root: Path, *sources: str, owners: bool = False) -> str:
    descriptor = trees.open_directory(root)
    try:
        return content_key(
            descriptor, find(descriptor, sources, "context"), Digests(), owners=owners
        )
    finally:
        os.close(descriptor)


def test_a_run_belongs_to_its_owner_and_to_what_it_stands_on() -> None:
    key = cache.run_key(RUN, ["l1"], 1000, remapped=True)
    assert key == cache.run_key(RUN, ["l1"], 1000, remapped=True)
    others = {
        cache.run_key(RUN, ["l1"], 1001, remapped=True),
        cache.run_key(RUN, ["l1"], 1000, remapped=False),
        cache.run_key(RUN, ["l2"], 1000, remapped=True),
        cache.run_key(attrs.evolve(RUN, env=("A=2",)), ["l1"], 1000, remapped=True),
        cache.run_key(attrs.evolve(RUN, network="none"), ["l1"], 1000, remapped=True),
    }
    assert len(others | {key}) == 6


def test_a_copy_is_known_by_what_it_read() -> None:
    renamed = attrs.evolve(COPY, sources=("b",))
    assert cache.files_key(COPY, ["l"], "c") == cache.files_key(renamed, ["l"], "c")
    assert cache.files_key(COPY, ["l"], "c") != cache.files_key(COPY, ["l"], "d")
    assert cache.files_key(COPY, ["l"], "c") != cache.files_key(
        attrs.evolve(COPY, mode=0o600), ["l"], "c"
    )
    assert cache.files_from_key(COPY, ["l"], ["s"]) != cache.files_from_key(renamed, ["l"], ["s"])
    assert cache.directory_key(MakeDirectory("/a"), ["l"]) != cache.directory_key(
        MakeDirectory("/b"), ["l"]
    )


def test_times_do_not_count_and_all_else_does(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "f").write_text("text")
    (tmp_path / "d" / "l").symlink_to("f")
    before = key_below(tmp_path, "d")
    os.utime(tmp_path / "d" / "f", (1, 1))
    os.utime(tmp_path / "d", (1, 1))
    assert key_below(tmp_path, "d") == before
    seen = [before]
    file = tmp_path / "d" / "f"
    file.write_text("next")
    seen.append(key_below(tmp_path, "d"))
    file.chmod(0o600)
    seen.append(key_below(tmp_path, "d"))
    file.rename(tmp_path / "d" / "g")
    seen.append(key_below(tmp_path, "d"))
    (tmp_path / "d" / "l").unlink()
    (tmp_path / "d" / "l").symlink_to("g")
    seen.append(key_below(tmp_path, "d"))
    (tmp_path / "d" / "empty").mkdir()
    seen.append(key_below(tmp_path, "d"))
    os.setxattr(tmp_path / "d" / "g", "user.a", b"b")
    seen.append(key_below(tmp_path, "d"))
    assert len(set(seen)) == len(seen)


def test_names_and_contents_cannot_be_confused(tmp_path: Path) -> None:
    (tmp_path / "ab").write_text("c")
    (tmp_path / "a").write_text("bc")
    assert key_below(tmp_path, "ab") != key_below(tmp_path, "a")
    assert key_below(tmp_path, "a", "ab") != key_below(tmp_path, "ab", "a")

"""Fault points: what they are called, when they are armed, and that a process dies at the one that is ordered."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor import faults
from supervisor.faults import Door
from supervisor.linux import cgroup_files
from tests.support.faults import Faults, Passage

DYING = """
import os
from supervisor import faults
assert faults.arm(os.environ, installed=False)
for count in range(5):
    faults.before(faults.Door.COMMIT, "it")
    print("done", flush=True)
    if count % 2:
        open("/dev/null", "w").close()
    faults.after(faults.Door.COMMIT, "it")
"""


@pytest.fixture
def orders(tmp_path: Path) -> Iterator[Faults]:
    made = Faults(tmp_path)
    yield made
    faults.arm({}, installed=False)


def work() -> None: ...


def test_a_passage_is_named_by_what_goes_through(orders: Faults) -> None:
    assert faults.arm(orders.variables, installed=False)
    orders.record()

    def inner() -> None: ...

    class Callable:
        def __call__(self) -> None: ...

    for what in (work, inner, lambda: None, functools.partial(work), Callable()):
        faults.before(Door.THREAD, what)
    faults.after(Door.SPAWNER, "overlay")
    command = ("/bin/sh", "-c", "echo $0", "/usr/bin/conmon", "--log", "/x/run1", "start", "b1b2")
    faults.before(Door.SPAWNER, "spawn", command)
    here = "test_a_passage_is_named_by_what_goes_through"
    module = __name__
    assert orders.off() == [
        Passage(f"before thread {module}:work", 1),
        Passage(f"before thread {module}:{here}", 1),
        Passage(f"before thread {module}:{here}", 2),
        Passage(f"before thread {module}:work", 2),
        Passage(f"before thread {module}:Callable", 1),
        Passage("after spawner overlay", 1),
        Passage("before spawner spawn sh conmon", 1),
    ]
    faults.before(Door.THREAD, work)
    assert orders.off() == []


def test_every_order_counts_anew(orders: Faults) -> None:
    faults.arm(orders.variables, installed=False)
    for _ in range(2):
        orders.die_at(Passage("never", 1))
        faults.before(Door.THREAD, work)
        assert [passage.number for passage in orders.off()] == [1]


def test_the_installed_daemon_is_never_armed(orders: Faults) -> None:
    assert not faults.arm(orders.variables, installed=True)
    orders.record()
    faults.before(Door.COMMIT, "it")
    assert orders.off() == []
    assert not faults.arm({}, installed=False)


@pytest.mark.parametrize(
    ("passage", "done"),
    [
        (Passage("before commit it", 1), 0),
        (Passage("after commit it", 1), 1),
        (Passage("before commit it", 3), 2),
        (Passage("before file elsewhere open", 2), 4),
    ],
)
def test_a_process_dies_at_the_passage_that_is_ordered(
    orders: Faults, passage: Passage, done: int
) -> None:
    orders.die_at(passage)
    ended = subprocess.run(
        [sys.executable, "-c", DYING],
        env=orders.variables,
        capture_output=True,
        check=False,
        cwd=Path(__file__).parents[2],
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "done\n" * done), ended.stderr


def test_whatever_happens_to_files_is_heard_of(orders: Faults, tmp_path: Path) -> None:
    """In any thread, and by whichever call; what changes nothing is no passage."""
    faults.arm(orders.variables, installed=False)
    place = tmp_path.parent / f"{tmp_path.name}-files"
    orders.record()

    def change() -> None:
        for _ in range(2):
            cgroup_files.make(place)
        cgroup_files.make(place / "below")
        assert cgroup_files.remove(place / "below")
        assert cgroup_files.remove_one(place / "below")
        (place / "file").write_text("7")
        assert cgroup_files.number(place / "file") == 7
        cgroup_files.write(place / "file", 8)
        with pytest.raises(FileNotFoundError):
            cgroup_files.write(place / "none", 8)
        shutil.rmtree(place)

    thread = threading.Thread(target=change)
    thread.start()
    thread.join()
    assert [
        (passage.name.removeprefix("before file "), passage.number) for passage in orders.off()
    ] == [
        ("linux.cgroup_files:make mkdir", 1),
        ("linux.cgroup_files:make mkdir", 2),
        ("linux.cgroup_files:remove rmdir", 1),
        ("elsewhere open", 1),
        ("linux.cgroup_files:write open", 1),
        ("linux.cgroup_files:write open", 2),
        ("elsewhere remove", 1),
        ("elsewhere rmdir", 1),
    ]
    place.mkdir()
    place.rmdir()
    assert orders.off() == []

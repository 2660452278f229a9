"""The host's option for quick moves between cgroups: set while the daemon runs, and as it was afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.linux.favordynmods import OPTION, favouring_moves
from supervisor.linux.mount_namespace import cgroup2_options
from tests.support.daemon import new_daemon
from tests.support.spawners import spawner_in

pytestmark = pytest.mark.root


async def test_the_option_is_as_it_was_afterwards(tmp_path: Path) -> None:
    run_root = tmp_path / "run"
    async with spawner_in(run_root, tmp_path) as spawner:
        before = cgroup2_options()
        async with favouring_moves(spawner, run_root, wanted=True):
            during = cgroup2_options()
            assert set(before) <= set(during)
            noted = (run_root / OPTION).exists()
            assert noted == (OPTION in during and OPTION not in before)
        assert cgroup2_options() == before
        assert not (run_root / OPTION).exists()


async def test_a_killed_daemons_option_is_taken_back_by_the_next(tmp_path: Path) -> None:
    run_root = tmp_path / "run"
    async with spawner_in(run_root, tmp_path) as spawner:
        before = cgroup2_options()
        if OPTION in before:
            pytest.skip("the host favours moves by itself, or another daemon of it does")
        try:
            await spawner.call("cgroup2_option", {"option": OPTION, "wanted": True})
        except OSError:
            pytest.skip("needs a kernel with the option (6.0)")
        (run_root / OPTION).touch()  # so far the killed one came
        async with favouring_moves(spawner, run_root, wanted=True):
            assert OPTION in cgroup2_options()
        assert cgroup2_options() == before


async def test_what_is_not_wanted_is_not_set(tmp_path: Path) -> None:
    run_root = tmp_path / "run"
    async with spawner_in(run_root, tmp_path) as spawner:
        before = cgroup2_options()
        async with favouring_moves(spawner, run_root, wanted=False):
            assert cgroup2_options() == before


def test_a_daemon_that_ends_leaves_it_as_it_was() -> None:
    """Also when it was the last thing of the daemon's that was left."""
    before = cgroup2_options()
    daemon = new_daemon("root")
    try:
        daemon.start()
        assert set(before) <= set(cgroup2_options())
        assert daemon.close() == []
    finally:
        daemon.clear()
    assert cgroup2_options() == before

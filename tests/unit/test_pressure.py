"""What PSI files say, and that a trigger fires."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from supervisor.errors import Unavailable
from supervisor.linux import pressure

TEXT = """some avg10=1.50 avg60=2.00 avg300=0.34 total=5773011
full avg10=0.25 avg60=0.50 avg300=0.00 total=12
"""


def test_both_lines_are_read() -> None:
    assert pressure.parse(TEXT) == pressure.Pressure(1.5, 2.0, 5_773_011, 0.25, 0.5, 12)


def test_a_missing_line_is_no_pressure() -> None:
    assert pressure.parse(TEXT.splitlines()[0]).full_avg10 == 0.0
    assert pressure.parse("") == pressure.Pressure()


def test_no_file_is_no_pressure_known(tmp_path: Path) -> None:
    assert pressure.read(tmp_path / "memory.pressure") is None


async def test_no_trigger_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot watch"):
        async with pressure.open_trigger(tmp_path / "memory", stalled_microseconds=100_000):
            pass


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/pressure/cpu").exists() or os.geteuid() != 0, reason="needs PSI and root"
)
async def test_a_trigger_wakes_when_the_threshold_is_crossed_and_not_before() -> None:
    async with pressure.open_trigger(
        "/proc/pressure/memory", stalled_microseconds=1_900_000
    ) as quiet:
        with trio.move_on_after(0.3) as scope:
            await quiet.wait()
        assert scope.cancelled_caught
    async with pressure.open_trigger("/proc/pressure/cpu", stalled_microseconds=20_000) as busy:
        async with trio.open_nursery() as nursery:
            for _ in range(6):
                nursery.start_soon(_burn)
            with trio.fail_after(10):
                await busy.wait()
            nursery.cancel_scope.cancel()


async def _burn() -> None:
    await trio.run_process(["sh", "-c", "while :; do :; done"], check=False)

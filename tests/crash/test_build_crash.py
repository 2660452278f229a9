"""The daemon is killed in the middle of builds: the next start leaves nothing of them, and tells that they failed."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path

import pytest

from tests.support.archives import tar_of
from tests.support.building import begin_build, build_cgroups
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

RECIPE = b"FROM busybox AS a\nCOPY . /x\nRUN sleep 0.2; echo a\nFROM busybox\nCOPY --from=a /x /x\nRUN sleep 987653\n"
MOMENTS = (0.05, 0.15, 0.3, 0.8)


@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_in_a_build(daemon: Daemon, moment: float) -> None:
    daemon.import_busybox()
    context = tar_of(
        {"Dockerfile": RECIPE, **{f"f{number}": os.urandom(500) for number in range(50)}}
    )
    process = begin_build(daemon, context)
    time.sleep(moment)
    daemon.kill()
    process.wait(10)
    daemon.start()
    assert list((daemon.data_root / "builds").iterdir()) == []
    assert not list((daemon.run_root / "builds").glob("u*/*"))
    assert list(build_cgroups(daemon)) == []
    assert not any(b"987653" in command for command in commands())
    told = [
        json.loads(line)
        for line in daemon.bakehouse("events", "--from", "oldest", "--json").stdout.splitlines()
    ]
    begun = [event["subject"] for event in told if event["type"] == "build.start"]
    ended = [
        event["subject"]
        for event in told
        if event["type"] in {"build.fail", "build.cancel", "build.done"}
    ]
    assert sorted(begun) == sorted(ended)
    again = daemon.docker(
        "build", "-", input_=tar_of({"Dockerfile": b"FROM busybox\nRUN echo well\n"})
    )
    assert "Successfully built" in again.stdout


def commands() -> list[bytes]:
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            found.append(Path("/proc", pid, "cmdline").read_bytes())
    return found

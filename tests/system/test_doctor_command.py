"""``bakehouse doctor``, as root and as others, with a daemon and without: what it says, its exit status, what it leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.accounts import People, User
from tests.support.daemon import REPOSITORY, Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

TRIED = ("runtime", "storage", "ids", "firewall")


def told(daemon: Daemon, *options: str, user: User | None = None) -> dict[str, dict[str, str]]:
    """What the doctor says, by subject; the last of several."""
    settings = str(daemon.root / "config.toml")
    done = daemon.bakehouse(
        "doctor", "--config", settings, "--json", *options, user=user, check=False
    )
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads(done.stdout)
    assert (done.returncode == 0) == (found["standing"] != "broken")
    return {one["subject"]: one for one in found["findings"]}


def left_by_doctors(daemon: Daemon) -> Iterator[str]:
    """What a doctor that has ended would have left: its things carry its name."""
    for folder in (Path("/run"), daemon.data_root):
        yield from (str(path) for path in folder.glob(".*bakehouse-doctor-*"))
        yield from (str(path) for path in folder.glob("bakehouse-doctor-*"))
    for top in Path("/sys/fs/cgroup").iterdir():
        yield from (str(path) for path in top.glob("bakehouse-doctor-*"))
    yield from (name for name in ("bridge0", "pair0") if Path("/sys/class/net", name).exists())
    tables = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    yield from (line for line in tables.stdout.splitlines() if line.split()[-1] == "doctor")
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    yield from (line for line in mounts if "bakehouse-doctor" in line)


def test_root_gets_everything_and_nothing_is_left(daemon: Daemon) -> None:
    found = told(daemon)
    assert [found[subject]["standing"] for subject in TRIED] == ["ok"] * len(TRIED), found
    assert all(one["standing"] != "unseen" for one in found.values())
    assert "runs a container" in found["runtime"]["said"]
    assert found["daemon"]["standing"] == "ok"
    assert str(daemon.socket) in found["daemon"]["said"]
    assert "its runtime" in found
    assert sorted(left_by_doctors(daemon)) == []


def test_a_user_gets_what_can_be_seen_and_the_daemons_answer(
    daemon: Daemon, two_users: People
) -> None:
    found = told(daemon, user=two_users.ada)
    for subject in TRIED:
        assert found[subject]["standing"] == "unseen"
        assert "only root" in found[subject]["advice"]
    assert found["daemon"]["standing"] == "ok"
    assert found["its runtime"]["standing"] == "ok"
    assert found["its disk"]["said"]
    assert str(daemon.root) not in json.dumps(found["its runtime"])


def test_a_stranger_is_told_how_to_be_let_in(daemon: Daemon, two_users: People) -> None:
    found = told(daemon, user=two_users.eve)
    assert found["daemon"]["standing"] == "broken"
    assert "group" in found["daemon"]["advice"]
    assert not [subject for subject in found if subject.startswith("its ")]


def test_without_a_daemon(daemon: Daemon, tmp_path: Path) -> None:
    nowhere = str(tmp_path / "socket")
    done = daemon.bakehouse("--socket", nowhere, "doctor")
    lines = done.stdout.splitlines()
    assert any(line.startswith("degraded  daemon") and nowhere in line for line in lines)
    assert any(line.startswith("ok        kernel") for line in lines)
    strict = daemon.bakehouse("--socket", nowhere, "doctor", "--strict", check=False)
    assert strict.returncode == 1


def test_from_a_source_tree_with_the_systems_python(daemon: Daemon) -> None:
    python = "/usr/bin/python3"
    asked = [python, "-c", "import sys; sys.exit(sys.version_info < (3, 11))"]
    if not Path(python).exists() or subprocess.run(asked, check=False).returncode:
        python = sys.executable
    words = [python, "-m", "supervisor.doctor", "--before-install", "--json"]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    subjects = {one["subject"] for one in found["findings"]}
    assert subjects >= {"kernel", "cgroups", "storage"}
    assert not subjects & {"daemon", "groups", "systemd"}


def test_a_broken_disk_is_told_and_is_a_fault(daemon: Daemon, tmp_path: Path) -> None:
    settings = tmp_path / "bakehouse.toml"
    settings.write_text('data_root = "/proc"\n')
    done = daemon.bakehouse("doctor", "--config", str(settings), check=False)
    assert done.returncode == 1
    assert "broken    storage" in done.stdout

"""What deploy/install asks before it changes anything: every reason at once, and by name."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
TOOLS = ("awk", "bash", "cat", "env", "grep", "head", "id", "ls", "sed", "sort", "tr", "uname")


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A search path with a shell's tools alone: no apt, no runtime, no monitor."""
    for tool in TOOLS:
        found = next(
            Path(place, tool) for place in ("/usr/bin", "/bin") if Path(place, tool).exists()
        )
        (tmp_path / tool).symlink_to(found)
    return str(tmp_path)


def asked(shell: str, path: str = os.environ["PATH"]) -> list[str]:
    """The reasons that are left when ``shell`` has run."""
    script = f"""
        set -euo pipefail
        here={ROOT} log=/dev/null
        say() {{ :; }}
        fail() {{ echo "FAILED $*"; exit 1; }}
        . {DEPLOY}/packages.sh
        . {DEPLOY}/preflight.sh
        {shell}
        printf '%s\\n' "${{reasons[@]}}"
    """
    done = subprocess.run(
        ["/bin/bash", "-c", script], env={"PATH": path}, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_an_old_kernel() -> None:
    reasons = asked("uname() { echo 5.10.0-28-amd64; }; check_kernel")
    assert (
        len([reason for reason in reasons if "5.10.0-28-amd64" in reason and "5.19" in reason]) == 1
    )


@pytest.mark.parametrize(
    ("release", "old"),
    [
        ("5.18.19", True),
        ("5.19.0-rc1", False),
        ("5.19", False),
        ("6.1.0-31-amd64", False),
        ("10.2", False),
    ],
)
def test_versions_are_compared_as_numbers(release: str, *, old: bool) -> None:
    assert (
        "old" in asked(f"if older {release.split('-', maxsplit=1)[0]} 5.19; then cannot old; fi")
    ) == old


def test_a_kernel_without_what_is_needed() -> None:
    reasons = asked(
        "has() { return 1; }; grep() { return 1; }; uname() { echo 6.1; }; check_kernel"
    )
    for missing in ("overlay", "nftables", "bridges", "veth"):
        assert any(f"no {missing}" in reason for reason in reasons), reasons


def test_a_controller_that_is_off() -> None:
    reasons = asked("awk() { echo cpu; echo pids; }; cat() { echo cpu pids; }; check_cgroups")
    assert [reason for reason in reasons if "memory" in reason] == reasons
    assert len(reasons) == 1


def test_programs_that_no_package_brings(bare_path: str) -> None:
    reasons = asked("check_programs", bare_path)
    assert any("runtime" in reason for reason in reasons)
    assert any("conmon" in reason for reason in reasons)


def test_a_python_that_is_too_old(bare_path: str) -> None:
    (reason,) = asked("find_python() { return 1; }; check_python ''", bare_path)
    assert "Python 3.11" in reason


def test_who_is_not_root_is_told() -> None:
    (reason,) = asked("id() { echo 1000; }; check_rights")
    assert "root" in reason


def test_what_the_doctor_finds_broken_is_a_reason(tmp_path: Path) -> None:
    checks = tmp_path / "supervisor" / "doctor"
    checks.mkdir(parents=True)
    for name in ("__init__.py", "findings.py", "place.py"):
        (checks / name).write_text((ROOT / "supervisor" / "doctor" / name).read_text())
    (tmp_path / "supervisor" / "__init__.py").touch()
    (checks / "checks.py").write_text(
        "from supervisor.doctor.findings import broken, degraded, ok\n"
        "def examine(place, *, before):\n"
        "    assert before\n"
        "    yield 'kernel', (broken('kernel', 'too old', 'get another'), ok('x', 'y'))\n"
        "    yield 'runtime', (broken('runtime', 'none', 'apt install crun'), degraded('d', 'e'))\n"
    )
    asking = "find_python; here={}; check_by_doctor {}"
    assert asked(asking.format(tmp_path, "")) == [
        "kernel: too old (get another)",
        "runtime: none (apt install crun)",
    ]
    assert asked(asking.format(tmp_path, "unpacked")) == ["kernel: too old (get another)"]


def test_a_doctor_that_fails_is_no_good_news(tmp_path: Path) -> None:
    (reason,) = asked(f"find_python; here={tmp_path}; check_by_doctor")
    assert "doctor" in reason


def test_all_reasons_are_told_and_nothing_is_changed(bare_path: str) -> None:
    """Where no systemd can be seen, nor any other program."""
    if Path("/run/systemd/system").exists() and os.getuid() == 0:
        pytest.skip("this machine could be served")
    done = subprocess.run(
        [DEPLOY / "install", "--check"],
        env={"PATH": f"{bare_path}:{_tools(Path(bare_path))}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "systemd does not run here" in done.stderr
    assert "no OCI runtime" in done.stderr
    assert done.stderr.endswith("nothing was changed\n")


def _tools(directory: Path) -> str:
    more = directory / "more"
    more.mkdir()
    for tool in ("dirname", "mktemp", "rm", "mkdir"):
        (more / tool).symlink_to(Path("/usr/bin", tool))
    return str(more)


@pytest.mark.parametrize(
    "script", ["install", "uninstall", "wheels", "setup", "packages.sh", "preflight.sh"]
)
def test_scripts_are_bash(script: str) -> None:
    subprocess.run(["/bin/bash", "-n", DEPLOY / script], check=True)


@pytest.mark.parametrize("words", [["--no-such"], ["--root"], ["--wheels"]])
def test_a_wrong_command_line_is_2_and_the_usage(words: list[str]) -> None:
    done = subprocess.run([DEPLOY / "install", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "deploy/install --check" in done.stderr

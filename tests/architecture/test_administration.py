"""What ``docs/administration.md`` says of the units is so, and the units are as systemd wants them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.doctor.judge import KERNEL_NEEDED

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
DOCUMENT = (ROOT / "docs" / "administration.md").read_text()
DAEMON = (UNITS / "bakehouse.service").read_text()
HARDENING_MARK = "# --- hardening"
EXPOSURE_TOLERANCE = 0.4
"""Between versions of systemd, which judge a little differently."""


def directives(text: str) -> list[str]:
    return [line.partition("=")[0] for line in text.splitlines() if re.match(r"[A-Z]\w+=", line)]


def table(heading: str) -> str:
    """The table below the line that begins with ``heading``: its first column."""
    lines = iter(DOCUMENT.partition(heading)[2].splitlines()[2:])
    return "\n".join(_first_column(lines))


def _first_column(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        if not line.startswith("|"):
            return
        yield re.split(r"(?<!\\)\|", line)[1].replace("\\|", "|")


@pytest.fixture
def placed(tmp_path: Path) -> list[str]:
    """The units as they are, but for a daemon that is there; their paths."""
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze")
    for unit in UNITS.iterdir():
        text = re.sub(
            r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE
        )
        (tmp_path / unit.name).write_text(text)
    return sorted(map(str, tmp_path.iterdir()))


def test_every_line_of_hardening_has_its_reason() -> None:
    told = table("| line | reason |")
    hardening = directives(DAEMON.partition(HARDENING_MARK)[2].partition("[Install]")[0])
    assert len(hardening) > 8
    assert [name for name in hardening if f"`{name}=`" not in told] == []
    assert [name for name in re.findall(r"`(\w+)=`", told) if name not in directives(DAEMON)] == []


def test_the_units_say_why_themselves() -> None:
    for block in DAEMON.partition(HARDENING_MARK)[2].partition("[Install]")[0].split("\n\n")[1:]:
        if directives(block):
            assert block.lstrip("\n").startswith("#"), block


def test_systemd_finds_nothing_wrong(placed: list[str]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *placed],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "bakehouse" in line]
    assert (done.returncode, ours) == (0, [])


def test_what_remains_exposed_is_told_with_its_reason(placed: list[str]) -> None:
    unit = next(path for path in placed if path.endswith("/bakehouse.service"))
    asked = ["systemd-analyze", "security", "--offline=yes", "--no-pager"]
    listed = subprocess.run([*asked, "--json=short", unit], capture_output=True, check=False)
    if listed.returncode:
        pytest.skip(f"this systemd-analyze cannot judge a file: {listed.stderr.decode():.200}")
    told = table("| not set | because |")
    exposed = [one["name"] for one in json.loads(listed.stdout) if one["exposure"]]
    assert len(exposed) > 20
    # Devices are told among what is set.
    missing = [name for name in exposed if not _is_told(name, told) and name != "DeviceAllow="]
    assert missing == []
    shown = subprocess.run([*asked, unit], capture_output=True, text=True, check=True).stdout
    level = re.search(r"Overall exposure level.*: ([\d.]+)", shown)
    said = re.search(r"says \*\*([\d.]+)\*\*", DOCUMENT)
    assert level is not None
    assert said is not None
    assert abs(float(level[1]) - float(said[1])) <= EXPOSURE_TOLERANCE


def _is_told(name: str, told: str) -> bool:
    """A name as systemd writes it: ``User=/DynamicUser=``, ``RestrictNamespaces=~user``, ``CapabilityBoundingSet=~CAP_BPF``."""
    directive, _, part = name.partition("=~")
    if not part:
        return all(f"`{one}" in told for one in name.split("/"))
    return f"`{directive}=`" in told or f"~{part}`" in told or f"`{part}`" in told


def test_the_units_are_those_that_are_told() -> None:
    told = set(re.findall(r"`(bakehouse[\w-]*\.\w+)`", table("| unit | is | stopping it |")))
    assert told == {unit.name for unit in UNITS.iterdir()}


def test_the_kernel_that_is_asked_for_is_the_doctors() -> None:
    least = ".".join(map(str, KERNEL_NEEDED))
    assert f"KERNEL_LEAST={least} " in (ROOT / "deploy" / "preflight.sh").read_text()
    assert f"Linux {least}" in DOCUMENT

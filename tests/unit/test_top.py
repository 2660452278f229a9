"""``bakehouse top`` on a sample."""

from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from protocol.samples import ContainerSample, HostSample, OwnerSample, Usage, Waiting
from supervisor.cli import top

MIB = 1 << 20
NAMES = {1000: "ada", 1001: "bob"}

SAMPLE = HostSample(
    time_ns=1,
    seconds=1.0,
    processors=2,
    cpu_cores=1.75,
    load1=2.0,
    load5=1.0,
    load15=0.5,
    memory_total_bytes=4_096 * MIB,
    memory_available_bytes=1_024 * MIB,
    memory_some_percent=25.0,
    memory_full_percent=3.0,
    verdict="tight",
    reason="work waited for memory 25 %",
    tickets=Waiting(2, 5),
    owners=(
        OwnerSample(1000, 1, Usage(cpu_cores=0.25, memory_bytes=20 * MIB, pids=1)),
        OwnerSample(1001, 2, Usage(cpu_cores=1.5, memory_bytes=1_536 * MIB, pids=7)),
    ),
    containers=(
        ContainerSample(
            "a" * 64, "web", 1000, Usage(cpu_cores=0.25, memory_bytes=20 * MIB, pids=1)
        ),
        ContainerSample("b" * 64, "quiet", 1001, Usage()),
        ContainerSample(
            "c" * 64,
            "web",
            1001,
            Usage(
                cpu_cores=1.5,
                memory_bytes=1_536 * MIB,
                memory_limit_bytes=2_048 * MIB,
                pids=7,
                pids_limit=64,
                io_read_bytes_per_second=1_500.0,
                oom_kills=2,
                memory_full_percent=3.4,
                io_full_percent=12.0,
            ),
        ),
    ),
)

PLAIN = """\
1.75 of 2 processors busy, load 2.00 1.00 0.50, memory 3.0G of 4.0G
waited in the last 10 s: cpu -, memory 25% (all: 3%), disks - (all: -); starts and steps: 2 working, 5 waiting
tight: work waited for memory 25 %

OWNER  NAME           CPU  MEMORY  LIMIT  PIDS  READ/s  WRITE/s  STALL  OOM
bob    2 containers  150%    1.5G      -     7      0B       0B      -
       web           150%    1.5G   2.0G  7/64    1.5K       0B    12%    2
       quiet           0%      0B      -     0      0B       0B      -
ada    1 container    25%     20M      -     1      0B       0B      -
       web            25%     20M      -     1      0B       0B      -
"""


def test_plain_text() -> None:
    assert top.plain(SAMPLE, NAMES) == PLAIN


def test_a_terminal_shows_the_same_cells() -> None:
    out = io.StringIO()
    Console(file=out, width=140, force_terminal=True, color_system="standard").print(
        top.table(SAMPLE, NAMES)
    )
    shown = out.getvalue()
    for row in top.rows(SAMPLE, NAMES):
        for cell in row.cells:
            assert cell in shown
    assert "\x1b[33mtight" in shown


def test_json_has_all_of_it() -> None:
    told = json.loads(top.as_json(SAMPLE))
    assert told["containers"][2]["usage"]["memory_limit_bytes"] == 2_048 * MIB
    assert told["verdict"] == "tight"
    assert "\n" not in top.as_json(SAMPLE)


def test_an_unknown_uid_is_shown_as_a_number_and_an_idle_host_has_no_rows() -> None:
    assert top.rows(SAMPLE, {})[0].cells[0] == "1001"
    assert top.rows(SAMPLE.visible_to(5), {}) == []
    assert top.plain(SAMPLE.visible_to(5), {}).endswith("OOM\n")


@pytest.mark.parametrize("name", ["\x1b[2Jgone", "[red]x[/red]", "a\nb", "\u202eabc"])
def test_a_hostile_name_is_only_text(name: str) -> None:
    sample = HostSample(
        *(0, 0.0, 1, 0.0, 0.0, 0.0, 0.0, 0, 0),
        owners=(OwnerSample(1, 1, Usage()),),
        containers=(ContainerSample("a", name, 1, Usage()),),
    )
    out = io.StringIO()
    Console(file=out, width=140, force_terminal=False).print(top.table(sample, {}))
    for shown in (top.plain(sample, {}), out.getvalue()):
        assert "\x1b" not in shown
        assert "\u202e" not in shown
        assert top.printable(name) in shown


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1_023, "1023B"),
        (1_024, "1.0K"),
        (1_023.9, "1.0K"),
        (10_240, "10K"),
        (5 << 40, "5.0T"),
        (None, "-"),
    ],
)
def test_sizes(count: float | None, text: str) -> None:
    assert top.size(count) == text

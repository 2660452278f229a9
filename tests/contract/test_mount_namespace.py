"""Making and pinning the daemon's mount namespace, wherever it is started."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.errors import Unavailable
from supervisor.linux.systemd import ServiceManager, check_mounts
from tests.support.daemon import REPOSITORY

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

ENTER = """
import os, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from supervisor.linux import mount_namespace
before = os.readlink("/proc/self/ns/mnt"), os.sched_getaffinity(0)
mount_namespace.enter(Path(sys.argv[2]))
after = os.readlink("/proc/self/ns/mnt"), os.sched_getaffinity(0)
assert before[0] != after[0] and before[1] == after[1], (before, after)
print(after[0])
"""
INSIDE = """
set -e
mount -t tmpfs none "$DIRECTORY"
mount --make-rshared /
for first in $PROCESSORS; do
    for second in $PROCESSORS; do
        taskset -c $first unshare --mount --propagation slave sh -ec '
            made=$(taskset -c '$second' "$PYTHON" -I -c "$ENTER" "$REPOSITORY" "$DIRECTORY/run")
            again=$("$PYTHON" -I -c "$ENTER" "$REPOSITORY" "$DIRECTORY/run")
            test "$made" = "$again"
            echo well
        '
    done
done
"""


def test_in_a_namespace_of_its_own_it_is_pinned_on_whichever_processor_it_was_made(
    tmp_path: Path,
) -> None:
    # Since Linux 6.18 the ids of namespaces come in batches, and an older one may have a higher one.
    processors = sorted(os.sched_getaffinity(0))[:2]
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSIDE],
        env={
            **os.environ,
            "DIRECTORY": str(tmp_path),
            "PROCESSORS": " ".join(map(str, processors)),
            "PYTHON": sys.executable,
            "ENTER": ENTER,
            "REPOSITORY": str(REPOSITORY),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.split() == ["well"] * len(processors) ** 2, done.stderr


def test_a_unit_with_mounts_of_its_own_is_refused() -> None:
    elsewhere = subprocess.Popen(["unshare", "--mount", "sleep", "100"])
    try:
        process = Path("/proc", str(elsewhere.pid))
        while (process / "comm").read_text() != "sleep\n":
            pass
        check_mounts(ServiceManager(), process)
        check_mounts(ServiceManager(unit=True), Path("/proc/self"))
        with pytest.raises(Unavailable, match="mount namespace of its own"):
            check_mounts(ServiceManager(unit=True), process)
    finally:
        elsewhere.kill()
        elsewhere.wait()

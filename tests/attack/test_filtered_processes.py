"""Every process of a user's container is filtered: the first container's, the later ones' whose filter is not compiled anew,
an exec's and a build step's."""

from __future__ import annotations

import pytest

from tests.support.accounts import People
from tests.support.daemon import Daemon

pytestmark = pytest.mark.root

LOOK = ("grep", "^Seccomp:", "/proc/self/status")
FILTERED = ["Seccomp:", "2"]


def test_every_process_is_filtered(daemon: Daemon, two_users: People) -> None:
    ada = two_users.ada
    daemon.import_busybox(user=ada)
    for _ in range(2):
        assert daemon.docker("run", "--rm", "busybox", *LOOK, user=ada).stdout.split() == FILTERED
    daemon.docker(
        "run", "-d", "--name", "filtered", "--cap-drop", "ALL", "busybox", "sleep", "99", user=ada
    )
    assert daemon.docker("exec", "filtered", *LOOK, user=ada).stdout.split() == FILTERED
    recipe = f"FROM busybox\nRUN {' '.join(LOOK)}\n".encode()
    built = daemon.docker("build", "--no-cache", "-", user=ada, input_=recipe).stdout
    assert FILTERED in [line.split() for line in built.splitlines()]
    daemon.docker("rm", "-f", "filtered", user=ada)

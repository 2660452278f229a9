"""Output that goes to the host's journal: a real journald, in a mount namespace of the daemon's own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.accounts import People
from tests.support.daemon import BUSYBOX, Daemon, new_daemon

pytestmark = pytest.mark.root

JOURNALD = Path("/lib/systemd/systemd-journald")
SETUP = """
mount --make-rprivate / && mkdir -p /run/systemd /run/log
mount -t tmpfs none /run/systemd && mount -t tmpfs none /run/log
mkdir -p /run/systemd/journal /run/systemd/journald.conf.d /run/log/journal
printf '[Journal]\\nStorage=volatile\\nReadKMsg=no\\nAudit=no\\n' > /run/systemd/journald.conf.d/own.conf
setsid -f sh -c 'echo $$ > "$0"; exec "$1" >/dev/null 2>&1' "$2" "$1"
until [ -S /run/systemd/journal/socket ]; do sleep 0.05; done
shift 2
exec "$@"
"""


@pytest.fixture(scope="module")
def journaled(two_users: People, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    if Path("/run/systemd/journal/socket").exists() or not JOURNALD.exists():
        pytest.skip("needs a host without a journal, and systemd's journald")
    if not shutil.which("docker") or not BUSYBOX.exists():
        pytest.skip("needs the docker command and busybox-static")
    pid_file = tmp_path_factory.mktemp("journal") / "pid"
    made = new_daemon(two_users.group)
    # One processor: newer kernels number namespaces in batches for each, and a namespace can only be pinned in an older one.
    made.before = (
        "taskset",
        "-c",
        "0",
        "unshare",
        "-m",
        "sh",
        "-c",
        SETUP,
        "sh",
        str(JOURNALD),
        str(pid_file),
    )
    try:
        made.start()
        made.import_busybox("bb")
        made.import_busybox("bb", user=two_users.ada)
        yield made
        assert not made.close()
    finally:
        with contextlib.suppress(OSError, ValueError):
            os.kill(int(pid_file.read_text()), signal.SIGKILL)
        made.clear()


def test_output_goes_to_the_journal_and_comes_back(journaled: Daemon) -> None:
    script = "echo one; echo two >&2; head -c 9000 /dev/zero | tr '\\0' x; echo; sleep 1; echo last"
    options = ("--name", "told", "--log-driver", "journald", "--log-opt", "tag={{.Name}}")
    journaled.docker("run", "-d", *options, "bb", "sh", "-c", script)
    followed = journaled.docker("logs", "-f", "told")
    assert followed.stdout == f"one\n{'x' * 9_000}\nlast\n"
    assert followed.stderr == "two\n"
    assert journaled.docker("logs", "--tail", "1", "told").stdout == "last\n"
    times = journaled.docker("logs", "-t", "told").stdout.splitlines()
    until = times[0].split()[0]
    assert "last" not in journaled.docker("logs", "--until", until, "told").stdout
    assert journaled.docker("logs", "--since", times[-1].split()[0], "told").stdout == "last\n"
    shown = journaled.docker("inspect", "-f", "{{.LogPath}}.{{.HostConfig.LogConfig.Type}}", "told")
    assert shown.stdout == ".journald\n"
    journaled.docker("rm", "told")


def test_the_journal_is_the_administrators(journaled: Daemon, two_users: People) -> None:
    refused = journaled.docker(
        "create", "--log-driver", "journald", "bb", "true", user=two_users.ada, check=False
    )
    assert "log-driver" in refused.stderr


def test_without_a_journal_it_is_refused_by_name(daemon: Daemon) -> None:
    if Path("/run/systemd/journal/socket").exists():
        pytest.skip("this host has a journal")
    daemon.import_busybox("bb")
    refused = daemon.docker("create", "--log-driver", "journald", "bb", "true", check=False)
    assert "failed to initialize logging driver: journald is not enabled" in refused.stderr

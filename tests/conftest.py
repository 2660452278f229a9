"""What all tests share: who may run where, real accounts, a real daemon, and the look at what is left behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support import leftovers
from tests.support.accounts import People, people
from tests.support.daemon import BUSYBOX, Daemon, new_daemon

# A noisy host is slow now and then; that is no fault of a parser's.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")

BEFORE = pytest.StashKey[leftovers.Picture]()
LEFT = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--leftovers",
        action="store_true",
        help="fail when the run leaves anything behind on the host",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if reason := _no_root():
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason=reason))


def _no_root() -> str:
    """Why this host cannot run what is marked ``root``; empty when it can."""
    if os.getuid() != 0:
        return "needs root"
    if not (shutil.which("crun") or shutil.which("runc")):
        return "needs crun or runc"
    if not shutil.which("conmon"):
        return "needs conmon"
    return ""


def pytest_sessionstart(session: pytest.Session) -> None:
    leftovers.mark_run()
    if session.config.getoption("--leftovers"):
        session.config.stash[BEFORE] = leftovers.take()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    before = session.config.stash.get(BEFORE, None)
    if before is None:
        return
    left = session.config.stash[LEFT] = leftovers.settled_beyond(before)
    if left and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for left in config.stash.get(LEFT, []):
        terminalreporter.write_line(f"LEFT BEHIND {left}", red=True)
    if earlier := os.environ.get("BAKEHOUSE_TEST_FAILED_BEFORE"):
        terminalreporter.write_line(f"FAILED BEFORE THE TESTS {earlier}", red=True)


@pytest.fixture(scope="session")
def two_users() -> Iterator[People]:
    """Two real unprivileged users in a group of their own (and a stranger outside it), for the whole run."""
    with people() as made:
        yield made


@pytest.fixture(scope="module")
def daemon(two_users: People) -> Iterator[Daemon]:
    """A real daemon for the tests of one module; its group is the two users'."""
    if not shutil.which("docker"):
        pytest.skip("needs the docker command")
    if not BUSYBOX.exists():
        pytest.skip("needs busybox-static")
    started = new_daemon(two_users.group)
    try:
        started.start()
        yield started
        left = started.close()
        assert not left, f"the daemon left behind: {left}"
    finally:
        started.clear()

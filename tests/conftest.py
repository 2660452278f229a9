"""What all tests share: who may run where, in which order, real accounts, a real daemon, and what a whole run looks at.

A run may have several workers, each with files of its own (``-n``, ``--dist loadfile``): what looks at the whole of it
(``--checks``, ``--leftovers``) is done by the process that leads them.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator

import hypothesis
import pytest

from tests.support import checks, leftovers
from tests.support.accounts import People, people
from tests.support.daemon import BUSYBOX, Daemon, new_daemon

# A noisy host is slow now and then; that is no fault of a parser's.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")

BEFORE = pytest.StashKey[leftovers.Picture]()
CHECKING = pytest.StashKey[list[checks.Check]]()

LONG_FIRST = ("cancel", "crash", "churn", "interop", "attack", "system", "contract")
"""Directories in the order they are run in: those whose files take long first, so that workers end at one time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--leftovers",
        action="store_true",
        help="fail when the run leaves anything behind on the host",
    )
    parser.addoption(
        "--checks",
        action="store_true",
        help="run linter, formatter, type checker and import contracts beside the tests",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_turn)
    if reason := _no_root():
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason=reason))


def _turn(item: pytest.Item) -> int:
    """When its directory's turn is."""
    directory = item.path.parent.name
    return LONG_FIRST.index(directory) if directory in LONG_FIRST else len(LONG_FIRST)


def _no_root() -> str:
    """Why this host cannot run what is marked ``root``; empty when it can."""
    if os.getuid() != 0:
        return "needs root"
    if not (shutil.which("crun") or shutil.which("runc")):
        return "needs crun or runc"
    if not shutil.which("conmon"):
        return "needs conmon"
    return ""


def _leads(config: pytest.Config) -> bool:
    """Whether this process is no worker of another's."""
    return not hasattr(config, "workerinput")


def pytest_sessionstart(session: pytest.Session) -> None:
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Started in the background by a shell: what tests start would inherit it, and not be interrupted.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    leftovers.mark_run()
    config = session.config
    if _leads(config) and config.getoption("--leftovers"):
        config.stash[BEFORE] = leftovers.take()
    if _leads(config) and config.getoption("--checks"):
        config.stash[CHECKING] = checks.begin()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    stash = session.config.stash
    failures = {check.name: check.failure() for check in stash.get(CHECKING, [])}
    if BEFORE in stash:
        failures["left behind"] = "\n".join(leftovers.settled_beyond(stash[BEFORE]))
    for name, failure in failures.items():
        if failure:
            _tell_failed(session, name, failure)


def _tell_failed(session: pytest.Session, name: str, failure: str) -> None:
    """Let the run fail of this as if it were a test."""
    where = (name, None, name)
    report = pytest.TestReport(name, where, {}, "failed", failure, when="call")
    session.config.hook.pytest_runtest_logreport(report=report)
    if session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


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

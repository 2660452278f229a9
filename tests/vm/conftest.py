"""Machines for the tests here, and where to look when one of them fails."""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.support.vm import layers
from tests.support.vm.cache import REPOSITORY, Entry
from tests.support.vm.channel import SilentMachineError
from tests.support.vm.machine import Machine
from tests.support.vm.recipe import missing

HERE = Path(__file__).parent
FAILED = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = missing(REPOSITORY)
    core_only = os.environ.get("BAKEHOUSE_VM") != "all"
    for item in items:
        if not item.path.is_relative_to(HERE):
            continue
        if reason:
            item.add_marker(pytest.mark.skip(reason=reason))
        elif core_only and not item.get_closest_marker("vm_core"):
            item.add_marker(pytest.mark.skip(reason="not of the core: deploy/test --vm runs it"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for node in item.listchain():
            node.stash[FAILED] = True
    return report


@pytest.fixture
def bare_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine that has just booted, with the checkout below /srv and nothing of it installed."""
    yield from _machine(request, layers.booted())


@pytest.fixture(scope="module")
def bare_module_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The same for all tests of a module, which see what the earlier ones did."""
    yield from _machine(request, layers.booted())


@pytest.fixture
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A machine on which the checkout is installed and its daemon runs; ada and bob may use it, eve may not.

    There is ``busybox``, for everybody.
    """
    yield from _machine(request, layers.installed())


@pytest.fixture(scope="module")
def module_machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """The same for all tests of a module, which see what the earlier ones did."""
    yield from _machine(request, layers.installed())


def _machine(request: pytest.FixtureRequest, layer: Entry) -> Iterator[Machine]:
    """A machine; its console and its journal are kept when a test that had it has failed."""
    name = re.sub(r"[^\w-]+", "-", request.node.name)
    with layers.restore(layer, name) as machine:
        yield machine
        failed = request.node.stash.get(FAILED, False)
        if failed:
            _keep_journal(machine, request)
    if not failed:
        machine.console.unlink()


def _keep_journal(machine: Machine, request: pytest.FixtureRequest) -> None:
    kept = machine.console.with_suffix(".journal")
    try:
        kept.write_text(machine.run("journalctl --no-pager --boot", seconds=30).stdout)
    except (SilentMachineError, AssertionError, OSError) as error:
        kept.write_text(f"the machine does not tell its journal: {error}\n")
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(f"\nvirtual machine: see {machine.console} and {kept.name} beside it")

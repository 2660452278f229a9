"""bakehoused: reads the settings, forks the spawner, and becomes the daemon."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import attrs

from supervisor import config as settings
from supervisor import faults
from supervisor.errors import BakehouseError, Unavailable
from supervisor.linux.journald import JournalHandler
from supervisor.linux.spawner import start_spawner
from supervisor.linux.syscall import share_one_heap
from supervisor.linux.systemd import NOBODY, ServiceManager, check_mounts, take_over

SWITCH_SECONDS = 0.0005
"""How long a thread that has done its system call waits for the interpreter: every hop of ours ends with that wait."""
UMASK = 0o022
"""Whoever starts us: what is not for everybody is made so, and the mapped root of a container has to get at its own."""
BUG_CODE = 70  # EX_SOFTWARE, sysexits.h(3)
LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"


def main(words: Sequence[str] | None = None) -> int:
    """Run the daemon until it is told to stop; the exit code."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    faulthandler.enable()  # a watchdog's SIGABRT finds out where we hang
    manager = NOBODY
    try:
        manager = take_over(os.environ)
        if manager.journal:
            logging.basicConfig(level=logging.INFO, handlers=[JournalHandler()], force=True)
        config = read_settings(words)
        if os.geteuid() != 0:
            raise Unavailable("cannot start bakehoused: it has to be root", hint="sudo bakehoused")
        check_mounts(manager)
        if faults.arm(os.environ, installed=not config.instance_tag):
            logging.warning("fault points are armed: this daemon dies when it is told to")
        os.umask(UMASK)
        config.run_root.mkdir(parents=True, exist_ok=True)
        seed = start_spawner(config.run_root, config.instance)
        sys.setswitchinterval(SWITCH_SECONDS)
        share_one_heap()  # dozens of short-lived threads, each with a heap of its own, took twice the memory
        # Only now: the spawner is started before any of this makes a thread.
        import trio  # noqa: PLC0415

        from supervisor.daemon import serve  # noqa: PLC0415

        trio.run(serve, config, seed, manager, partial(read_settings, words))
    except BakehouseError as error:
        _give_up(manager, [error])
        return 1
    except ExceptionGroup as group:
        # Services hold nurseries, and what fails while they are opened arrives in their wrapping.
        bugs = group.split(BakehouseError)[1]
        if bugs is not None:
            _log_bugs(bugs)
            return BUG_CODE
        _give_up(manager, list(_leaves(group)))
        return 1
    return 0


def _give_up(manager: ServiceManager, errors: Sequence[BakehouseError]) -> None:
    """Say why there is no daemon, to whoever reads the log and to the service manager."""
    for error in errors:
        sys.stderr.write(f"bakehoused: {error.text()}\n")
        manager.status(error.text())


def _log_bugs(group: ExceptionGroup[Exception]) -> None:
    """Each bug with its own traceback: Python prints nested groups ten deep, and the ladder is deeper."""
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            _log_bugs(error)
        else:
            logging.critical("the daemon ends by a bug", exc_info=error)


def _leaves(group: ExceptionGroup[Exception]) -> Iterator[BakehouseError]:
    for error in group.exceptions:
        if isinstance(error, ExceptionGroup):
            yield from _leaves(error)
        elif isinstance(error, BakehouseError):
            yield error


def command_line() -> argparse.ArgumentParser:
    """What bakehoused understands; its manual page is printed from this."""
    parser = argparse.ArgumentParser(prog="bakehoused", description="The Bakehouse daemon.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, TOML")
    parser.add_argument("--data-root", type=Path, metavar="DIR", help="what is kept")
    parser.add_argument("--run-root", type=Path, metavar="DIR", help="what is lost at a reboot")
    parser.add_argument("--socket", type=Path, metavar="PATH", help="where clients connect")
    parser.add_argument(
        "--cgroup-unit", metavar="UNIT", help="systemd unit in whose control group containers live"
    )
    return parser


def read_settings(words: Sequence[str] | None) -> settings.Config:
    """The settings file with the command line over it.

    Raises:
        NotFound, InvalidArgument: See :func:`supervisor.config.load`.
    """
    told = command_line().parse_args(words)
    given = {
        name: path.absolute()
        for name in ("data_root", "run_root", "socket")
        if (path := getattr(told, name)) is not None
    }
    config = attrs.evolve(settings.load(told.config), **given)
    if told.cgroup_unit is None:
        return config
    runtime = attrs.evolve(config.runtime, cgroup_unit=told.cgroup_unit)
    return attrs.evolve(config, runtime=runtime)


if __name__ == "__main__":
    sys.exit(main())

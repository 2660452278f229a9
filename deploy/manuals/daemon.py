"""bakehoused(8), from its command line."""

from __future__ import annotations

import argparse

from deploy.manuals.roff import Page
from supervisor.__main__ import command_line
from supervisor.config import INSTALLED_CONFIG, INSTALLED_DATA_ROOT, INSTALLED_RUN_ROOT

_SIGNALS = (
    (
        "SIGTERM, SIGINT",
        "End: no new requests, those at work get a clear end, containers go on. A second one ends it at once.",
    ),
    ("SIGHUP", "Read the settings again, and take up those that may change while it runs."),
)
_UNITS = (
    (
        "bakehouse.socket",
        "The socket, its group and its mode. The first request starts the daemon.",
    ),
    ("bakehouse.service", "The daemon. Stopping or restarting it touches no container."),
    (
        "bakehouse-containers.service",
        "The control group in which containers live. Stopping it stops the daemon first, and then ends every container.",
    ),
)
_FILES = (
    (str(INSTALLED_CONFIG), "The settings; see bakehouse.toml(5)."),
    (str(INSTALLED_DATA_ROOT), "What is kept: the database, images, volumes, logs."),
    (str(INSTALLED_RUN_ROOT), "What is lost at a reboot, and the socket."),
)
_GROUPS = (
    ("bakehouse", "Users: see and do what is theirs. Being in it is not being root."),
    ("bakehouse-admin", "Administrators, as root is: see and may do everything."),
)
_STATUSES = (
    ("0", "It was told to end."),
    ("1", "This host cannot be served, or the settings make no sense; why is told."),
    ("2", "The command line makes no sense."),
    ("70", "A bug. Containers go on, and the next daemon takes them up."),
)


def page(version: str) -> Page:
    """The page."""
    parser = command_line()
    made = Page("bakehoused", 8, "container engine for hosts that many people share", version)
    made.heading("Synopsis")
    made.text(" ".join(parser.format_usage().removeprefix("usage: ").split()))
    made.heading("Description")
    made.text(
        "The daemon behind bakehouse(1). It speaks Docker's Engine API at its socket, bakes images and runs containers for "
        "everybody whom the socket's group lets in, and nobody becomes root by that.",
        "It is root's, and is usually started by systemd; without that it is run in a terminal or by another supervisor. "
        "Several run side by side with `--data-root`, `--run-root` and `--socket` of their own.",
        "Containers outlive it. The next daemon takes them up with their output, exit codes and events.",
    )
    made.heading("Options")
    made.terms(_option(action) for action in _actions(parser))
    for title, terms in (
        ("Signals", _SIGNALS),
        ("Groups", _GROUPS),
        ("Units", _UNITS),
        ("Files", _FILES),
        ("Exit status", _STATUSES),
    ):
        made.heading(title)
        made.terms(terms)
    made.see_also([("bakehouse", 1), ("bakehouse.toml", 5), ("systemctl", 1), ("journalctl", 1)])
    return made


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return list(parser._actions)  # noqa: SLF001  # argparse has no other way to be asked


def _option(action: argparse.Action) -> tuple[str, str]:
    metavar = f" {action.metavar}" if isinstance(action.metavar, str) else ""
    told = (action.help or "").strip()
    return ", ".join(action.option_strings) + metavar, f"{told[:1].upper()}{told[1:]}."

"""``python3 -m supervisor.doctor``: the host's part of ``bakehouse doctor``, from a source tree and before anything is installed.

Exit status as of ``bakehouse doctor``: 0 when this host can serve, 1 when something is broken, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from supervisor.doctor.checks import examine
from supervisor.doctor.findings import as_table, exit_status, plain
from supervisor.doctor.place import place_of


def main() -> int:
    """Look and tell."""
    parser = argparse.ArgumentParser(prog="python3 -m supervisor.doctor", description=__doc__)
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings, TOML")
    parser.add_argument("--before-install", action="store_true", help="leave out what is installed")
    parser.add_argument("--strict", action="store_true", help="degraded is a fault, too")
    parser.add_argument("--json", action="store_true", help="one JSON object")
    told = parser.parse_args()
    found = [
        finding
        for _, findings in examine(place_of(told.config), before=told.before_install)
        for finding in findings
    ]
    sys.stdout.write(f"{json.dumps(as_table(found))}\n" if told.json else plain(found))
    return exit_status(found, strict=told.strict)


if __name__ == "__main__":
    sys.exit(main())

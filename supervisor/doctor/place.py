"""For which daemon the doctor looks: its places and the few settings that matter to the host. Standard library only."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

INSTALLED_CONFIG = Path("/etc/bakehouse/bakehouse.toml")
RANGE_IDS = 65_536
PROGRAM_PATHS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Place:
    """What is to be served, and as whom we look.

    Attributes:
        data_root: Where the store lies or will lie.
        run_root: Where what is lost at a reboot lies.
        user_group: Its members may use the daemon.
        admin_group: Its members may do everything.
        pool_first_id: First host id of the pool that owners' ranges come from.
        pool_owners: How many ranges it holds.
        runtimes: Tried in this order.
        conmon: The monitor's name or path.
        seccomp_profile: The packaged default profile.
        settings_fault: What is wrong with the settings file; empty when nothing is, or there is none.
        root: We are root.
    """

    data_root: Path = Path("/var/lib/bakehouse")
    run_root: Path = Path("/run/bakehouse")
    user_group: str = "bakehouse"
    admin_group: str = "bakehouse-admin"
    pool_first_id: int = 1_879_048_192
    pool_owners: int = 4_000
    runtimes: tuple[str, ...] = ("crun", "runc")
    conmon: str = "conmon"
    seccomp_profile: Path = Path("/usr/share/containers/seccomp.json")
    settings_fault: str = ""
    root: bool = field(default_factory=lambda: os.geteuid() == 0)

    def existing(self, path: Path) -> Path:
        """``path``, or the nearest directory above it that is there."""
        return next(one for one in (path, *path.parents) if one.is_dir())


def place_of(config: Path | None = None) -> Place:
    """The place that a settings file describes; the installed one when there is one, else the defaults.

    Only what the doctor needs is read: whether every setting makes sense is the daemon's to say.
    """
    path = config or INSTALLED_CONFIG
    if config is None and not path.exists():
        return Place()
    try:
        table = tomllib.loads(path.read_text())
    except PermissionError:
        return Place()  # the settings may be for root's eyes only
    except (OSError, ValueError) as error:
        return Place(settings_fault=f"{path}: {error}")
    return _read(table)


def _read(table: dict[str, object]) -> Place:
    usual = Place()
    access, runtime = _part(table, "access"), _part(table, "runtime")
    runtimes = runtime.get("runtimes")
    return Place(
        data_root=Path(_text(table, "data_root", str(usual.data_root))),
        run_root=Path(_text(table, "run_root", str(usual.run_root))),
        user_group=_text(access, "user_group", usual.user_group),
        admin_group=_text(access, "admin_group", usual.admin_group),
        pool_first_id=_number(access, "range_pool_first_id", usual.pool_first_id),
        pool_owners=_number(access, "range_pool_owners_max", usual.pool_owners),
        runtimes=tuple(map(str, runtimes)) if isinstance(runtimes, list) else usual.runtimes,
        conmon=_text(runtime, "conmon", usual.conmon),
        seccomp_profile=Path(_text(runtime, "seccomp_profile", str(usual.seccomp_profile))),
    )


def _part(table: dict[str, object], key: str) -> dict[str, object]:
    part = table.get(key)
    return part if isinstance(part, dict) else {}


def _text(table: dict[str, object], key: str, usual: str) -> str:
    value = table.get(key)
    return value if isinstance(value, str) else usual


def _number(table: dict[str, object], key: str, usual: int) -> int:
    value = table.get(key)
    return value if isinstance(value, int) else usual

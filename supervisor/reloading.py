"""What of the settings may change while the daemon runs; pure but for :meth:`Reread.settle`, which changes them.

Words: a setting is *reloadable* when whoever uses it looks it up each time it is wanted, or is told of its change; any
other holds until the next start. Its name is ``table.key``, as in the file.
"""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from supervisor.config import Config, OwnerConfig

OWNER_LIMITS = frozenset(f"owner.{field.name}" for field in attrs.fields(OwnerConfig))
"""All of them: an owner's limits are looked up each time they are held to something."""

RELOADABLE = OWNER_LIMITS | frozenset(
    {
        "access.user_group",
        "access.admin_group",
        "api.header_bytes_max",
        "api.json_body_bytes_max",
        "api.head_seconds_max",
        "api.idle_seconds_max",
        "api.connections_per_owner_max",
        "api.write_stall_seconds_max",
        "journal.events_per_owner_max",
        "journal.bytes_per_owner_max",
        "journal.age_days_max",
        "journal.refusals_per_minute_max",
        "journal.page_events_max",
        "journal.page_bytes_max",
        "journal.recent_events_max",
        "journal.recent_bytes_max",
        "journal.bookmark_seconds",
        "network.user_subnets",
        "network.port_first",
        "runtime.log_bytes_max",
        "runtime.log_files_max",
        "runtime.log_bytes_asked_max",
        "runtime.stop_seconds",
        "runtime.pids_max",
        "runtime.shm_bytes",
        "build.context_bytes_max",
        "build.context_entries_max",
        "build.dockerfile_bytes_max",
        "store.layers_per_image_max",
        "monitor.tick_seconds",
        "monitor.idle_tick_seconds",
        "monitor.memory_some_percent_tight",
        "monitor.memory_full_percent_critical",
        "monitor.io_full_percent_tight",
    }
)
"""By name. What connects, allots or was opened with a value keeps it: a restart is for those."""


@attrs.frozen
class Reread:
    """What another reading of the settings comes to.

    Attributes:
        wanted: As the file says it now.
        changed: Names of the settings that are others from now on.
        waiting: Names of those that are others after a restart.
    """

    wanted: Config
    changed: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()

    def settle(self, config: Config) -> None:
        """Let ``config``, which everybody has, hold what may change."""
        for name in self.changed:
            table, _, key = name.partition(".")
            value = getattr(getattr(self.wanted, table), key)
            setattr(config, table, attrs.evolve(getattr(config, table), **{key: value}))


def compare(before: Config, wanted: Config) -> Reread:
    """What is another in ``wanted``, by whether it may be so at once."""
    names = list(_others(before, wanted))
    return Reread(
        wanted,
        changed=tuple(name for name in names if name in RELOADABLE),
        waiting=tuple(name for name in names if name not in RELOADABLE),
    )


def names() -> Iterator[str]:
    """Every setting there is."""
    for field in attrs.fields(Config):
        inside = getattr(Config(), field.name)
        if attrs.has(type(inside)):
            yield from (f"{field.name}.{key.name}" for key in attrs.fields(type(inside)))
        else:
            yield field.name


def _others(before: Config, wanted: Config) -> Iterator[str]:
    for name in names():
        old, new = before, wanted
        for key in name.split("."):
            old, new = getattr(old, key), getattr(new, key)
        if old != new:
            yield name

"""What of the settings may change while the daemon runs."""

from __future__ import annotations

from pathlib import Path

import attrs

from supervisor.config import Config, parse
from supervisor.reloading import RELOADABLE, compare, names
from supervisor.service.reload import told


def test_every_reloadable_setting_is_one() -> None:
    assert RELOADABLE - set(names()) == set()


def test_all_of_an_owners_limits_are_reloadable() -> None:
    assert {name for name in names() if name.startswith("owner.")} <= RELOADABLE


def test_roots_sockets_and_what_is_opened_once_wait_for_a_restart() -> None:
    fixed = set(names()) - RELOADABLE
    assert fixed >= {
        *("data_root", "run_root", "socket", "runtime.runtimes", "runtime.cgroup_unit"),
        *("network.pool", "access.range_pool_first_id", "monitor.tickets_max"),
    }


def test_what_may_change_changes_for_all_who_have_the_settings() -> None:
    config = Config(data_root=Path("/d"))
    held = config
    wanted = parse(
        'data_root = "/e"\n[owner]\nbuilds_max = 2\npids_max = 99\n[network]\npool = "10.0.0.0/16"\n',
        "file",
    )
    found = compare(config, wanted)
    assert found.changed == ("owner.pids_max", "owner.builds_max")
    assert found.waiting == ("data_root", "network.pool")
    found.settle(config)
    assert (held.owner.builds_max, held.owner.pids_max) == (2, 99)
    assert held.owner.containers_max == Config().owner.containers_max
    assert (held.data_root, held.network) == (Path("/d"), Config().network)
    assert compare(config, wanted).changed == ()


def test_it_is_told_in_words() -> None:
    config = Config()
    assert told(compare(config, Config())) == "changed: nothing"
    wanted = attrs.evolve(config, run_root=Path("/r"))
    assert told(compare(config, wanted)) == "changed: nothing; after a restart: run_root"

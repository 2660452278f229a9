"""The daemon under systemd, on cgroup v2: started by who needs it, ended and restarted, and containers that do not notice.

The tests go on from one another, on one machine: ``web`` is ada's, and runs from the second on.
"""

from __future__ import annotations

import json

import pytest

from tests.support.vm.machine import Machine

pytestmark = pytest.mark.vm_core

CONTAINERS = "/system.slice/bakehouse-containers.service/bakehouse"
COUNT = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.5; done"


def shown(machine: Machine, name: str, unit: str = "bakehouse.service") -> str:
    return machine.run(f"systemctl show --property={name} --value {unit}").stdout.strip()


def pid_of(machine: Machine, container: str) -> int:
    told = machine.run(f"docker inspect --format '{{{{.State.Pid}}}}' {container}", user="ada")
    return int(told.stdout)


def restarted(machine: Machine, before: str) -> None:
    """Wait until there is another daemon than the one with this pid, and it is ready."""
    machine.eventually(
        f'pid=$(systemctl show --property=MainPID --value bakehouse); test "$pid" != {before} '
        "&& test $pid != 0 && systemctl is-active bakehouse",
        seconds=90,
    )


@pytest.fixture
def machine(module_machine: Machine) -> Machine:
    return module_machine


def test_a_users_first_request_starts_it(machine: Machine) -> None:
    machine.run("systemctl stop bakehouse.service")
    assert shown(machine, "ActiveState") == "inactive"
    assert shown(machine, "ActiveState", "bakehouse.socket") == "active"
    assert machine.run("stat -c '%a %U:%G' /run/bakehouse/bakehouse.sock").stdout == (
        "660 root:bakehouse\n"
    )
    assert machine.run("docker version --format '{{.Server.Version}}'", user="ada").stdout.strip()
    assert (shown(machine, "ActiveState"), shown(machine, "SubState")) == ("active", "running")
    assert shown(machine, "StatusText") == "ready: nothing runs"


def test_its_status_is_true_and_containers_live_apart_from_it(machine: Machine) -> None:
    machine.run(f"docker run -d --name web --restart=always busybox sh -c '{COUNT}'", user="ada")
    machine.eventually(
        "systemctl show --property=StatusText bakehouse | grep 'ready: 1 container of 1 person'"
    )
    uid = machine.run("id -u ada").stdout.strip()
    pid = pid_of(machine, "web")
    record = machine.run("docker inspect --format '{{.Id}}' web", user="ada").stdout.strip()
    assert machine.read(f"/proc/{pid}/cgroup") == f"0::{CONTAINERS}/u{uid}/{record}\n"
    conmon = machine.run("pgrep -x conmon").stdout.strip()
    assert machine.read(f"/proc/{conmon}/cgroup") == f"0::{CONTAINERS}/u{uid}/monitors\n"
    daemon = shown(machine, "MainPID")
    assert machine.read(f"/proc/{daemon}/cgroup") == "0::/system.slice/bakehouse.service\n"
    given = machine.read(f"/sys/fs/cgroup{CONTAINERS}/u{uid}/cgroup.subtree_control").split()
    assert {"cpu", "memory", "pids"} <= set(given)


def test_the_journal_tells_it_by_owner_and_container(machine: Machine) -> None:
    told = machine.eventually(
        "journalctl --unit=bakehouse --output=json BAKEHOUSE_OWNER=$(id -u ada) | grep started"
    )
    entry = json.loads(told.splitlines()[-1])
    assert entry["MESSAGE"] == "container web of ada started from busybox"
    assert entry["SYSLOG_IDENTIFIER"] == "bakehoused"
    assert (entry["BAKEHOUSE_CONTAINER_NAME"], entry["PRIORITY"]) == ("web", "6")
    assert len(entry["BAKEHOUSE_CONTAINER"]) == 64
    assert entry["CODE_FILE"].endswith(".py")


@pytest.mark.parametrize(
    "end", ["systemctl restart bakehouse", "kill -9 $(systemctl show -P MainPID bakehouse)"]
)
def test_its_end_touches_no_container(machine: Machine, end: str) -> None:
    before, daemon = pid_of(machine, "web"), shown(machine, "MainPID")
    machine.run(end)
    restarted(machine, daemon)
    assert pid_of(machine, "web") == before
    seen = machine.run("docker logs --tail 1 web", user="ada").stdout
    machine.eventually(f'test "$(docker logs --tail 1 web)" -gt {int(seen)}', user="ada")


def test_the_watchdog_restarts_a_frozen_daemon(machine: Machine) -> None:
    machine.write(
        "/run/systemd/system/bakehouse.service.d/watchdog.conf", b"[Service]\nWatchdogSec=20\n"
    )
    machine.run("systemctl daemon-reload && systemctl restart bakehouse")
    before, daemon = pid_of(machine, "web"), shown(machine, "MainPID")
    machine.run("sleep 25")
    assert shown(machine, "MainPID") == daemon, "it feeds the watchdog"
    machine.run(f"kill -STOP {daemon}")
    restarted(machine, daemon)
    assert "watchdog" in machine.run("journalctl --unit=bakehouse | grep -i watchdog").stdout
    assert pid_of(machine, "web") == before
    machine.run("rm -r /run/systemd/system/bakehouse.service.d && systemctl daemon-reload")


def test_reload_reads_the_settings(machine: Machine) -> None:
    daemon = shown(machine, "MainPID")
    machine.run("printf '[owner]\\nbuilds_max = 3\\n' >/etc/bakehouse/bakehouse.toml")
    machine.run("systemctl reload bakehouse")
    told = "bakehouse events --from oldest --json | grep daemon.reload"
    assert "owner.builds_max" in machine.eventually(told)
    assert shown(machine, "MainPID") == daemon


def test_one_that_runs_out_of_memory_ends_alone(machine: Machine) -> None:
    hog = "x=x; while :; do x=$x$x; done"
    done = machine.run(f"docker run --rm -m 16m busybox sh -c '{hog}'", user="ada", check=False)
    assert done.returncode == 137
    assert shown(machine, "ActiveState", "bakehouse-containers.service") == "active"
    assert machine.run("docker ps --format '{{.Names}}'", user="ada").stdout == "web\n"


def test_stopping_their_unit_ends_all_containers_and_they_come_back_as_after_a_reboot(
    machine: Machine,
) -> None:
    machine.run("docker run -d --name once busybox sleep 1000", user="ada")
    machine.run("systemctl stop bakehouse-containers.service", seconds=120)
    assert shown(machine, "ActiveState") == "inactive"
    assert machine.run("pgrep -x conmon", check=False).returncode == 1
    assert machine.run(f"test -e /sys/fs/cgroup{CONTAINERS}", check=False).returncode == 1
    listed = machine.run("docker ps -a --format '{{.Names}} {{.State}}'", user="ada").stdout
    assert "once exited" in listed.splitlines()
    machine.eventually("docker ps --format '{{.Names}}' | grep -x web", user="ada")
    assert shown(machine, "ActiveState", "bakehouse-containers.service") == "active"

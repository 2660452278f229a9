"""Taken away, installed word for word as the README says, brought up to another version, and taken away for good.

The tests go on from one another. Releases are made beforehand, by deploy/install in the machine's root directory: its
processors are slow.
"""

from __future__ import annotations

import re
import shlex

import pytest

from tests.support.vm.cache import REPOSITORY
from tests.support.vm.machine import CHECKOUT, Machine

INSTALL_SECONDS = 900.0
RELEASES = "/opt/bakehouse/releases"
LATER = "/root/later"
SETTINGS = "/etc/bakehouse/bakehouse.toml"
UNITS = ("bakehouse.socket", "bakehouse.service", "bakehouse-containers.service")
# What any day changes on a machine.
CHANGING = (
    *("/proc", "/sys", "/dev", "/run", "/tmp", "/var/tmp", "/srv", "/root", "/home", "/var/log"),
    *(
        "/var/cache",
        "/var/lib/systemd",
        "/var/lib/apt",
        "/var/lib/dbus",
        "/etc/group-",
        "/etc/gshadow-",
    ),
)


def readme(heading: str) -> list[str]:
    """The blocks of shell that stand below a heading of the README, before the next."""
    section = (REPOSITORY / "README.md").read_text().partition(f"\n{heading}\n")[2]
    return re.findall(
        r"^```sh\n(.*?)^```", re.split(r"\n#+ ", section)[0], re.MULTILINE | re.DOTALL
    )


def files(machine: Machine) -> set[str]:
    """Everything on its disk that does not change by itself."""
    pruned = " -o ".join(f"-path {path}" for path in CHANGING)
    return set(machine.run(f"find / -xdev \\( {pruned} \\) -prune -o -print").stdout.splitlines())


def bring(machine: Machine, name: str) -> None:
    """The release that was made beforehand is where deploy/install finds it."""
    machine.run(f"mkdir -p {RELEASES} && cp -a /srv/{name}/. {RELEASES}", seconds=INSTALL_SECONDS)


def make_base(machine: Machine) -> None:
    """What stands for ``bakehouse image bootstrap`` where no mirror is reached: the machine's own system is the same."""
    machine.run(
        "tar --create --directory / --exclude 'usr/lib/modules' --exclude '*.pyc' "
        "bin lib lib64 usr/bin usr/lib/python3 usr/lib/python3.11 usr/lib/x86_64-linux-gnu usr/lib64 etc/passwd etc/group"
        " | docker import - debian:bookworm && bakehouse image publish debian:bookworm",
        seconds=600,
    )


@pytest.fixture(scope="module")
def machine(module_machine: Machine) -> Machine:
    return module_machine


@pytest.fixture(scope="module")
def before(machine: Machine) -> set[str]:
    """What is there when it has been taken away for good."""
    machine.run(f"{CHECKOUT}/deploy/uninstall --purge", seconds=INSTALL_SECONDS)
    return files(machine)


def test_purging_leaves_nothing(machine: Machine, before: set[str]) -> None:
    assert nothing_of_it_runs(machine)
    assert [path for path in before if "bakehouse" in path] == []
    assert machine.run("getent group bakehouse bakehouse-admin", check=False).stdout == ""


def test_the_readme_word_for_word(machine: Machine, before: set[str]) -> None:
    bring(machine, "opt")
    install, bootstrap, usermod, use = readme("## Install it")
    said = machine.run(f"cd {CHECKOUT}\n{install}", seconds=INSTALL_SECONDS).stdout
    assert f"new     {SETTINGS}" in said
    assert "new     group bakehouse-admin" in said
    assert "bakehouse image bootstrap debian:bookworm --include python3" in bootstrap
    make_base(machine)
    machine.run(usermod)
    done = machine.run(f"cp -r {CHECKOUT}/examples .\n{use}", "ada", seconds=600)
    assert "Successfully tagged hello:latest" in done.stdout


def test_units_manuals_and_completion_are_as_systemd_man_and_bash_want_them(
    machine: Machine,
) -> None:
    listed = " ".join(UNITS)
    assert machine.run(f"systemctl is-enabled {listed}").stdout.split() == ["enabled"] * 3
    assert machine.run(f"systemctl is-active {listed}").stdout.split() == ["active"] * 3
    assert machine.run(f"systemd-analyze verify {listed} 2>&1").stdout == ""
    machine.run("man -w bakehouse bakehouse-image-build bakehoused bakehouse.toml", "ada")
    completed = machine.run(
        "COMP_WORDS='bakehouse im' COMP_CWORD=1 _BAKEHOUSE_COMPLETE=bash_complete bakehouse", "ada"
    )
    assert "image" in completed.stdout
    loaded = "source /usr/share/bash-completion/bash_completion; __load_completion bakehouse; complete -p bakehouse"
    assert "_bakehouse_completion" in machine.run(loaded, "ada").stdout
    assert machine.run(
        "stat -c '%a %U:%G' /run/bakehouse/bakehouse.sock /var/lib/bakehouse"
    ).stdout == ("660 root:bakehouse\n700 root:root\n")


def test_again_it_changes_nothing(machine: Machine) -> None:
    pid = main_pid(machine)
    said = machine.run(f"cd {CHECKOUT} && deploy/install", seconds=INSTALL_SECONDS).stdout
    assert not re.search(r"^install: (new|changed|removed|making)", said, re.MULTILINE), said
    assert main_pid(machine) == pid


def main_pid(machine: Machine) -> str:
    return machine.run("systemctl show -P MainPID bakehouse.service").stdout.strip()


def test_an_upgrade_stops_no_container(machine: Machine) -> None:
    machine.run(
        f"cp -r {CHECKOUT} {LATER} && sed -i 's/^version = .*/version = \"0.1.1\"/' {LATER}/pyproject.toml"
    )
    bring(machine, "later")
    machine.run(f"echo '# mine' >>{SETTINGS}")
    running = "docker run --detach --name lives hello"
    machine.run(running, "ada")
    inside = machine.run("docker inspect --format '{{.State.Pid}}' lives", "ada").stdout
    said = machine.run(f"cd {LATER} && deploy/install --restart", seconds=INSTALL_SECONDS).stdout
    assert "upgraded from 0.1.0-" in said
    assert f"kept    {SETTINGS}" in said
    assert "daemon: 0.1.1 " in machine.run("bakehouse version", "ada").stdout
    assert machine.run("docker inspect --format '{{.State.Pid}}' lives", "ada").stdout == inside
    machine.run("docker exec lives python3 hello.py --check", "ada")
    assert machine.read(SETTINGS).endswith("# mine\n")
    assert machine.run("ls /opt/bakehouse/releases | wc -l").stdout == "2\n"


def test_uninstalling_leaves_data_and_settings(machine: Machine, before: set[str]) -> None:
    said = machine.run("/opt/bakehouse/current/deploy/uninstall", seconds=300).stdout
    assert "stopping 1 containers" in said
    assert nothing_of_it_runs(machine)
    left = {path for path in files(machine) - before if not path.startswith("/var/lib/bakehouse/")}
    assert {path for path in left if not path.startswith("/etc/bakehouse")} == {
        "/var/lib/bakehouse"
    }
    assert machine.read(SETTINGS).endswith("# mine\n")


def nothing_of_it_runs(machine: Machine) -> bool:
    shown = machine.run(
        "grep bakehouse /proc/self/mountinfo; nft list tables | grep bakehouse; ip -o link | grep bh-;"
        "find /sys/fs/cgroup -name '*bakehouse*'; systemctl list-units --all --plain --no-legend 'bakehouse*';"
        "pgrep -l 'bakehouse|conmon'; find /run -name 'bakehouse*'; :"
    ).stdout
    assert shown == ""
    return True


def test_installed_again_everything_is_there_and_purged_nothing(
    machine: Machine, before: set[str]
) -> None:
    bring(machine, "later")
    machine.run(f"cd {LATER} && deploy/install", seconds=INSTALL_SECONDS)
    # The socket is there, and the first request starts the daemon.
    assert machine.run("docker ps --all --format '{{.Names}}'", "ada").stdout == "lives\n"
    machine.run("docker start lives", "ada")
    machine.run(f"{shlex.quote(LATER)}/deploy/uninstall --purge", seconds=300)
    assert nothing_of_it_runs(machine)
    assert files(machine) - before == set()
    assert machine.run("getent group bakehouse bakehouse-admin", check=False).stdout == ""

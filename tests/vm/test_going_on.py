"""What the daemon's end, its upgrade and the machine's reboot mean to those who are at work."""

from __future__ import annotations

import json

import attrs

from tests.support.vm.channel import Running
from tests.support.vm.layers import LATER
from tests.support.vm.machine import CHECKOUT, WHEELS, Machine

COUNTER = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.5; done"
BUILD = "FROM busybox\nRUN echo begun && sleep 10000\n"
END_SECONDS = 120


@attrs.frozen
class Work:
    """What ada does while something happens to the daemon."""

    machine: Machine
    before: str
    events: Running
    executed: Running
    build: Running

    def daemon(self) -> str:
        return self.machine.run("systemctl show -P MainPID bakehouse").stdout

    def check(self) -> None:
        """Her container never noticed; her clients were told, or went on where they were."""
        assert container(self.machine, "counter") == self.before
        assert self.build.wait(END_SECONDS) != 0, f"the build ended well: {self.build.said()}"
        # Of an exec that goes on, whose output it has lost, the docker command thinks no ill.
        self.executed.wait(END_SECONDS)
        told = self.build.said()
        assert any(word in told for word in ("the daemon is stopping", "rror", "EOF")), told
        # The container's output has no gap.
        self.machine.run("docker exec counter true", "ada")
        lines = self.machine.run("docker logs counter", "ada").stdout.splitlines()
        assert lines == [f"line {number + 1}" for number in range(len(lines))]
        # Nor have the events for one who was there all the time, and neither is one told twice.
        self.machine.run("docker run --rm --name last busybox true", "ada")
        self.events.wait_for('"last"', END_SECONDS)
        self.events.signal(2)
        self.events.wait(END_SECONDS)
        followed = ids(bytes(self.events.stdout).decode())
        kept = ids(self.machine.run("bakehouse events --from oldest --json", "ada").stdout)
        assert followed == kept[: len(followed)]
        assert len(followed) == len(set(followed))


def container(machine: Machine, name: str) -> str:
    shape = "{{.State.Pid}} {{.State.StartedAt}} {{.State.Status}} {{.RestartCount}}"
    return machine.run(f"docker inspect --format '{shape}' {name}", "ada").stdout


def ids(lines: str) -> list[str]:
    return [json.loads(line)["id"] for line in lines.splitlines()]


def begin(machine: Machine) -> Work:
    """Let ada run a container, follow the events, be in the middle of an exec and of a build."""
    if machine.run("docker ps -q -f name=counter", "ada").stdout == "":
        machine.run(f"docker run -d --name counter --init busybox sh -c '{COUNTER}'", "ada")
    events = machine.start("bakehouse events --from oldest --follow --json", "ada")
    executed = machine.start("docker exec counter sh -c 'echo within; sleep 10000'", "ada")
    build = machine.start("docker build --no-cache -", "ada", input_=BUILD.encode())
    events.wait_for('"counter"')
    executed.wait_for("within")
    build.wait_for("begun")
    return Work(machine, container(machine, "counter"), events, executed, build)


def test_a_restart_and_a_crash_of_the_daemon(machine: Machine) -> None:
    work = begin(machine)
    first = work.daemon()
    machine.run("systemctl restart bakehouse")
    work.check()
    work = begin(machine)
    second = work.daemon()
    machine.run(f"kill -9 {second}")
    machine.eventually(
        f'[ "$(systemctl show -P MainPID bakehouse)" != {second.strip()} ] && docker ps'
    )
    work.check()
    assert len({first, second, work.daemon()}) == 3
    assert machine.run("systemctl show -P NRestarts bakehouse").stdout == "1\n"
    # Of the builds nothing is left: no process, no group, no mount.
    machine.eventually("! pgrep -f 'sleep 10000' -u root,ada")
    assert machine.run("find /sys/fs/cgroup -path '*/builds/*' -type d").stdout == ""


def test_an_upgrade(machine: Machine) -> None:
    work = begin(machine)
    release = machine.run("readlink /opt/bakehouse/current").stdout
    machine.run(f"""sed -i 's/^version = .*/version = "0.1.1"/' {CHECKOUT}/pyproject.toml""")
    # The release was made before, by deploy/install of that very tree: here it is what an upgrade does to those at work.
    machine.run(f"cp -a {LATER}/* /opt/bakehouse/releases")
    machine.run(f"{CHECKOUT}/deploy/install --restart --wheels {WHEELS}", seconds=1200)
    assert machine.run("readlink /opt/bakehouse/current").stdout not in {"", release}
    work.check()
    assert machine.run("bakehouse version", "ada").stdout.count("0.1.1") == 2


def test_a_reboot_of_the_machine(machine: Machine) -> None:
    for name, options in {
        "always": "--restart always -p 8080:80",
        "stopped": "--restart unless-stopped",
        "failing": "--restart on-failure",
        "never": "",
    }.items():
        machine.run(
            f"docker run -d --name {name} {options} --init busybox sh -c '{COUNTER}'", "ada"
        )
    machine.run(
        "docker volume create kept; docker run --rm -v kept:/kept busybox touch /kept/file", "ada"
    )
    machine.run("docker stop --time 1 stopped", "ada")
    machine.reboot()
    machine.eventually("docker ps | grep -q always", "ada")
    told = machine.run("docker ps -a --format '{{.Names}} {{.State}}'", "ada").stdout.splitlines()
    assert sorted(told) == ["always running", "failing running", "never exited", "stopped exited"]
    machine.run("docker run --rm -v kept:/kept busybox ls /kept/file", "ada")
    # As many of everything as there are containers that run.
    assert machine.run("find /sys/fs/cgroup -type d | grep -cE '/[0-9a-f]{64}$'").stdout == "2\n"
    assert machine.run("pgrep -c conmon").stdout == "2\n"
    assert machine.run("ip -o link show type veth | wc -l").stdout == "2\n"
    assert machine.run("systemctl is-system-running", check=False).stdout == "running\n"
    warned = machine.run("journalctl -b -p warning -t bakehoused -o cat").stdout.splitlines()
    assert [line for line in warned if not line.startswith("switched on IPv4 forwarding")] == []

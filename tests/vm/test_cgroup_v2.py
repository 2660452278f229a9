"""cgroup v2 as the kernel has it: what is asked for stands in its files, and what it tells is told on."""

from __future__ import annotations

import json
import textwrap

from tests.support.vm.machine import Machine

UNIT = "/sys/fs/cgroup/system.slice/bakehouse-containers.service"
CONTROLLERS = {"cpu", "cpuset", "io", "memory", "pids"}
MEBIBYTE = 1_048_576


def table(text: str) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split() for line in text.splitlines())}


def group_of(machine: Machine, name: str, user: str = "ada") -> str:
    """The directory of a container's cgroup, as the kernel says where its process is."""
    pid = machine.run(f"docker inspect --format '{{{{.State.Pid}}}}' {name}", user).stdout.strip()
    line = machine.read(f"/proc/{pid}/cgroup").strip()
    assert line.startswith("0::"), line
    return f"/sys/fs/cgroup{line[3:]}"


def owner_group(machine: Machine, user: str = "ada") -> str:
    uid = machine.run(f"id -u {user}").stdout.strip()
    found = machine.run(f"find {UNIT} -type d -name u{uid}").stdout.strip()
    assert found, "the owner has no group"
    return found


def test_containers_live_in_what_systemd_delegated(module_machine: Machine) -> None:
    machine = module_machine
    machine.run("docker run -d --name here --init busybox sleep 10000", "ada")
    group, owner = group_of(machine, "here"), owner_group(machine)
    assert group.startswith(f"{owner}/")
    assert machine.run("systemctl show -P Delegate bakehouse-containers").stdout == "yes\n"
    assert machine.run(f"getfattr --only-values -n trusted.delegate {UNIT}").stdout == "1"
    # Each level has what it hands down, and only leaves hold processes.
    for level in (UNIT, owner.rpartition("/")[0], owner):
        assert set(machine.read(f"{level}/cgroup.subtree_control").split()) >= CONTROLLERS, level
        assert machine.read(f"{level}/cgroup.procs") == ""
        assert machine.read(f"{level}/cgroup.type") == "domain\n"
    # The daemon and what it runs for itself are elsewhere.
    daemon = machine.run("systemctl show -P MainPID bakehouse").stdout.strip()
    assert machine.read(f"/proc/{daemon}/cgroup") == "0::/system.slice/bakehouse.service\n"
    # A container sees its own group as the top, and can change nothing in it.
    seen = machine.run(
        "docker exec here sh -c 'cat /proc/self/cgroup; echo 1 >/sys/fs/cgroup/pids.max'",
        "ada",
        check=False,
    )
    assert seen.stdout == "0::/\n"
    assert seen.returncode != 0
    machine.run("docker rm -f here", "ada")


def test_a_containers_limits_stand_in_its_files(module_machine: Machine) -> None:
    machine = module_machine
    options = "-m 64m --memory-swap 96m --memory-reservation 32m --pids-limit 50 --cpu-shares 2048 --cpus 0.5 --cpuset-cpus 1"
    machine.run(f"docker run -d --name limited {options} --init busybox sleep 10000", "ada")
    group = group_of(machine, "limited")
    expected = {
        "memory.max": 64 * MEBIBYTE,
        "memory.swap.max": 32 * MEBIBYTE,
        "memory.low": 32 * MEBIBYTE,
        "memory.oom.group": 1,
        "pids.max": 50,
        "cpu.weight": 200,
        "cpu.max": "50000 100000",
        "cpuset.cpus": 1,
    }
    found = {name: machine.read(f"{group}/{name}").strip() for name in expected}
    assert found == {name: str(value) for name, value in expected.items()}
    machine.run("docker update -m 128m --memory-swap 128m --pids-limit 60 limited", "ada")
    assert machine.read(f"{group}/memory.max") == f"{128 * MEBIBYTE}\n"
    assert machine.read(f"{group}/memory.swap.max") == "0\n"
    assert machine.read(f"{group}/pids.max") == "60\n"
    # The kernel holds it: no more processes than that.
    script = "for i in $(seq 100); do sleep 100 & done; sleep 100"
    machine.run(f"docker exec -d limited sh -c '{script}'", "ada")
    machine.eventually(f"[ $(sed -n 's/^max //p' {group}/pids.events) -gt 0 ]")
    assert int(machine.read(f"{group}/pids.current")) <= 60
    machine.run("docker rm -f limited", "ada")


OOM = 'exec 3<>/dev/null; sleep 10000 & x=aaaaaaaaaaaaaaaa; while :; do x="$x$x"; done'


def test_out_of_memory_ends_all_of_it_and_is_told(module_machine: Machine) -> None:
    machine = module_machine
    machine.run(
        f"docker run -d --name greedy -m 24m --memory-swap 24m busybox sh -c '{OOM}'", "ada"
    )
    assert machine.run("docker wait greedy", "ada").stdout == "137\n"
    state = json.loads(machine.run("docker inspect greedy", "ada").stdout)[0]["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (True, 137)
    kernel = machine.run("dmesg").stdout
    assert "are going to be killed due to memory.oom.group set" in kernel
    told = machine.run("bakehouse events --from oldest --json --type container.oom", "ada").stdout
    assert len(told.splitlines()) == 1, told
    # One that is killed for anything else is not told to have been out of memory.
    machine.run("docker run -d --name killed -m 24m busybox sleep 10000; docker kill killed", "ada")
    state = json.loads(machine.run("docker inspect killed", "ada").stdout)[0]["State"]
    assert (state["OOMKilled"], state["ExitCode"]) == (False, 137)
    machine.run("docker rm -f greedy killed", "ada")


def test_a_container_is_frozen_and_ended_as_a_whole(module_machine: Machine) -> None:
    machine = module_machine
    stubborn = 'trap "" TERM INT HUP; for i in 1 2 3; do sh -c "while :; do :; done" & done; wait'
    machine.run(f"docker run -d --name many busybox sh -c '{stubborn}'", "ada")
    group = group_of(machine, "many")
    machine.eventually(f"[ $(wc -l <{group}/cgroup.procs) = 4 ]")
    machine.run("docker pause many", "ada")
    assert table(machine.read(f"{group}/cgroup.events")) == {"populated": 1, "frozen": 1}
    used = [machine.read(f"{group}/cpu.stat").splitlines()[0] for _ in range(2)]
    assert used[0] == used[1]
    machine.run("docker unpause many", "ada")
    assert table(machine.read(f"{group}/cgroup.events")) == {"populated": 1, "frozen": 0}
    # Its first process goes, and the kernel ends the others, which would not have ended of themselves.
    pids = machine.read(f"{group}/cgroup.procs").split()
    machine.run("docker kill many && docker wait many", "ada")
    machine.eventually(f"! ps -o pid= -p {','.join(pids)}")
    machine.eventually(f"[ ! -e {group} ]")
    machine.run("docker rm many", "ada")


SETTINGS = f"""
[owner]
cpu_weight = 300
cpus_max = 1.5
memory_high_bytes = {256 * MEBIBYTE}
memory_bytes_max = {384 * MEBIBYTE}
pids_max = 500
io_weight = 50
"""


def test_an_owners_limits_stand_above_their_containers(machine: Machine) -> None:
    machine.run("cat >/etc/bakehouse/bakehouse.toml", input_=SETTINGS.encode())
    # Where the kernel may weigh disks, it does: by a scheduler that looks at weights.
    machine.run("modprobe bfq && echo bfq >/sys/block/vda/queue/scheduler", check=False)
    machine.run("systemctl restart bakehouse")
    machine.run("docker run -d --name one --init busybox sleep 10000", "ada")
    group = owner_group(machine)
    expected = {
        "cpu.weight": "300",
        "cpu.max": "150000 100000",
        "memory.high": str(256 * MEBIBYTE),
        "memory.max": str(384 * MEBIBYTE),
        "pids.max": "500",
    }
    found = {name: machine.read(f"{group}/{name}").strip() for name in expected}
    assert found == expected
    weights = machine.run(f"cat {group}/io.weight {group}/io.bfq.weight", check=False).stdout
    assert "default 50" in weights, weights
    # Two containers of hers share what is hers.
    machine.run("docker run -d --name two --init busybox sleep 10000", "ada")
    assert group_of(machine, "two").startswith(group)


TRIGGERS = """
    import select, sys, os, time
    fds = {}
    for path in sys.argv[1:]:
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        os.write(fd, b"some 50000 2000000\\0")
        fds[fd] = path
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLPRI)
    print("armed", flush=True)
    until = time.monotonic() + 60
    while fds and time.monotonic() < until:
        for fd, event in poll.poll(1000):
            assert event & select.POLLPRI, event
            print("fired", fds.pop(fd), flush=True)
            poll.unregister(fd)
"""


def test_pressure_wakes_those_who_wait_for_it(module_machine: Machine) -> None:
    machine = module_machine
    machine.run("docker run -d --name hogs --init busybox sleep 10000", "ada")
    group = group_of(machine, "hogs")
    paths = ["/proc/pressure/cpu", f"{owner_group(machine)}/cpu.pressure", f"{group}/cpu.pressure"]
    machine.write("/root/triggers.py", textwrap.dedent(TRIGGERS).encode())
    waiting = machine.start(f"python3 /root/triggers.py {' '.join(paths)}")
    waiting.wait_for("armed")
    hogs = "for i in 1 2 3 4 5 6; do (while :; do :; done) & done; wait"
    machine.run(f"docker exec -d hogs sh -c '{hogs}'", "ada")
    assert waiting.wait(90) == 0
    assert sorted(waiting.said().split()) == sorted(
        ["armed", *(word for path in paths for word in ("fired", path))]
    )
    # The same is in what people are told.
    told = json.loads(machine.run("bakehouse top --json | head -n 1", "ada").stdout)
    assert told
    machine.run("docker rm -f hogs", "ada")

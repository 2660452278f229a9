"""What ``docker run`` can say of a container's process and identity, seen from inside, as root and as a user."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from tests.support.accounts import People, User
from tests.support.asking import ask
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    daemon.import_busybox()
    daemon.import_busybox(user=two_users.ada)
    return daemon


@pytest.fixture(params=["root", "ada"])
def who(request: pytest.FixtureRequest, two_users: People) -> User | None:
    """Who asks: the administrator, and a user."""
    return two_users.ada if request.param == "ada" else None


def told(daemon: Daemon, user: User | None, options: str, *lines: str) -> dict[str, str]:
    """The output of each shell line ``name: command``, run in one container with ``options``."""
    pairs = [line.partition(": ") for line in lines]
    script = "\n".join(f"echo @{name}; {{ {command}; }} 2>&1" for name, _, command in pairs)
    script += "\ntrue"
    ran = daemon.docker(
        "run", "--rm", *shlex.split(options), "busybox", "sh", "-c", script, user=user
    )
    found: dict[str, str] = {}
    for part in ran.stdout.split("@")[1:]:
        name, _, output = part.partition("\n")
        found[name] = output.strip()
    return found


def refused(daemon: Daemon, user: User | None, *options: str) -> str:
    ran = daemon.docker("run", "--rm", *options, "busybox", "true", user=user, check=False)
    # The docker command takes "no such file or directory" of a daemon for a command that is not there.
    assert ran.returncode == (127 if "no such file or directory" in ran.stderr else 125), ran
    return ran.stderr


def test_identity(ready: Daemon, who: User | None) -> None:
    seen = told(
        ready,
        who,
        "--hostname oven --domainname bakery.test --add-host gate:host-gateway --add-host a:192.0.2.7"
        " --dns 192.0.2.53 --dns-search s.test --dns-opt ndots:3 -e A=1 -w /new/place"
        " --user 33:33 --group-add www --group-add 77 --label l=1 --stop-signal INT --stop-timeout 3",
        "host: hostname",
        "full: hostname -f",
        "id: id -u; id -g; id -G",
        "gate: grep -w gate /etc/hosts",
        "a: grep -w a /etc/hosts",
        "route: ip route",
        "resolv: cat /etc/resolv.conf",
        "pwd: pwd; echo $A $HOSTNAME",
    )
    assert seen["host"] == "oven"
    assert seen["full"] == "oven.bakery.test"
    assert seen["id"].splitlines() == ["33", "33", "33 77"]
    assert seen["a"] == "192.0.2.7\ta"
    assert seen["gate"].split()[0] in seen["route"]
    assert seen["resolv"].splitlines() == [
        "search s.test",
        "nameserver 192.0.2.53",
        "options ndots:3",
    ]
    assert seen["pwd"].split() == ["/new/place", "1", "oven"]


def test_limits_and_parameters(ready: Daemon, who: User | None) -> None:
    seen = told(
        ready,
        who,
        "--ulimit nofile=100:200 --ulimit core=-1 --sysctl net.core.somaxconn=77"
        " --sysctl kernel.shmmax=4096 --sysctl fs.mqueue.msg_max=5 --shm-size 3m --oom-score-adj 400"
        " --security-opt no-new-privileges --cap-drop ALL --cap-add CHOWN --read-only --init=false"
        " --runtime crun --platform linux",
        "files: ulimit -n; ulimit -Hn",
        "net: cat /proc/sys/net/core/somaxconn",
        "shm: cat /proc/sys/kernel/shmmax",
        "mq: cat /proc/sys/fs/mqueue/msg_max",
        "size: df -k /dev/shm | tail -1",
        "oom: cat /proc/self/oom_score_adj",
        "caps: grep CapBnd /proc/self/status",
        "nnp: grep NoNewPrivs /proc/self/status",
        "seccomp: grep ^Seccomp: /proc/self/status",
        "ro: touch /x",
    )
    assert seen["files"].split() == ["100", "200"]
    assert (seen["net"], seen["shm"], seen["mq"], seen["oom"]) == ("77", "4096", "5", "400")
    assert seen["size"].split()[1] == "3072"
    assert int(seen["caps"].split()[1], 16) == 1
    assert seen["nnp"].split()[1] == "1"
    assert seen["seccomp"].split()[1] == "2"
    assert "Read-only" in seen["ro"]


def test_a_seccomp_profile_of_ones_own(ready: Daemon, who: User | None, tmp_path: Path) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["chmod", "fchmod", "fchmodat", "fchmodat2"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 18,
            }
        ],
    }
    file = (who.home if who else tmp_path) / "profile.json"
    file.write_text(json.dumps(profile))
    file.chmod(0o644)
    line = "chmod: chmod 700 /tmp && echo done"
    seen = told(ready, who, f"--security-opt seccomp={file}", line)
    # An administrator's takes the place of the default, a user's takes away from it: its errors are the default's.
    words = "Invalid cross-device link" if who is None else "Function not implemented"
    assert seen["chmod"] == f"chmod: /tmp: {words}"
    assert told(ready, who, "", line)["chmod"] == "done"


def test_published_all(ready: Daemon, who: User | None) -> None:
    name = "all"
    ready.docker("run", "-d", "--name", name, "-P", "--expose", "8080", "--expose", "53/udp",
                 "busybox", "sleep", "60", user=who)  # fmt: skip
    try:
        ports = json.loads(
            ready.docker("inspect", "-f", "{{json .NetworkSettings.Ports}}", name, user=who).stdout
        )
        assert set(ports) == {"8080/tcp", "53/udp"}
        assert all(int(each[0]["HostPort"]) >= 1_024 for each in ports.values())
    finally:
        ready.docker("rm", "-f", name, user=who)


def test_an_administrator_takes_the_masks_off(ready: Daemon, two_users: People) -> None:
    lines = ("core: head -c1 /proc/timer_list | wc -c", "rw: echo 7 >/proc/sys/net/core/somaxconn")
    seen = told(ready, None, "", *lines)
    assert seen["core"].splitlines()[-1] == "0"
    assert "Read-only" in seen["rw"]
    bare = told(ready, None, "--security-opt systempaths=unconfined", *lines)
    assert bare["core"].splitlines()[-1] == "1"
    assert "Read-only" not in bare["rw"]
    assert "masked-paths" in refused(
        ready, two_users.ada, "--security-opt", "systempaths=unconfined"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sysctl", "kernel.core_pattern=x"), "sysctl"),
        (("--sysctl", "net.core.somaxconn=many"), "cannot start"),
        (("--tmpfs", "/t:uid=4294967299"), "invalid tmpfs option"),
        (("--tmpfs", "/t:oven=hot"), "oven=hot"),
        (("--tmpfs", "/" + "x" * 300), "file name too long"),
        (("--runtime", "runc"), "unknown or invalid runtime name: runc"),
        (("--platform", "linux/s390x"), "platform"),
        (("--user", "nobody-here"), "unable to find user nobody-here"),
        (("--group-add", "nobody-here"), "unable to find group nobody-here"),
        (("--ulimit", "nofile=99999999"), "nofile"),
        (("--storage-opt", "size=1g"), "StorageOpt"),
        (("--gpus", "all"), "DeviceRequests"),
        (("--security-opt", "apparmor=mine"), "apparmor=mine"),
    ],
)
def test_what_cannot_be_is_told(
    ready: Daemon, who: User | None, options: tuple[str, ...], words: str
) -> None:
    before = ready.docker("ps", "-aq", user=who).stdout
    assert words in refused(ready, who, *options)
    assert ready.docker("ps", "-aq", user=who).stdout == before


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ({"Sysctls": {"net.core.somaxconn": "many"}}, 400),
        ({"Sysctls": {"net.core.nothing": "1"}}, 400),
        ({"Tmpfs": {"/t": "nr_inodes=many"}}, 400),
    ],
)
def test_a_value_the_kernel_refuses_is_the_requests_fault(
    ready: Daemon, host: dict[str, object], status: int
) -> None:
    made = ask(ready, "POST", "/containers/create",
               {"Image": "busybox", "Cmd": ["true"], "HostConfig": host})  # fmt: skip
    assert made.status == 201, made
    identity = json.loads(made.body)["Id"]
    started = ask(ready, "POST", f"/containers/{identity}/start")
    assert started.status == status, started
    ask(ready, "DELETE", f"/containers/{identity}")


def test_devices_are_for_administrators(ready: Daemon, two_users: People) -> None:
    """Given ones with what may be done, whole directories, rules alone; a privileged container has them all."""
    lines = (
        "open: exec 3</dev/printer && echo read; echo x >/dev/printer",
        "again: stat -c '%t:%T' /dev/all/random /dev/printer",
        "made: mknod /tmp/x c 1 11 && echo made",
    )
    options = (
        "--device /dev/loop-control:/dev/printer:r --device /dev/random:/dev/all/random"
        " --device-cgroup-rule 'c 1:11 m'"
    )
    seen = told(ready, None, options, *lines)
    assert seen["open"].splitlines()[0] == "read", seen
    assert "not permitted" in seen["open"]
    assert seen["again"].split() == ["1:8", "a:ed"]
    assert seen["made"] == "made"
    whole = told(
        ready, None, "--privileged", "kmsg: head -c1 /dev/kmsg | wc -c", "all: ls /dev | wc -l"
    )
    assert whole["kmsg"] == "1"
    assert int(whole["all"]) > 20
    for option in (
        ("--device", "/dev/null:/dev/x"),
        ("--device-cgroup-rule", "c 1:11 rwm"),
        ("--privileged",),
    ):
        words = "rule privileged" if option == ("--privileged",) else "rule device"
        assert words in refused(ready, two_users.ada, *option)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--device", "/dev/nothing"), 'adding custom device "/dev/nothing"'),
        (("--device", "/etc/passwd:/dev/x"), "not a device node"),
        (("--device", "/dev/null:/etc/x"), "not below /dev"),
        (("--device", "/dev/null:/dev/../etc/x"), "not below /dev"),
        (("--device-cgroup-rule", "c 1 rwm"), "invalid device cgroup"),
    ],
)
def test_what_is_no_device(ready: Daemon, options: tuple[str, ...], words: str) -> None:
    assert words in refused(ready, None, *options)


def test_an_exec_says_who_and_where(ready: Daemon, who: User | None) -> None:
    """User, groups, environment, directory, terminal, privileges; ids outside a user's range are the request's fault."""
    ready.docker("run", "-d", "--name", "place", "--group-add", "77", "--cap-drop", "ALL", "busybox",
                 "sleep", "600", user=who)  # fmt: skip
    try:
        execute = ("exec", "-u", "www:0", "-e", "A=1", "-w", "/tmp", "place", "sh", "-c")
        seen = ready.docker(*execute, "id -u; id -g; id -G; pwd; echo $A", user=who).stdout
        assert seen.split() == ["33", "0", "0", "77", "/tmp", "1"]
        caps = "grep CapEff /proc/self/status"
        assert (
            ready.docker("exec", "place", "sh", "-c", caps, user=who).stdout.split()[1] == "0" * 16
        )
        most = ready.docker(
            "exec", "--privileged", "place", "sh", "-c", caps, user=who, check=False
        )
        if who is None:
            assert int(most.stdout.split()[1], 16) > 1 << 30
        else:
            assert "rule privileged" in most.stderr
            far = ready.docker("exec", "-u", "70000", "place", "true", user=who, check=False)
            assert "your containers have the ids 0 to 65535" in far.stderr
        for user in ("nobody-here", "0:nobody-here"):
            none = ready.docker("exec", "-u", user, "place", "true", user=who, check=False)
            assert "no matching entries" in none.stderr
    finally:
        ready.docker("rm", "-f", "place", user=who)


def test_a_containers_own_files_are_its_to_change(ready: Daemon, who: User | None) -> None:
    """As people do with /etc/hosts; anew at every start, and not with a read-only root."""
    change = """
        for file in hosts hostname resolv.conf; do
            stat -c '%u %a' /etc/$file; echo "# changed" >>/etc/$file && chown 33 /etc/$file
        done
        tail -qn1 /etc/hosts /etc/hostname /etc/resolv.conf; sleep 600
    """
    ready.docker("run", "-d", "--name", "own", "busybox", "sh", "-c", change, user=who)
    try:
        for _ in range(2):
            seen = ""
            for _ in range(50):
                seen = ready.docker("logs", "own", user=who).stdout
                if seen.count("# changed") % 3 == 0 and seen:
                    break
            assert seen.splitlines()[-6:] == ["0 644"] * 3 + ["# changed"] * 3
            ready.docker("restart", "-t", "0", "own", user=who)
    finally:
        ready.docker("rm", "-f", "own", user=who)
    script = "echo x 2>/dev/null >>/etc/hosts || echo ro"
    run = ("run", "--rm", "--read-only", "busybox", "sh", "-c", script)
    assert ready.docker(*run, user=who).stdout == "ro\n"

"""The real docker command against a real daemon, as a newcomer would try it: as root, and as a member of the group.

One table holds what is one command, what it prints and how it ends; below it stand the stories that take several. The
expectations are dockerd's own behaviour.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import attrs
import pytest
from docker import DockerClient

from tests.support.accounts import People, User
from tests.support.daemon import Daemon
from tests.support.waiting import until

pytestmark = [pytest.mark.root, pytest.mark.slow]

CGROUPS = Path("/sys/fs/cgroup")
FULL_ID = re.compile(r"[0-9a-f]{64}")


@attrs.frozen
class Docker:
    """The docker command in one person's hands."""

    daemon: Daemon
    user: User | None

    def __call__(self, line: str, *, code: int = 0, given: str = "") -> str:
        """Its output, which is stderr for a command that is to fail."""
        done = self.daemon.docker(
            *shlex.split(line), user=self.user, check=False, input_=given.encode()
        )
        assert done.returncode == code, (
            f"{line}: {done.returncode}\n{done.stdout}{done.stderr}{self.daemon.log_tail()}"
        )
        return done.stderr if code else done.stdout


@pytest.fixture(scope="module")
def people(daemon: Daemon, two_users: People) -> dict[str, User | None]:
    """Who uses the command; each has an image."""
    found: dict[str, User | None] = {"root": None, "member": two_users.ada}
    for user in found.values():
        daemon.import_busybox(user=user)
    return found


@pytest.fixture
def client(daemon: Daemon) -> Iterator[DockerClient]:
    """A quicker way to look and to clear away than the command."""
    with closing(daemon.client()) as made:
        yield made


@pytest.fixture(params=["root", "member"])
def docker(
    request: pytest.FixtureRequest,
    daemon: Daemon,
    people: dict[str, User | None],
    client: DockerClient,
) -> Iterator[Docker]:
    """The command for root, and for a member of the group; there is no container yet."""
    yield Docker(daemon, people[request.param])
    for container in client.api.containers(all=True, quiet=True):
        client.api.remove_container(container["Id"], force=True, v=True)


@pytest.mark.parametrize("docker", ["member"], indirect=True)
@pytest.mark.parametrize(
    ("line", "printed"),
    [
        ("busybox echo hello", "hello\n"),
        ("-e A=1 -e B=2 busybox sh -c 'echo $A $B'", "1 2\n"),
        ("-w /made/for/it busybox pwd", "/made/for/it\n"),
        ("-u www busybox id", "uid=33(www) gid=33(www) groups=33(www)\n"),
        ("-u 33 busybox id -u", "33\n"),
        ("-u 1234:55 busybox id", "uid=1234 gid=55 groups=55\n"),
        ("--entrypoint echo busybox a b", "a b\n"),
        ("--hostname oven busybox hostname", "oven\n"),
        ("--add-host friend:10.1.2.3 busybox grep -c friend /etc/hosts", "1\n"),
        ("--tmpfs /t:size=1m,mode=700 busybox stat -c %a /t", "700\n"),
        ("--tmpfs /t busybox grep -c ' /t tmpfs rw,nosuid,nodev,noexec' /proc/mounts", "1\n"),
        (
            "--tmpfs /t:exec busybox grep -c ' /t tmpfs rw,nosuid,nodev,relatime' /proc/mounts",
            "1\n",
        ),
        ("--read-only --tmpfs /run busybox sh -c 'touch /run/x && echo done'", "done\n"),
        ("-v named:/data busybox sh -c 'echo kept > /data/f; cat /data/f'", "kept\n"),
        ("--mount type=tmpfs,target=/t busybox sh -c 'touch /t/x && echo done'", "done\n"),
        ("--network none busybox ls /sys/class/net", "lo\n"),
        ("--ulimit nofile=99:100 busybox sh -c 'ulimit -n; ulimit -Hn'", "99\n100\n"),
        ("--shm-size 8m busybox sh -c 'df -k /dev/shm | grep -c 8192'", "1\n"),
        ("--cap-drop all busybox grep CapBnd /proc/self/status", "CapBnd:\t0000000000000000\n"),
        ("busybox grep -E 'Seccomp:' /proc/self/status", "Seccomp:\t2\n"),
        ("--label a=b --stop-signal INT --log-driver none busybox echo x", "x\n"),
        ("-p 127.0.0.1::80 -p 80/udp busybox echo published", "published\n"),
        ("busybox sh -c 'echo err >&2; echo out'", "out\n"),
    ],
)
def test_run(docker: Docker, client: DockerClient, line: str, printed: str) -> None:
    assert docker(f"run --rm {line}") == printed
    assert client.api.containers(all=True) == []


@pytest.mark.parametrize("docker", ["member"], indirect=True)
@pytest.mark.parametrize(
    ("line", "code", "told"),
    [
        ("busybox sh -c 'exit 3'", 3, ""),
        ("busybox sh -c 'sh -c \"kill -9 \\$\\$\"; exit $?'", 137, ""),
        ("busybox nosuch", 127, "executable file not found in $PATH"),
        ("-t busybox nosuch", 127, "executable file not found in $PATH"),
        ("busybox /nosuch/file", 127, "not found"),
        ("busybox /etc", 126, "permission denied"),
        ("busybox /etc/passwd", 126, "permission denied"),
        ("-u nobody-here busybox true", 125, "unable to find user nobody-here"),
        ("-w /etc/passwd busybox true", 125, "Not a directory"),
        ("--read-only busybox touch /x", 1, "Read-only file system"),
        ("--name bad@name busybox true", 125, "Invalid container name (bad@name)"),
        ("-m 1m busybox true", 125, "Minimum memory limit allowed is 6MB"),
        ("--cpus 4096 busybox true", 125, "Range of CPUs is from 0.01"),
        ("--cpuset-cpus 4096 busybox true", 125, "Requested CPUs are not available"),
        ("-v /x:relative busybox true", 125, "mount path must be absolute"),
        ("-v named:/x:zz busybox true", 125, "invalid mode: zz"),
        ("--mount type=bind,source=/nosuch,target=/h busybox true", 125, "path does not exist"),
        ("--network elsewhere busybox true", 125, "elsewhere"),
    ],
)
def test_run_that_fails(
    docker: Docker, client: DockerClient, line: str, code: int, told: str
) -> None:
    said = docker(f"run --rm {line}", code=code)
    assert told in said
    assert "Error waiting for container" not in said
    assert client.api.containers(all=True) == [], "nothing stays of it"


def test_a_container_that_could_not_start_says_why(docker: Docker) -> None:
    docker("run --name web busybox nosuch", code=127)
    state = docker("inspect web --format '{{.State.Status}} {{.State.ExitCode}} {{.State.Error}}'")
    assert state == 'created 127 exec: "nosuch": executable file not found in $PATH\n'


def test_input_is_carried(docker: Docker) -> None:
    assert docker("run --rm -i busybox cat", given="one\ntwo\n") == "one\ntwo\n"
    docker("run -d --name web busybox sleep 100")
    assert docker("exec -i web wc -c", given="x" * 300_000) == "300000\n"


def test_limits_are_the_cgroups(docker: Docker) -> None:
    docker("run -d --name web -m 50m --cpus 0.5 --pids-limit 17 busybox sleep 100")
    container = docker("inspect web --format {{.Id}}").strip()
    shares = docker("run -d --cpu-shares 512 busybox sleep 100").strip()
    assert _values(container, "memory.limit_in_bytes", "memory.max") == {str(50 << 20)}
    assert _values(container, "cpu.cfs_quota_us", "cpu.max") <= {"50000", "50000 100000"}
    assert _values(container, "pids.max") == {"17"}
    assert _values(shares, "cpu.shares", "cpu.weight") <= {"512", "50", "20"}


def _values(container: str, *names: str) -> set[str]:
    found = {
        Path(path, name).read_text().strip()
        for path, _, files in os.walk(CGROUPS)  # which bears that others' groups go meanwhile
        if path.endswith(container)
        for name in set(names) & set(files)
    }
    assert found, f"no cgroup of the container has {' or '.join(names)}"
    return found


def test_out_of_memory_is_told_as_such(docker: Docker) -> None:
    began = _soon()
    docker("run --name web -m 10m busybox tail /dev/zero", code=137)
    assert docker("inspect web --format '{{.State.OOMKilled}} {{.State.ExitCode}}'") == "true 137\n"
    shown = docker(f"events --since {began} --until {_soon()} --format {{{{.Action}}}}")
    assert [word for word in shown.split() if word in {"oom", "die"}] == ["oom", "die"]


def _soon() -> str:
    return f"{time.time():.9f}"


def test_life(docker: Docker) -> None:
    assert FULL_ID.fullmatch(docker("create --name web busybox sh -c 'echo a; exit 5'").strip())
    assert docker("ps -a --format '{{.Names}} {{.Status}}'") == "web Created\n"
    assert "a" in docker("start --attach web", code=5) or docker("logs web") == "a\n"
    assert docker("wait web") == "5\n"
    assert docker("ps -a --format '{{.Names}} {{.State}}'") == "web exited\n"
    docker("rename web oven")
    assert "same name" in docker("rename oven oven", code=1)
    assert docker("rm oven") == "oven\n"
    assert "No such container: oven" in docker("rm oven", code=1)


@pytest.mark.parametrize(
    ("run", "stop", "code"),
    [
        ("busybox sleep 100", "stop -t 0 web", 137),
        ("busybox sh -c 'trap \"exit 7\" TERM; while :; do sleep 0.05; done'", "stop web", 7),
        (
            "--stop-signal INT busybox sh -c 'trap \"exit 8\" INT; while :; do sleep 0.05; done'",
            "stop web",
            8,
        ),
        (
            "busybox sh -c 'trap \"exit 9\" HUP; while :; do sleep 0.05; done'",
            "kill -s HUP web",
            9,
        ),
        ("busybox sleep 100", "kill web", 137),
    ],
)
def test_stopping(docker: Docker, run: str, stop: str, code: int) -> None:
    docker(f"run -d --name web {run}")
    time.sleep(0.2)  # the shell sets its trap
    docker(stop)
    assert docker("wait web") == f"{code}\n"


def test_changes_that_do_not_fit(docker: Docker) -> None:
    docker("run -d --name web busybox sleep 100")
    assert "is already in use by container" in docker("create --name web busybox true", code=1)
    assert "You cannot remove a running container" in docker("rm web", code=1)
    assert "Invalid signal: FOO" in docker("kill -s FOO web", code=1)
    docker("pause web")
    assert "(Paused)" in docker("ps --format {{.Status}}")
    assert "is paused" in docker("exec web true", code=1)
    docker("unpause web")
    docker("kill web")
    for line in ("kill web", "pause web", "top web", "exec web true"):
        assert "is not running" in docker(line, code=1), line
    assert docker("stop web") == "web\n"


def test_exec(docker: Docker) -> None:
    docker("run -d --name web busybox sleep 100")
    assert docker("exec web echo hi") == "hi\n"
    assert docker("exec -u www -w /tmp -e A=b web sh -c 'id -u; pwd; echo $A'") == "33\n/tmp\nb\n"
    docker("exec web sh -c 'exit 4'", code=4)
    docker("exec --detach web touch /by-exec")
    until(lambda: docker("exec web ls /") != "" and "by-exec" in docker("exec web ls /"))
    for line, code, told in (
        ("nosuch", 127, "executable file not found"),
        ("/etc", 126, "permission denied"),
    ):
        assert told in docker(f"exec web {line}", code=code)
    assert "unable to find user" in docker("exec -u nobody-here web true", code=126)
    assert "No such file or directory" in docker("exec -w /nope web true", code=126)


def test_logs(docker: Docker) -> None:
    docker(
        "run --name web busybox sh -c 'for i in 1 2 3; do echo l$i; sleep 0.01; done; printf end'"
    )
    assert docker("logs web") == "l1\nl2\nl3\nend"
    assert docker("logs --tail 2 web") == "l3\nend"
    assert docker("logs --tail 0 web") == ""
    assert docker("logs --details --tail 2 web") == " l3\n end"
    assert docker("logs --since 1h web") == docker("logs web")
    assert docker("logs --until 1h web") == ""
    stamped = docker("logs --timestamps web").splitlines()
    assert all(
        re.match(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (l\d|end)", line) for line in stamped
    )
    third = stamped[2].split()[0]
    assert docker(f"logs --since {third} web").startswith("l3")


def test_logs_follow_to_the_end(docker: Docker) -> None:
    docker("run -d --name web busybox sh -c 'for i in 1 2 3; do echo l$i; sleep 0.1; done'")
    assert docker("logs --follow web") == "l1\nl2\nl3\n"


def test_listing_by_filters(docker: Docker) -> None:
    docker("run -d --name first --label kind=1 -v held:/data -p 127.0.0.1::80 busybox sleep 100")
    docker("create --name second --label kind=2 --network none busybox true")
    docker("run --name third busybox false", code=1)
    for wanted, names in {
        "name=ir": "third first",
        "name=^/first$": "first",
        "status=running": "first",
        "status=exited": "third",
        "status=created": "second",
        "label=kind": "second first",
        "label=kind=2": "second",
        "exited=1": "third",
        "exited=0": "",
        "ancestor=busybox": "third second first",
        "ancestor=nosuch": "",
        "before=second": "first",
        "since=second": "third",
        "volume=held": "first",
        "network=none": "second",
        "expose=80": "first",
        "publish=80": "",  # the port on the host
        "health=none": "third second first",
    }.items():
        shown = docker(f"ps --all --filter {wanted} --format {{{{.Names}}}}")
        assert shown.split() == names.split(), wanted
    assert docker("ps --last 2 --format {{.Names}}").split() == ["third", "second"]
    assert "0B (virtual" in docker("ps --all --size --filter name=second --format {{.Size}}")
    for wanted in ("nosuch=1", "status=odd", "exited=odd"):
        assert "invalid filter" in docker(f"ps --filter {wanted}", code=1)


def test_watching(docker: Docker) -> None:
    docker("run -d --name web busybox sleep 100")
    titles, row = docker("top web").splitlines()
    assert titles.split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert row.split()[-2:] == ["sleep", "100"]
    assert re.fullmatch(r"\d\d:\d\d", row.split()[4]), "when it was started"
    pid = docker("inspect web --format {{.State.Pid}}").strip()
    assert docker("top web -o pid,comm").splitlines()[1].split() == [pid, "sleep"]
    assert docker("top web aux").splitlines()[0].split()[-1] == "COMMAND"
    assert "nosuch" in docker("top web -o nosuch", code=1)
    name, pids, memory = docker(
        "stats --no-stream --format '{{.Name}} {{.PIDs}} {{.MemUsage}}'"
    ).split(maxsplit=2)
    assert (name, pids) == ("web", "1")
    assert re.match(r"\d+(\.\d+)?[KM]iB / ", memory)


def test_what_ends_with_its_container(docker: Docker) -> None:
    docker("run --rm -d --name web -v /anonymous -v named:/data busybox sleep 100")
    volumes = set(docker("volume ls --quiet").split())
    docker("kill web")
    until(lambda: docker("ps --all --quiet") == "")
    assert "named" in volumes
    assert len(volumes - set(docker("volume ls --quiet").split())) == 1, "the anonymous one"


def test_images_come_and_go(docker: Docker) -> None:
    archive = (docker.user.home if docker.user else docker.daemon.root) / "saved.tar"
    docker("tag busybox oven/bread:1")
    names = docker("images --format '{{.Repository}}:{{.Tag}}'").split()
    assert {"busybox:latest", "oven/bread:1"} <= set(names)
    assert docker("rmi oven/bread:1") == "Untagged: oven/bread:1\n"
    assert "No such image: nosuch:latest" in docker("rmi nosuch", code=1)
    assert "Imported" in docker("history busybox")
    docker(f"save --output {archive} busybox")
    docker("create --name web busybox echo from my own layers")
    assert "is using its referenced image" in docker("rmi busybox", code=1)
    assert "Deleted: sha256:" in docker("rmi --force busybox")
    assert docker("images --quiet busybox") == ""
    docker("start web")
    assert docker("wait web") == "0\n"
    assert docker("logs web") == "from my own layers\n"
    assert "Loaded image: busybox:latest" in docker(f"load --input {archive}")
    assert "neither manifest.json nor index.json" in docker("load", code=1, given="\0" * 10_240)


def test_an_import_takes_changes(docker: Docker) -> None:
    container = docker("run -d busybox sleep 100").strip()
    archive = (docker.user.home if docker.user else docker.daemon.root) / "tree.tar"
    docker(f"exec {container} tar cf /tree.tar bin etc")
    docker.daemon.run(
        ["sh", "-c", f"docker exec {container} cat /tree.tar >{archive}"], docker.user
    )
    docker(f'import --change \'CMD ["echo", "again"]\' --message brought {archive} again:1')
    assert docker("run --rm again:1") == "again\n"
    assert docker("history again:1 --format '{{.Comment}}'") == "brought\n"
    assert "Deleted: sha256:" in docker("rmi again:1")


def test_the_engine_tells_of_itself(docker: Docker) -> None:
    assert docker("version --format '{{.Server.Os}} {{.Server.APIVersion}}'") == "linux 1.41\n"
    assert docker("info --format '{{.OSType}} {{.Driver}} {{.ContainersRunning}}'").startswith(
        "linux overlay2 "
    )
    assert docker("system df --format {{.Type}}").splitlines() == [
        "Images",
        "Containers",
        "Local Volumes",
        "Build Cache",
    ]
    docker("run --name web busybox dd if=/dev/zero of=/x bs=1M count=3")
    assert "Total reclaimed space: 3.1" in docker("container prune --force")


def test_events_of_a_life(docker: Docker) -> None:
    began = _soon()
    docker("run --rm --name web --label a=b busybox sh -c 'exit 3'", code=3)
    shown = docker(
        f"events --since {began} --until {_soon()} --filter type=container"
        " --format '{{.Action}} {{.Actor.Attributes.a}} {{.Actor.Attributes.exitCode}}'"
    )
    assert shown.splitlines() == [
        "create b <no value>",
        "attach b <no value>",
        "start b <no value>",
        "die b 3",
        "destroy b <no value>",
    ]

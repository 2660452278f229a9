"""The life of containers through the docker command, as an administrator and as a user, over daemons that are killed."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Iterator

import attrs
import pytest

from tests.support.accounts import People, User
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

PATIENCE_SECONDS = 60.0


@attrs.frozen
class Docker:
    """The docker command in one person's hands."""

    daemon: Daemon
    user: User | None

    def __call__(self, line: str, *, code: int = 0) -> str:
        """Its output without the last newline, which is stderr for a command that is to fail."""
        done = self.daemon.docker(*shlex.split(line), user=self.user, check=False)
        assert done.returncode == code, f"{line}: {done.returncode}\n{done.stdout}{done.stderr}"
        return (done.stderr if code else done.stdout).strip()

    def refusal(self, line: str) -> str:
        """What it says on stderr, whatever becomes of it."""
        return self.daemon.docker(*shlex.split(line), user=self.user, check=False).stderr

    def look(self, name: str, form: str) -> str:
        return self(f"inspect --format '{{{{{form}}}}}' {name}")

    def until(self, true: Callable[[], object]) -> None:
        end = time.monotonic() + PATIENCE_SECONDS
        while not true():
            assert time.monotonic() < end, self.daemon.log_tail()
            time.sleep(0.05)

    def actions(self, name: str) -> list[str]:
        """What ``docker events`` tells of it, oldest first."""
        now = time.time() + 1
        lines = self(
            f"events --since 1 --until {now:.0f} --filter container={name} --format '{{{{json .}}}}'"
        )
        return [json.loads(line)["Action"] for line in lines.splitlines()]


@pytest.fixture(params=["root", "member"])
def docker(request: pytest.FixtureRequest, daemon: Daemon, two_users: People) -> Iterator[Docker]:
    """The command for root, and for a member of the group; there is no container yet."""
    made = Docker(daemon, two_users.ada if request.param == "member" else None)
    daemon.import_busybox(user=made.user)
    yield made
    if ids := made("ps -aq").split():
        made(f"rm -fv {' '.join(ids)}")


def test_restart_policies(docker: Docker) -> None:
    docker("run -d --network none --restart always --name loops busybox false")
    docker("run -d --network none --restart on-failure:2 --name thrice busybox sh -c 'exit 3'")
    docker("run -d --network none --restart unless-stopped --name stays busybox sleep 600")
    docker.until(lambda: int(docker.look("loops", ".RestartCount")) >= 4)
    assert (
        docker.look("thrice", ".State.Status}} {{.State.ExitCode}} {{.RestartCount") == "exited 3 2"
    )
    assert docker.look("thrice", ".HostConfig.RestartPolicy") == "{on-failure 2}"
    shown = "ps --filter status=restarting --format '{{.Names}} {{.Status}}'"
    docker.until(lambda: docker(shown).startswith("loops Restarting (1) "))
    # It runs for a moment now and then, each time after a longer pause.
    docker.until(lambda: "is restarting" in docker.refusal("exec loops true"))
    docker.until(lambda: "cannot remove a restarting container" in docker.refusal("rm loops"))
    docker.daemon.kill()
    docker.daemon.start()
    docker.until(lambda: docker.look("stays", ".State.Running}} {{.RestartCount") == "true 0")
    docker.until(lambda: int(docker.look("loops", ".RestartCount")) >= 5)
    docker("stop loops")
    docker("stop -t 0 stays")
    assert docker.look("loops", ".State.Status") == "exited"
    docker.daemon.stop()
    docker.daemon.start()
    docker.until(lambda: docker.look("loops", ".RestartCount") != "0")
    assert docker.look("stays", ".State.Status") == "exited", "somebody stopped it"
    assert docker("rm -f loops") == "loops"
    told = docker.actions("thrice")
    assert told == ["create", *["start", "die"] * 3]


def test_a_restart_policy_and_rm_exclude_each_other(docker: Docker) -> None:
    told = docker("run --rm --restart always busybox true", code=125)
    assert "onflict" in told or "cannot be combined" in told


HEALTH = "--health-interval 200ms --health-timeout 1s --health-retries 2"


def test_health(docker: Docker) -> None:
    check = "--health-cmd 'cat /fine && echo is fine'"
    docker(f"run -d --network none --name patient {HEALTH} {check} busybox sleep 600")
    assert docker.look("patient", ".State.Health.Status") == "starting"
    docker.until(lambda: docker.look("patient", ".State.Health.Status") == "unhealthy")
    log = json.loads(docker.look("patient", "json .State.Health"))
    assert log["FailingStreak"] >= 2
    assert (log["Log"][-1]["ExitCode"], log["Log"][-1]["Output"]) == (
        1,
        "cat: can't open '/fine': No such file or directory\n",
    )
    assert docker("ps --filter health=unhealthy --format '{{.Names}}'") == "patient"
    docker("exec patient touch /fine")
    docker.until(lambda: docker.look("patient", ".State.Health.Status") == "healthy")
    assert docker("ps --format '{{.Status}}'").endswith(" (healthy)")
    docker.daemon.kill()
    docker.daemon.start()
    health = json.loads(docker.look("patient", "json .State.Health"))
    assert health["Status"] == "healthy", "what was known is known"
    assert len(health["Log"]) >= 1
    docker("exec patient rm /fine")
    docker.until(lambda: docker.look("patient", ".State.Health.Status") == "unhealthy")
    docker("pause patient")
    probes = docker.look("patient", "json .State.Health.Log")
    time.sleep(0.6)
    assert docker.look("patient", "json .State.Health.Log") == probes
    docker("unpause patient")
    docker.until(lambda: docker.look("patient", "json .State.Health.Log") != probes)
    docker("restart -t 0 patient")
    assert docker.look("patient", ".State.Health.FailingStreak") in {"0", "1"}
    told = docker.actions("patient")
    statuses = [action for action in told if action.startswith("health_status")]
    assert statuses[:3] == [
        "health_status: unhealthy",
        "health_status: healthy",
        "health_status: unhealthy",
    ]
    assert "exec_create: /bin/sh -c cat /fine && echo is fine" in told
    assert (
        docker.look("patient", ".Config.Healthcheck.Test")
        == "[CMD-SHELL cat /fine && echo is fine]"
    )


def test_a_probe_that_hangs_is_killed_with_what_it_started(docker: Docker) -> None:
    check = (
        "--health-timeout 300ms --health-interval 100ms --health-cmd 'sleep 500 & sleep 501; true'"
    )
    docker(f"run -d --network none --name hangs {check} busybox sleep 600")
    docker.until(lambda: int(docker.look("hangs", ".State.Health.FailingStreak")) >= 3)
    assert (
        docker.look("hangs", "(index .State.Health.Log 0).Output")
        == "Health check exceeded timeout (300ms)"
    )
    assert docker("top hangs -o pid,args").count("sleep 500") <= 2, "of the probe under way"
    docker("run -d --network none --name loud --health-interval 100ms busybox sleep 600")
    assert "<nil>" in docker.look("loud", ".State.Health")


def test_checks_that_make_no_sense_are_refused(docker: Docker) -> None:
    for option in ("--health-interval 10us --health-cmd true", "--health-timeout 1us"):
        docker(f"create --name none {option} busybox true", code=1)


def test_update(docker: Docker) -> None:
    docker("run -d --network none -m 64m --cpus 1 --name web busybox sleep 600")
    docker("create --network none --name other busybox sleep 600")
    told = docker("update -m 32m --memory-swap 32m --pids-limit 30 --cpu-shares 512 web other")
    assert told.split() == ["web", "other"]
    for name in ("web", "other"):
        shown = docker.look(name, "json .HostConfig")
        limits = {
            key: json.loads(shown)[key]
            for key in ("Memory", "MemorySwap", "PidsLimit", "CpuShares")
        }
        assert limits == {
            "Memory": 32 << 20,
            "MemorySwap": 32 << 20,
            "PidsLimit": 30,
            "CpuShares": 512,
        }
    assert docker("stats --no-stream --format '{{.MemUsage}}' web").endswith("/ 32MiB")
    assert "Nano" in docker("update --cpu-quota 5000 web", code=1)
    docker("update --cpus 0.5 --restart on-failure:3 web")
    assert docker.look("web", ".HostConfig.RestartPolicy") == "{on-failure 3}"
    assert "6MB" in docker("update -m 1m --memory-swap 1m web", code=1)
    docker.daemon.kill()
    docker.daemon.start()
    assert docker.look("web", ".HostConfig.NanoCpus") == "500000000"
    assert docker("stats --no-stream --format '{{.MemUsage}}' web").endswith("/ 32MiB")
    assert docker.actions("web") == ["create", "start", "update", "update"]
    docker("run -d --network none --restart always --name loops busybox false")
    docker.until(lambda: int(docker.look("loops", ".RestartCount")) >= 2)
    docker("update --restart no loops")
    docker.until(lambda: docker.look("loops", ".State.Status") == "exited")


def test_an_init_reaps_and_hands_on_signals(docker: Docker) -> None:
    docker(
        "run -d --network none --init --name reaped busybox sh -c 'trap \"exit 7\" TERM; sleep 600 & wait'"
    )
    assert (
        docker("exec reaped cat /proc/1/cmdline")
        .replace("\0", " ")
        .startswith("/sbin/docker-init -- sh -c")
    )
    docker("exec reaped sh -c '(sleep 0.1 &)'")
    docker.until(lambda: "Z" not in docker("exec reaped sh -c 'cat /proc/[0-9]*/stat'"))
    assert "Read-only" in docker("exec reaped sh -c 'echo >/sbin/docker-init' || true", code=1)
    docker("stop reaped")
    assert docker.look("reaped", ".State.ExitCode") == "7"
    assert docker.look("reaped", ".HostConfig.Init") == "true"
    assert docker("run --rm --network none --init busybox sh -c 'exit 3'", code=3) == ""


def test_namespaces_shared_with_ones_own(docker: Docker) -> None:
    docker("run -d --network none --ipc shareable --shm-size 1m --name donor busybox sleep 611")
    shown = docker("run --rm --network none --pid container:donor busybox ps -o args")
    assert "sleep 611" in shown
    docker("exec donor sh -c 'echo shared > /dev/shm/note'")
    ipc = "run --rm --network none --ipc container:donor busybox"
    assert docker(f"{ipc} cat /dev/shm/note") == "shared"
    assert docker(f"{ipc} readlink /proc/self/ns/ipc") == docker(
        "exec donor readlink /proc/self/ns/ipc"
    )
    assert (
        docker("run --rm --network none --ipc none busybox sh -c 'grep -c shm /proc/mounts; :'")
        == "0"
    )
    docker("run -d --network none --pid container:donor --name guest busybox sleep 612")
    assert docker.look("guest", ".HostConfig.PidMode") == f"container:{docker.look('donor', '.Id')}"
    docker("stop -t 0 donor")
    docker.until(lambda: docker.look("guest", ".State.Status") == "exited")
    assert " is not running" in docker("start guest", code=1)
    docker("run -d --network none --name closed busybox sleep 600")
    assert "non-shareable IPC" in docker(
        "run --network none --ipc container:closed busybox true", code=125
    )
    assert "No such container: nobody" in docker(
        "run --network none --pid container:nobody busybox true", code=125
    )


def test_anothers_namespaces_cannot_be_told_from_none(daemon: Daemon, two_users: People) -> None:
    ada, bob = Docker(daemon, two_users.ada), Docker(daemon, two_users.bob)
    for one in (ada, bob):
        daemon.import_busybox(user=one.user)
    theirs = ada("run -d --network none --ipc shareable --name hers busybox sleep 600")
    for option in ("--pid", "--ipc"):
        for name in ("hers", theirs, theirs[:12], "nobody"):
            told = bob(f"run --network none {option} container:{name} busybox true", code=125)
            assert f"No such container: {name}" in told
        assert "host" in bob(f"run {option} host --network none busybox true", code=125)
    assert "host" in bob("run --uts host --network none busybox true", code=125)
    told = Docker(daemon, None)(f"create --pid container:{theirs} busybox true", code=1)
    assert "another user namespace" in told
    ada("rm -f hers")

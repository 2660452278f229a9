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

PATIENCE_SECONDS = 20.0


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
    assert docker("ps --filter status=restarting --format '{{.Names}} {{.Status}}'").startswith(
        "loops Restarting (1) "
    )
    assert "is restarting" in docker("exec loops true", code=1)
    assert "cannot remove a restarting container" in docker("rm loops", code=1)
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

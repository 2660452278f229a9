"""What an unprivileged person asks of the daemon while it is made to die: each operation, what must be there before it,
how it is asked for, and what is so once it was done.

Rules: every operation can be asked for again after a crash, by a client who does not know how far it came; the answers
that say *it is done already* are as good as the one that says *done*.
"""

from __future__ import annotations

import io
import tarfile
import time
from collections.abc import Callable, Mapping
from functools import partial

import attrs

from tests.support.accounts import User
from tests.support.asking import Answer, ask
from tests.support.daemon import Daemon

BUSYBOX = "busybox:latest"
PATIENCE_SECONDS = 20.0
MEMORY_BYTES = 64 << 20
CHECK = {"Test": ["CMD", "true"], "Interval": 300_000_000, "StartPeriod": 0}
RESTARTS_MIN = 5
"""After so many the pauses between them are long enough for another daemon, and to ask it for something."""
SLEEPER = "trap 'exit 3' TERM; echo ready; while :; do sleep 600 & wait; done"


@attrs.frozen
class Subject:
    """The container that an operation is done to, as its owner sees it."""

    daemon: Daemon
    owner: User
    name: str

    def call(self, method: str, path: str, body: object = b"", *, fine: set[int]) -> Answer:
        """The answer to a request; one of the statuses that are ``fine``."""
        answer = ask(self.daemon, method, f"/v1.41{path}", body, user=self.owner)
        assert answer.status in fine, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer

    def look(self) -> Mapping[str, object] | None:
        """What inspect says; None if there is no such container."""
        answer = self.call("GET", f"/containers/{self.name}/json", fine={200, 404})
        if answer.status != 200:
            return None
        assert isinstance(answer.json, dict)
        return answer.json

    @property
    def state(self) -> Mapping[str, object]:
        """Its ``State``; empty if there is no such container."""
        seen = self.look()
        state = seen["State"] if seen else {}
        assert isinstance(state, dict)
        return state

    @property
    def status(self) -> str:
        """Docker's word for it; ``gone`` if there is no such container."""
        return str(self.state.get("Status", "gone"))

    def becomes(self, *wanted: str) -> str:
        """Wait until it is so."""
        until = time.monotonic() + PATIENCE_SECONDS
        while (status := self.status) not in wanted:
            assert time.monotonic() < until, f"{self.name} stays {status} and is not {wanted}"
            time.sleep(0.02)
        return status


def create(subject: Subject, **more: object) -> None:
    """A container with a named and an anonymous volume and a published port on a bridge; ``more`` goes over its HostConfig."""
    body = {
        "Image": BUSYBOX,
        "Cmd": more.pop("Command", ["sh", "-c", SLEEPER]),
        "Labels": {"round": subject.name},
        "Volumes": {"/anonymous": {}},
        "ExposedPorts": {"80/tcp": {}},
        "Healthcheck": CHECK if more.pop("checked", None) else {},
        "HostConfig": {
            "NetworkMode": "bridge",
            "Binds": [f"{subject.name}-data:/data"],
            "PortBindings": {"80/tcp": [{"HostPort": ""}]},
            **more,
        },
    }
    subject.call("POST", f"/containers/create?name={subject.name}", body, fine={201, 409})


def start(subject: Subject) -> None:
    subject.call("POST", f"/containers/{subject.name}/start", fine={204, 304})


def run(subject: Subject, **more: object) -> None:
    create(subject, **more)
    start(subject)


def execute(subject: Subject) -> None:
    body = {"Cmd": ["sh", "-c", "echo hello; exit 4"], "AttachStdout": True}
    made = subject.call("POST", f"/containers/{subject.name}/exec", body, fine={201}).json
    assert isinstance(made, dict)
    said = subject.call("POST", f"/exec/{made['Id']}/start", {"Detach": False}, fine={200})
    assert said.body.endswith(b"hello\n"), said.body
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        seen = subject.call("GET", f"/exec/{made['Id']}/json", fine={200}).json
        assert isinstance(seen, dict)
        if seen["ExitCode"] is not None:
            break
        assert time.monotonic() < until, "the exec does not end"
        time.sleep(0.01)
    assert seen["ExitCode"] == 4


def stop(subject: Subject) -> None:
    subject.call("POST", f"/containers/{subject.name}/stop?t=5", fine={204, 304})


def stop_for_ever(subject: Subject) -> None:
    subject.call("POST", f"/containers/{subject.name}/stop?t=5", fine={204, 304, 404})
    subject.becomes("gone")


def kill(subject: Subject) -> None:
    subject.call("POST", f"/containers/{subject.name}/kill", fine={204, 409})  # 409: it was


def wait_for_policy(subject: Subject) -> None:
    """It has ended by itself again and again, and its policy takes its time."""
    policy = {"Name": "on-failure", "MaximumRetryCount": 0}
    run(subject, RestartPolicy=policy, Command=["false"])
    until = time.monotonic() + PATIENCE_SECONDS
    while not (subject.status == "restarting" and restarts_of(subject) >= RESTARTS_MIN):
        assert time.monotonic() < until, f"it is {subject.state}"
        time.sleep(0.02)


def restarts_of(subject: Subject) -> int:
    seen = subject.look() or {}
    count = seen.get("RestartCount", 0)
    assert isinstance(count, int)
    return count


def restart(subject: Subject) -> None:
    subject.call("POST", f"/containers/{subject.name}/restart?t=5", fine={204})


def pause(subject: Subject) -> None:
    answer = subject.call("POST", f"/containers/{subject.name}/pause", fine={204, 409})
    assert answer.status == 204 or "already paused" in answer.message


def unpause(subject: Subject) -> None:
    subject.call("POST", f"/containers/{subject.name}/unpause", fine={204, 409})


def paused(subject: Subject) -> None:
    run(subject)
    pause(subject)


def rename(subject: Subject) -> None:
    subject.call(
        "POST",
        f"/containers/{subject.name}/rename?name={subject.name}-renamed",
        fine={204, 404},  # 404: it is called so already
    )


def remove(subject: Subject) -> None:
    subject.call("DELETE", f"/containers/{subject.name}?force=1&v=1", fine={204, 404, 409})


def nothing(subject: Subject) -> None:
    assert subject.status == "gone"


def update(subject: Subject) -> None:
    limits = {"Memory": MEMORY_BYTES, "MemorySwap": 2 * MEMORY_BYTES, "PidsLimit": 77}
    subject.call("POST", f"/containers/{subject.name}/update", limits, fine={200})


def updated(subject: Subject) -> None:
    seen = subject.look()
    assert seen is not None
    host = seen["HostConfig"]
    assert isinstance(host, dict)
    assert (host["Memory"], host["PidsLimit"]) == (MEMORY_BYTES, 77)


def copy_in(subject: Subject) -> None:
    path = f"/containers/{subject.name}/archive?path=/data"
    subject.call("PUT", path, small_tar(), fine={200})


def copied(subject: Subject) -> None:
    path = f"/containers/{subject.name}/archive?path=/data/told"
    got = subject.call("GET", path, fine={200}).body
    with tarfile.open(fileobj=io.BytesIO(got)) as tar:
        member = tar.extractfile("told")
        assert member is not None
        assert member.read() == b"hello"


def small_tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("told")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"hello"))
    return buffer.getvalue()


def run_checked(subject: Subject) -> None:
    """Its probe follows the start, and is asked for by nobody."""
    start(subject)
    until = time.monotonic() + PATIENCE_SECONDS
    while health_of(subject) != "healthy":
        assert time.monotonic() < until, f"it stays {health_of(subject)}"
        time.sleep(0.02)


def health_of(subject: Subject) -> str:
    health = subject.state.get("Health")
    return str(health["Status"]) if isinstance(health, dict) else "none"


def checked(subject: Subject) -> None:
    assert health_of(subject) == "healthy"


def fall(subject: Subject) -> None:
    """Its first process ends by itself, and its policy starts another; nobody asks for either."""
    before = subject.state
    body = {"Cmd": ["kill", "-TERM", "1"], "AttachStdout": True}
    made = subject.call(
        "POST", f"/containers/{subject.name}/exec", body, fine={201, 409}
    )  # 409: it is not up yet
    if made.status == 201:
        assert isinstance(made.json, dict)
        subject.call("POST", f"/exec/{made.json['Id']}/start", {"Detach": False}, fine={200, 409})
    until = time.monotonic() + PATIENCE_SECONDS
    while True:
        state = subject.state
        if state["Status"] == "running" and state["Pid"] != before["Pid"]:
            return
        assert time.monotonic() < until, f"it is not started again: {state}"
        time.sleep(0.02)


def make_network(subject: Subject) -> None:
    body = {"Name": f"{subject.name}-net", "CheckDuplicate": True}
    subject.call("POST", "/networks/create", body, fine={201, 409})


def has_network(subject: Subject) -> None:
    subject.call("GET", f"/networks/{subject.name}-net", fine={200})


def remove_network(subject: Subject) -> None:
    subject.call("DELETE", f"/networks/{subject.name}-net", fine={204, 404})


def has_no_network(subject: Subject) -> None:
    subject.call("GET", f"/networks/{subject.name}-net", fine={404})


def beside_network(subject: Subject) -> None:
    make_network(subject)
    run(subject)


def connect(subject: Subject) -> None:
    body = {"Container": subject.name, "EndpointConfig": {"Aliases": ["alias"]}}
    answer = subject.call("POST", f"/networks/{subject.name}-net/connect", body, fine={200, 403})
    assert answer.status == 200 or "already exists" in answer.message


def connected(subject: Subject) -> None:
    """It has the link inside, and says so."""
    assert networks_of(subject) == {"bridge", f"{subject.name}-net"}
    assert "eth1" in links_in(subject)


def on_two(subject: Subject) -> None:
    beside_network(subject)
    connect(subject)


def disconnect(subject: Subject) -> None:
    body = {"Container": subject.name}
    answer = subject.call(
        "POST", f"/networks/{subject.name}-net/disconnect", body, fine={200, 403, 404, 500}
    )
    assert answer.status == 200 or "is not connected" in answer.message


def disconnected(subject: Subject) -> None:
    assert networks_of(subject) == {"bridge"}
    assert "eth1" not in links_in(subject)


def networks_of(subject: Subject) -> set[str]:
    seen = subject.look()
    assert seen is not None
    settings = seen["NetworkSettings"]
    assert isinstance(settings, dict)
    return set(settings["Networks"])


def links_in(subject: Subject) -> str:
    return subject.daemon.docker(
        "exec", subject.name, "ls", "/sys/class/net", user=subject.owner
    ).stdout


def make_volume(subject: Subject) -> None:
    subject.call("POST", "/volumes/create", {"Name": f"{subject.name}-data"}, fine={201})


def has_volume(subject: Subject) -> None:
    subject.call("GET", f"/volumes/{subject.name}-data", fine={200})


def remove_volume(subject: Subject) -> None:
    subject.call("DELETE", f"/volumes/{subject.name}-data", fine={204, 404})


def has_no_volume(subject: Subject) -> None:
    subject.call("GET", f"/volumes/{subject.name}-data", fine={404})


@attrs.frozen
class Operation:
    """One of them.

    Attributes:
        name: As people call it.
        before: Brings about what it is done to.
        act: Asks for it, and may be called again.
        status: What the container is afterwards.
        right: What else is so then.
        renamed: It has its other name afterwards.
        least: What it passes at least, by the name of the passage without its side: a list that is not of this operation,
            or of nothing, would prove nothing.
    """

    name: str
    before: Callable[[Subject], None]
    act: Callable[[Subject], None]
    status: str
    right: Callable[[Subject], None] = lambda _: None
    renamed: bool = False
    least: tuple[str, ...] = ()


COMMIT = "commit runtime.ledger:Ledger"
OPERATIONS = (
    Operation("create", nothing, create, "created", least=(f"{COMMIT}.insert", f"{COMMIT}.write")),
    Operation(
        "start",
        create,
        start,
        "running",
        least=(
            f"{COMMIT}.write",
            "spawner overlay",
            "spawner network_namespace",
            "spawner spawn sh conmon",
            "fifo start",
            "conmon go",
            "thread runtime.cgroup_tree:CgroupTree.create",
            "thread linux.netlink:Netlink._send",
            "thread linux.nftables:Nftables.apply",
        ),
    ),
    Operation(
        "exec", run, execute, "running", least=(f"{COMMIT}.write_exec", "spawner spawn sh conmon")
    ),
    Operation("stop", run, stop, "exited", least=(f"{COMMIT}.write", "signal SIGTERM")),
    Operation("restart", run, restart, "running", least=("signal SIGTERM", "spawner overlay")),
    Operation(
        "kill", run, kill, "exited", least=(f"{COMMIT}.write", "thread runtime.runs:Runs.signal")
    ),
    Operation(
        "stop one that waits for its policy",
        wait_for_policy,
        stop,
        "exited",
        least=(f"{COMMIT}.write",),
    ),
    Operation("pause", run, pause, "paused", least=(f"{COMMIT}.write",)),
    Operation("unpause", paused, unpause, "running", least=(f"{COMMIT}.write",)),
    Operation("rename", run, rename, "running", renamed=True, least=(f"{COMMIT}.write",)),
    Operation("remove", run, remove, "gone", least=(f"{COMMIT}.delete", "spawner unmount")),
    Operation(
        "stop one that goes when it ends",
        partial(run, AutoRemove=True),
        stop_for_ever,
        "gone",
        least=(f"{COMMIT}.delete", "signal SIGTERM"),
    ),
    Operation(
        "fall and be started by policy",
        partial(run, RestartPolicy={"Name": "always"}),
        fall,
        "running",
        least=("spawner overlay",),
    ),
    Operation(
        "be probed",
        partial(create, checked=True),
        run_checked,
        "running",
        right=checked,
        least=("spawner spawn sh conmon",),
    ),
    Operation("update", run, update, "running", right=updated, least=(f"{COMMIT}.write",)),
    Operation("copy in", run, copy_in, "running", right=copied, least=("spawner *",)),
    Operation(
        "make a network",
        nothing,
        make_network,
        "gone",
        right=has_network,
        least=("commit network*",),
    ),
    Operation(
        "remove a network",
        make_network,
        remove_network,
        "gone",
        right=has_no_network,
        least=("commit network*",),
    ),
    Operation(
        "connect",
        beside_network,
        connect,
        "running",
        right=connected,
        least=("commit network*", "thread linux.netlink*"),
    ),
    Operation(
        "disconnect",
        on_two,
        disconnect,
        "running",
        right=disconnected,
        least=("commit network*", "thread linux.netlink*"),
    ),
    Operation(
        "make a volume",
        nothing,
        make_volume,
        "gone",
        right=has_volume,
        least=("commit store.vol*",),
    ),
    Operation(
        "remove a volume",
        make_volume,
        remove_volume,
        "gone",
        right=has_no_volume,
        least=("commit store.vol*",),
    ),
)

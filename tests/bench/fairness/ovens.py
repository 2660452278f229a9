"""The engines, as two people use them: H and Q. On ours each is an account of their own; dockerd knows no people."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import attrs

from tests.bench import engines
from tests.support.accounts import User, people
from tests.support.daemon import Daemon, new_daemon

CGROUPS = Path("/sys/fs/cgroup")
COMMAND_SECONDS = 600
GATE = "/gate"
START = """
import http.client, json, os, socket, sys
path, number, body = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
def ask(where, body):
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(path)
    connection.request("POST", where, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    said = answer.read()
    if answer.status >= 300:
        sys.exit(f"{where}: {answer.status} {said!r}")
    return said
for _ in range(number):
    made = json.loads(ask("/containers/create", body))["Id"]
    ask(f"/containers/{made}/start", b"")
    print(made, flush=True)
"""
"""Creates and starts by the API: the docker command's own start, many times, would be all that is seen on a busy host."""


@attrs.frozen
class Oven:
    """One engine under measurement.

    Attributes:
        name: As it is printed.
        socket: Where it listens.
        daemon: Ours, if it is ours.
        accounts: Who H and Q are on the host; nobody but root where the engine knows no people.
        gates: A directory of each, with a pipe that whoever waits at it opens.
    """

    name: str
    socket: Path
    daemon: Daemon | None = None
    accounts: Mapping[str, User] = attrs.field(factory=dict)
    gates: Mapping[str, Path] = attrs.field(factory=dict)

    def waiting(self, who: str, number: int, image: str, then: str) -> list[str]:
        """So many containers that stand still until the gate is opened, and then do as told; their ids."""
        body = {
            "Image": image,
            "Cmd": ["sh", "-c", f": <{GATE}/go; {then}"],
            "HostConfig": {"NetworkMode": "none", "Binds": [f"{self.gates[who]}:{GATE}"]},
        }
        words = (sys.executable, "-I", "-c", START, str(self.socket), str(number), json.dumps(body))
        return self.run(who, *words).split()

    def open_gate(self, who: str) -> None:
        """All who wait there go on."""
        os.close(os.open(self.gates[who] / "go", os.O_WRONLY | os.O_NONBLOCK))

    def able(self, needs: frozenset[str]) -> bool:
        """Whether it has what a load needs."""
        return not needs or self.daemon is not None

    def docker(self, who: str, *words: str, input_: bytes = b"") -> str:
        """The docker command as H or Q, to its end; what it said."""
        return self.run(who, "docker", *words, input_=input_)

    def run(self, who: str, *words: str, input_: bytes = b"") -> str:
        """Any command as H or Q, to its end; what it said."""
        user = self.accounts.get(who)
        done = subprocess.run(
            words,
            env=self._environment(user),
            cwd="/",
            input=input_,
            capture_output=True,
            check=False,
            timeout=COMMAND_SECONDS,
            user=user.uid if user else None,
            group=user.gid if user else None,
            extra_groups=user.groups if user else None,
        )
        if done.returncode:
            message = f"{words[0]} {' '.join(words[1:3])} ended with {done.returncode}: {done.stderr.decode(errors='replace')}"
            raise RuntimeError(message)
        return done.stdout.decode(errors="replace")

    def cgroups(self, who: str, containers: Sequence[str]) -> list[Path]:
        """Where the kernel counts the processors' time of each container."""
        pids = self.docker(who, "inspect", "-f", "{{.State.Pid}}", *containers).split()
        return [_counted(Path(f"/proc/{pid}/cgroup").read_text()) for pid in pids]

    def clear(self, who: str) -> None:
        """Nothing of this person's runs any more."""
        if ids := self.docker(who, "ps", "-aq").split():
            self.docker(who, "rm", "-f", "-v", *ids)

    def _environment(self, user: User | None) -> Mapping[str, str]:
        home = str(user.home) if user else "/root"
        return {
            **os.environ,
            "HOME": home,
            "DOCKER_HOST": f"unix://{self.socket}",
            "DOCKER_BUILDKIT": "0",
        }


@contextlib.contextmanager
def bakehouse() -> Iterator[Oven]:
    """Our daemon, and two members of its group."""
    with people() as made:
        daemon = new_daemon(made.group)
        try:
            daemon.start()
            daemon.import_busybox()
            daemon.bakehouse("image", "publish", "busybox:latest")
            who = {"H": made.ada, "Q": made.bob}
            gates = {name: _gate(user.home / "gate", user) for name, user in who.items()}
            yield Oven("bakehouse", daemon.socket, daemon, who, gates)
            left = daemon.close()
            assert not left, left
        finally:
            daemon.clear()


@contextlib.contextmanager
def dockerd() -> Iterator[Oven]:
    """dockerd, as its package comes."""
    with engines.dockerd() as engine, tempfile.TemporaryDirectory(dir="/var/tmp") as place:
        gates = {name: _gate(Path(place, name), None) for name in ("H", "Q")}
        yield Oven("dockerd", engine.socket, gates=gates)


def _gate(path: Path, user: User | None) -> Path:
    path.mkdir()
    os.mkfifo(path / "go")
    if user is not None:
        os.chown(path, user.uid, user.gid)
        os.chown(path / "go", user.uid, user.gid)
    return path


OVENS: Mapping[str, Callable[[], AbstractContextManager[Oven]]] = {
    "bakehouse": bakehouse,
    "dockerd": dockerd,
}


def _counted(places: str) -> Path:
    """The group that counts, of those in a process's ``/proc/PID/cgroup``."""
    for line in places.splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpuacct" in controllers.split(","):
            return CGROUPS / "cpuacct" / path.lstrip("/")
        if not controllers and not (CGROUPS / "cpuacct").is_dir():
            return CGROUPS / path.lstrip("/")
    message = "no cgroup counts the processors' time"
    raise RuntimeError(message)


@contextlib.contextmanager
def ahead_of_the_rest(cgroup: Path, *, wanted: bool) -> Iterator[None]:
    """The engine's whole tree weighs as much as can be beside what else the host does; inside it nothing changes."""
    below = cgroup.relative_to(CGROUPS).parts
    v2 = below[0] != "cpuacct"
    tree = CGROUPS / below[0] if v2 else CGROUPS / "cpu" / below[1]
    file, most = (tree / "cpu.weight", 10_000) if v2 else (tree / "cpu.shares", 262_144)
    before = file.read_text()
    if wanted:
        file.write_text(str(most))
    try:
        yield
    finally:
        file.write_text(before)


def cpu_ns(cgroup: Path) -> int:
    """Processor time a group has used, on either version."""
    try:
        return int((cgroup / "cpuacct.usage").read_text())
    except FileNotFoundError:
        words = (cgroup / "cpu.stat").read_text().split()
        return int(words[words.index("usage_usec") + 1]) * 1_000

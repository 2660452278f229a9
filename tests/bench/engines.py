"""The engines that are measured side by side: each with roots of its own on one file system, and the same small image.

dockerd and podman run in network and mount namespaces of their own: nothing of them is left on the host.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import attrs
import docker
from typing_extensions import override

from supervisor.linux.mount_namespace import UNIFIED
from tests.support.daemon import busybox_tar, new_daemon

IMAGE = "busybox:latest"
LIMITS = {"nofile": 9_000, "nproc": 9_000}
"""Asked for of every engine: podman's own defaults may be above what this host lets anybody have."""

READY_SECONDS = 60.0


class EngineMissingError(Exception):
    """It cannot be measured on this host, and why."""


@attrs.frozen
class Engine:
    """One engine under measurement.

    Attributes:
        name: As it is printed.
        client: docker-py at its socket.
        socket: Where that is.
        pids: Of all that counts as the engine now.
    """

    name: str
    client: docker.DockerClient
    socket: Path
    pids: Callable[[], Sequence[int]]

    def other_client(self) -> docker.DockerClient:
        """One more, for another thread."""
        return _client(self.socket)

    def raw(self) -> http.client.HTTPConnection:
        """A connection without a client library between."""
        return _SocketConnection(self.socket)

    def command(self, *words: str) -> None:
        """Run the docker command against it."""
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}"}
        subprocess.run(["docker", *words], env=environment, check=True, capture_output=True)


class _SocketConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    @override
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))


@contextlib.contextmanager
def bakehouse(settings: str = "") -> Iterator[Engine]:
    """Our daemon; with further ``settings``, TOML."""
    daemon = new_daemon("root", settings)
    try:
        daemon.start()
        assert daemon.process is not None
        pid = daemon.process.pid
        with contextlib.closing(daemon.client()) as client:
            yield _prepared(Engine("bakehouse", client, daemon.socket, lambda: family(pid)))
        left = daemon.close()
        assert not left, left
    finally:
        daemon.clear()


@contextlib.contextmanager
def dockerd() -> Iterator[Engine]:
    """dockerd, as its package comes."""
    root = Path("/var/tmp") / f"bench-dockerd-{os.getpid()}"
    words = [
        *("dockerd", "--data-root", root / "data", "--exec-root", root / "run"),
        *("--host", f"unix://{root / 's'}", "--pidfile", root / "pid"),
    ]
    with _other("dockerd", root, words) as engine:
        yield engine
    for path in Path("/sys/fs/cgroup").glob("*/docker"):
        with contextlib.suppress(OSError):
            path.rmdir()


@contextlib.contextmanager
def podman() -> Iterator[Engine]:
    """podman's service, by its Docker API."""
    root = Path("/var/tmp") / f"bench-podman-{os.getpid()}"
    words = [
        *("podman", "--root", root / "data", "--runroot", root / "run"),
        *(("--runtime", "runc") if Path(UNIFIED).is_dir() else ()),  # crun refuses hybrid hosts
        *("--cgroup-manager", "cgroupfs", "system", "service", "--time=0", f"unix://{root / 's'}"),
    ]
    with _other("podman", root, words) as engine:
        yield engine


@contextlib.contextmanager
def _other(name: str, root: Path, words: Sequence[object]) -> Iterator[Engine]:
    if not shutil.which(name):
        raise EngineMissingError(f"{name} is not installed")
    root.mkdir(mode=0o700)
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            ["unshare", "--net", "--mount", *map(str, words)],
            env={**os.environ, "TMPDIR": str(root)},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        with contextlib.closing(_ready(name, root)) as client:
            try:
                yield _prepared(Engine(name, client, root / "s", lambda: family(process.pid)))
            finally:
                for container in client.containers.list(all=True):
                    container.remove(force=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        _clear(root)


def _clear(root: Path) -> None:
    for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
        point = line.split()[4]
        if point.startswith(f"{root}/"):
            subprocess.run(["umount", "-l", point], check=False)
    shutil.rmtree(root, ignore_errors=True)


def _ready(name: str, root: Path) -> docker.DockerClient:
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            return _client(root / "s")
        except (docker.errors.DockerException, OSError) as error:
            if time.monotonic() > until:
                said = (root / "log").read_text(errors="replace")[-2_000:]
                raise EngineMissingError(f"{name} does not answer:\n{said}") from error
            time.sleep(0.2)


def _client(path: Path) -> docker.DockerClient:
    client = docker.DockerClient(base_url=f"unix://{path}", version="auto", timeout=120)
    client.ping()
    return client


def _prepared(engine: Engine) -> Engine:
    engine.client.api.import_image_from_data(busybox_tar(), repository="busybox", tag="latest")
    return engine


def family(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    with contextlib.suppress(FileNotFoundError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def pss_bytes(pid: int) -> int:
    """Proportional memory of a process; 0 when it has gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return 0


def cpu_ticks(pid: int) -> int:
    """Processor time of a process so far; 0 when it has gone."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])
    return 0

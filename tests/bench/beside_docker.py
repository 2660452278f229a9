"""Bakehouse beside dockerd, in one run: ``python -m tests.bench.beside_docker [--rounds N] [--json FILE]``.

Both daemons get data roots of their own on the same file system and the same small image; docker-py drives both, in turns,
so that a noisy host is noisy for both. dockerd runs in a network namespace of its own: nothing of it is left on the host.
Medians are printed, and their ratio: absolute times say something about this host only.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import docker
from docker.models.containers import Container

from tests.support.daemon import busybox_tar, new_daemon

IMAGE = "busybox:latest"
RUN_STEPS = 10
SETTLE_SECONDS = 3.0
READY_SECONDS = 60.0

Measure = Callable[["Engine"], float]


@attrs.frozen
class Engine:
    """One daemon under measurement.

    Attributes:
        name: As it is printed.
        client: docker-py at its socket.
        pids: Of all that counts as the engine when it idles.
    """

    name: str
    client: docker.DockerClient
    pids: Callable[[], Sequence[int]]


@attrs.frozen
class Row:
    """One thing that was measured: seconds (or MiB) of each round, by engine."""

    what: str
    unit: str
    target: float
    rounds: Mapping[str, Sequence[float]]

    def median(self, engine: str) -> float:
        return statistics.median(self.rounds[engine])

    @property
    def ratio(self) -> float:
        return self.median("bakehouse") / self.median("dockerd")


def life(engine: Engine, network: str) -> float:
    """Create, start, wait, remove."""
    began = time.perf_counter()
    container = engine.client.containers.create(IMAGE, ["true"], network_mode=network)
    container.start()
    container.wait()
    container.remove()
    return time.perf_counter() - began


def execute(engine: Engine) -> float:
    """``exec true`` in a container that runs."""
    container = _sleeper(engine)
    began = time.perf_counter()
    code, _ = container.exec_run(["true"])
    took = time.perf_counter() - began
    assert code == 0
    return took


def cold_build(engine: Engine) -> float:
    """Ten RUN steps that nobody has run."""
    return _build(engine, f"{time.time_ns()}")


def cached_build(engine: Engine) -> float:
    """The same build again."""
    _build(engine, "cached")
    return _build(engine, "cached")


def idle_memory(engine: Engine) -> float:
    """Proportional memory of the idle engine, MiB."""
    return sum(map(_pss_bytes, engine.pids())) / (1 << 20)


MEASURES: Sequence[tuple[str, str, float, Measure]] = (
    ("create, start, wait, remove: no network", "s", 0.25, lambda engine: life(engine, "none")),
    ("create, start, wait, remove: bridge", "s", 0.25, lambda engine: life(engine, "bridge")),
    ("exec", "s", 0.5, execute),
    ("build, ten cold RUN steps", "s", 0.25, cold_build),
    ("build, cached", "s", 0.5, cached_build),
)


def _sleeper(engine: Engine) -> Container:
    found = engine.client.containers.list(filters={"name": "sleeper"})
    if found:
        return found[0]
    return engine.client.containers.run(IMAGE, ["sleep", "3600"], name="sleeper", detach=True)


def _build(engine: Engine, salt: str) -> float:
    steps = [f"FROM {IMAGE}", *(f"RUN echo {salt}-{step} > /{step}" for step in range(RUN_STEPS))]
    text = "\n".join(steps).encode()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        member = tarfile.TarInfo("Dockerfile")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    began = time.perf_counter()
    said = list(
        engine.client.api.build(
            fileobj=io.BytesIO(buffer.getvalue()),
            custom_context=True,
            rm=True,
            tag="bench",
            decode=True,
        )
    )
    took = time.perf_counter() - began
    errors = [line["error"] for line in said if "error" in line]
    assert not errors, errors
    return took


def _pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    return 0


def _children(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += _children(int(child))
    return found


@contextlib.contextmanager
def bakehouse() -> Iterator[Engine]:
    """Our daemon, with roots of its own."""
    daemon = new_daemon("root")
    try:
        daemon.start()
        assert daemon.process is not None
        pid = daemon.process.pid
        with contextlib.closing(daemon.client()) as client:
            yield Engine("bakehouse", client, lambda: _children(pid))
        left = daemon.close()
        assert not left, left
    finally:
        daemon.clear()


@contextlib.contextmanager
def dockerd() -> Iterator[Engine]:
    """dockerd, in a network namespace of its own."""
    root = Path("/var/tmp") / f"bench-dockerd-{os.getpid()}"
    root.mkdir(mode=0o700)
    socket = root / "s"
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *("unshare", "--net", "--mount", "dockerd"),
                *("--data-root", root / "data", "--exec-root", root / "run"),
                *("--host", f"unix://{socket}", "--pidfile", root / "pid"),
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        client = _docker_client(socket, root / "log")
        with contextlib.closing(client):
            yield Engine("dockerd", client, lambda: _children(process.pid))
            for container in client.containers.list(all=True):
                container.remove(force=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
        for path in Path("/sys/fs/cgroup").glob("*/docker"):
            with contextlib.suppress(OSError):
                path.rmdir()
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            point = line.split()[4]
            if point.startswith(f"{root}/"):
                subprocess.run(["umount", "-l", point], check=False)
        shutil.rmtree(root, ignore_errors=True)


def _docker_client(socket: Path, log: Path) -> docker.DockerClient:
    until = time.monotonic() + READY_SECONDS
    while True:
        try:
            client = docker.DockerClient(base_url=f"unix://{socket}", version="auto", timeout=120)
            client.ping()
        except (docker.errors.DockerException, OSError):
            if time.monotonic() > until:
                sys.exit(f"dockerd does not answer:\n{log.read_text()[-2000:]}")
            time.sleep(0.2)
        else:
            return client


def measure(engines: Sequence[Engine], rounds: int) -> list[Row]:
    """All measures, the engines in turns; the first round warms up and does not count."""
    rows = []
    time.sleep(SETTLE_SECONDS)
    idle = {engine.name: [idle_memory(engine)] for engine in engines}
    rows.append(Row("idle memory (PSS)", "MiB", 0.5, idle))
    for what, unit, target, take in MEASURES:
        taken: dict[str, list[float]] = {engine.name: [] for engine in engines}
        for number in range(rounds + 1):
            for engine in engines:
                value = take(engine)
                if number:
                    taken[engine.name].append(value)
        rows.append(Row(what, unit, target, taken))
    return rows


def told(rows: Sequence[Row]) -> str:
    """The rows as a table."""
    lines = [f"{'':42}{'bakehouse':>12}{'dockerd':>12}{'ratio':>8}{'target':>8}"]
    for row in rows:
        ours, theirs = row.median("bakehouse"), row.median("dockerd")
        scale, unit = (1_000, "ms") if row.unit == "s" else (1, row.unit)
        lines.append(
            f"{row.what:42}{ours * scale:>9.1f} {unit:2}{theirs * scale:>9.1f} {unit:2}"
            f"{row.ratio:>8.2f}{row.target:>8.2f}{'' if row.ratio <= row.target else '  missed'}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, help="write all figures there")
    asked = parser.parse_args()
    with bakehouse() as ours, dockerd() as theirs:
        for engine in (ours, theirs):
            engine.client.api.import_image_from_data(
                busybox_tar(), repository="busybox", tag="latest"
            )
        rows = measure((ours, theirs), asked.rounds)
    sys.stdout.write(f"{told(rows)}\n")
    if asked.json:
        asked.json.write_text(json.dumps([attrs.asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()

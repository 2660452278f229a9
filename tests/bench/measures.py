"""What is measured: each a function of one engine, with what it is held to.

A *ratio* is held against dockerd's median in the same run; an *absolute* target says something about this host only, and
stands for what people notice (memory, an event's delay).
"""

from __future__ import annotations

import contextlib
import enum
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import attrs
import docker
from docker.models.containers import Container

from tests.bench.engines import IMAGE, LIMITS, Engine, cpu_ticks, pss_bytes

RUN_STEPS = 10
AT_ONCE = 32
LOG_BYTES = 20 << 20
IDLE_SECONDS = 10.0
SLEEPERS = 20
MEBIBYTE = 1 << 20
ULIMITS = [docker.types.Ulimit(name=name, soft=most, hard=most) for name, most in LIMITS.items()]


class Held(enum.Enum):
    """To what a figure is held."""

    RATIO = "of dockerd's"
    ABSOLUTE = "at most"


@attrs.frozen
class Measure:
    """One figure.

    Attributes:
        once: Taken a single time: what it measures does not vary, or takes long.
    """

    what: str
    unit: str
    held: Held
    target: float
    take: Callable[[Engine], float]
    once: bool = False


def life(client: docker.DockerClient, network: str) -> float:
    """Create, start, wait, remove; seconds."""
    began = time.perf_counter()
    container = client.containers.create(IMAGE, ["true"], network_mode=network, ulimits=ULIMITS)
    container.start()
    container.wait()
    container.remove()
    return time.perf_counter() - began


def lives_at_once(engine: Engine) -> float:
    """As many lives at the same time, each with a client of its own; seconds for all."""
    clients = [engine.other_client() for _ in range(AT_ONCE)]
    try:
        with ThreadPoolExecutor(AT_ONCE) as pool:
            began = time.perf_counter()
            list(pool.map(lambda client: life(client, "bridge"), clients))
            return time.perf_counter() - began
    finally:
        for client in clients:
            client.close()


def docker_run(engine: Engine) -> float:
    """``docker run --rm``, the whole command; seconds."""
    began = time.perf_counter()
    limits = [f"--ulimit={name}={most}:{most}" for name, most in LIMITS.items()]
    engine.command("run", "--rm", *limits, IMAGE, "true")
    return time.perf_counter() - began


def execute(engine: Engine) -> float:
    """``exec true`` in a container that runs; seconds."""
    container = _named(engine, "sleeper", "sleep 3600")
    began = time.perf_counter()
    code, _ = container.exec_run(["true"])
    took = time.perf_counter() - began
    assert code == 0
    return took


def read_logs(engine: Engine) -> float:
    """Read 20 MB of a container's output back; seconds."""
    script = f"yes {'x' * 99} | head -c {LOG_BYTES}"
    container = _named(engine, "talker", script)
    container.wait()
    connection = engine.raw()
    began = time.perf_counter()
    connection.request("GET", f"/containers/{container.id}/logs?stdout=1&stderr=1")
    answer = connection.getresponse()
    read = 0
    while part := answer.read(MEBIBYTE):
        read += len(part)
    took = time.perf_counter() - began
    connection.close()
    assert read >= LOG_BYTES, read
    return took


LOOK_UPS = """
import socket, time
query = bytes.fromhex("abcd01000001000000000000") + b"\\x04name\\0\\0\\1\\0\\1"
sock = socket.socket(type=socket.SOCK_DGRAM)
sock.settimeout(5)
sock.connect(("127.0.0.11", 53))
took = []
for _ in range(2000):
    began = time.perf_counter()
    sock.send(query)
    assert sock.recv(512)[7] == 1
    took.append(time.perf_counter() - began)
print(sorted(took)[1000])
"""


def look_up(engine: Engine) -> float:
    """A container asks for the address of another by its name; seconds."""
    networks = engine.client.networks
    if not networks.list(names=["names"]):
        networks.create("names")
    name = _named(engine, "name", "sleep 3600", "names")
    enter = ["nsenter", f"--net=/proc/{name.attrs['State']['Pid']}/ns/net", "--"]
    done = subprocess.run(
        [*enter, sys.executable, "-ISc", LOOK_UPS], check=True, capture_output=True, text=True
    )
    return float(done.stdout)


def event_delay(engine: Engine) -> float:
    """How long after a start was answered its event has come; seconds, 0 when it came before."""
    container = engine.client.containers.create(
        IMAGE, ["sleep", "60"], network_mode="none", ulimits=ULIMITS
    )
    arrived: list[float] = []
    ready, done = threading.Event(), threading.Event()

    def listen() -> None:
        connection = engine.raw()
        wanted = json.dumps({"event": ["start"], "container": [container.id]})
        connection.request("GET", f"/events?filters={wanted.replace(' ', '')}")
        answer = connection.getresponse()
        ready.set()
        answer.readline()
        arrived.append(time.perf_counter())
        done.set()
        connection.close()

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    ready.wait(10)
    container.start()
    answered = time.perf_counter()
    assert done.wait(10)
    listener.join()
    container.remove(force=True)
    return max(arrived[0] - answered, 0.0)


def cold_build(engine: Engine) -> float:
    """RUN steps that nobody has run; seconds."""
    return _build(engine, f"{time.time_ns()}")


def cached_build(engine: Engine) -> float:
    """The same build again; seconds."""
    _build(engine, "cached")
    return _build(engine, "cached")


def idle_memory(engine: Engine) -> float:
    """Proportional memory of the idle engine, MiB."""
    return sum(map(pss_bytes, engine.pids())) / MEBIBYTE


def idle_cpu(engine: Engine) -> float:
    """Processor time of the idle engine, ticks in ten seconds; a container runs meanwhile."""
    _named(engine, "sleeper", "sleep 3600")
    time.sleep(1)
    before = sum(map(cpu_ticks, engine.pids()))
    time.sleep(IDLE_SECONDS)
    return sum(map(cpu_ticks, engine.pids())) - before


def memory_of_container(engine: Engine) -> float:
    """What one more running container costs beside its own process: the engine's growth and its monitor, MiB."""
    before = _engine_memory(engine)
    made = [
        engine.client.containers.run(
            IMAGE, ["sleep", "600"], network_mode="none", detach=True, ulimits=ULIMITS
        )
        for _ in range(SLEEPERS)
    ]
    time.sleep(1)
    grown = _engine_memory(engine) - before
    for container in made:
        container.remove(force=True)
    return grown / SLEEPERS / MEBIBYTE


MEASURES = (
    Measure("idle memory (PSS)", "MiB", Held.ABSOLUTE, 60, idle_memory, once=True),
    Measure("idle processor, ticks in 10 s", "", Held.ABSOLUTE, 0, idle_cpu, once=True),
    Measure(
        "memory of a container (PSS)", "MiB", Held.ABSOLUTE, 1.5, memory_of_container, once=True
    ),
    Measure(
        "life of a container, no network",
        "ms",
        Held.RATIO,
        0.15,
        lambda one: life(one.client, "none"),
    ),
    Measure(
        "life of a container, bridge",
        "ms",
        Held.RATIO,
        0.15,
        lambda one: life(one.client, "bridge"),
    ),
    Measure("32 lives at once, bridge", "ms", Held.RATIO, 0.15, lives_at_once),
    Measure("docker run --rm", "ms", Held.RATIO, 0.25, docker_run),
    Measure("exec", "ms", Held.RATIO, 0.4, execute),
    Measure("20 MB of logs", "ms", Held.RATIO, 0.3, read_logs),
    Measure("a name looked up", "ms", Held.RATIO, 1.5, look_up),
    Measure("event after start", "ms", Held.ABSOLUTE, 1.0, event_delay),
    Measure("build, ten cold RUN steps", "ms", Held.RATIO, 0.25, cold_build),
    Measure("build, cached", "ms", Held.RATIO, 0.5, cached_build),
)


def _named(engine: Engine, name: str, script: str, network: str = "none") -> Container:
    with contextlib.suppress(docker.errors.NotFound):
        return engine.client.containers.get(name)
    engine.client.containers.run(
        IMAGE,
        ["sh", "-c", script],
        name=name,
        network=network,
        detach=True,
        ulimits=ULIMITS,
    )
    return engine.client.containers.get(name)


def _engine_memory(engine: Engine) -> int:
    """The engine and the monitors of its containers, wherever they hang."""
    monitors = [
        pid
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if _says(pid, "conmon", engine) or _says(pid, "containerd-shim", engine)
    ]
    return sum(pss_bytes(pid) for pid in {*engine.pids(), *monitors})


def _says(pid: int, program: str, engine: Engine) -> bool:
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
        return program in words.split("\0")[0] and str(engine.socket.parent) in words
    return False


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

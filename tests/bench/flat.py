"""What the 500th container and the 1,000th port cost beside the first: ``python -m tests.bench.flat [--containers N]``.

Containers that sleep are started one after another, each with two published ports, and connected to a second network; the
medians of the first and of the last are printed. Nothing is held against another engine: flat is flat.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial

import attrs
import docker
from docker.models.containers import Container
from docker.models.networks import Network

from tests.bench.engines import IMAGE, bakehouse

ENDS = 20
FIRST_PORT = 20_000
GROWTH_MAX = 1.5


@attrs.define
class Times:
    """How long each step of each container took, in order; milliseconds."""

    start: list[float] = attrs.field(factory=list)
    connect: list[float] = attrs.field(factory=list)
    disconnect: list[float] = attrs.field(factory=list)
    remove: list[float] = attrs.field(factory=list)


def timed(taken: list[float], work: Callable[[], object]) -> None:
    """Do it, and write down how long it took."""
    began = time.perf_counter()
    work()
    taken.append((time.perf_counter() - began) * 1_000)


def measure(client: docker.DockerClient, number: int) -> Times:
    """So many containers, all running at the end; then they go again."""
    times = Times()
    front = client.networks.create("front")
    back = client.networks.create("back")
    made = [_one(client, front, back, index, times) for index in range(number)]
    for container in reversed(made):
        timed(times.disconnect, partial(back.disconnect, container))
        timed(times.remove, partial(container.remove, force=True))
    times.disconnect.reverse()
    times.remove.reverse()
    return times


def _one(
    client: docker.DockerClient, front: Network, back: Network, index: int, times: Times
) -> Container:
    ports = {f"{80 + port}/tcp": FIRST_PORT + 2 * index + port for port in (0, 1)}
    container = client.containers.create(
        IMAGE, ["sleep", "3600"], network=front.name, ports=ports, stop_signal="SIGKILL"
    )
    timed(times.start, container.start)
    timed(times.connect, partial(back.connect, container))
    return container


def told(what: str, taken: Sequence[float]) -> str:
    """The first and the last of them, and how the one is to the other."""
    first, last = statistics.median(taken[:ENDS]), statistics.median(taken[-ENDS:])
    grown = "" if last <= first * GROWTH_MAX else "  grows"
    return f"{what:28}{first:>10.1f} ms{last:>10.1f} ms{last / first:>8.2f}{grown}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--containers", type=int, default=500)
    asked = parser.parse_args()
    # One subnet holds them all, and nobody is held to a person's bound.
    settings = "[network]\nsubnet_prefix_length = 22\n[owner]\ncontainers_max = 0\n"
    with contextlib.ExitStack() as running:
        engine = running.enter_context(bakehouse(settings))
        times = measure(engine.client, asked.containers)
    sys.stdout.write(f"{'':28}{'first':>13}{'last':>13}{'ratio':>8}\n")
    for what, taken in attrs.asdict(times).items():
        sys.stdout.write(f"{told(what, taken)}\n")


if __name__ == "__main__":
    main()

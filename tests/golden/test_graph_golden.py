"""Dockerfiles and the graph that is made of them, as text. ``BAKEHOUSE_GOLDEN=write`` writes the answers anew.

The first line may say what the caller says: ``#: target=name network=none ARG=value …``.
"""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from supervisor.build.conversion import BaseImage, Wanted, Wish
from supervisor.build.convert import convert
from supervisor.build.dockerfile.recognise import load
from supervisor.build.graph import Graph
from supervisor.errors import BakehouseError
from supervisor.oci.image import Execution, ImageConfig, execution_table
from tests.support import golden

CASES = sorted((Path(__file__).parent / "graph").glob("*.txt"))
CUT = "\n---- becomes\n"
IMAGES = {
    "debian:bookworm": BaseImage(
        "sha256:d", ImageConfig(config=Execution(cmd=("bash",), env=("PATH=/bin", "LANG=C")))
    ),
    "triggers": BaseImage(
        "sha256:t",
        ImageConfig(
            config=Execution(on_build=("COPY . /app", "RUN make", "COPY --from=tools /t /t"))
        ),
    ),
}


def wish_of(text: str) -> Wish:
    first = text.partition("\n")[0]
    if not first.startswith("#:"):
        return Wish()
    said: dict[str, str | None] = dict(word.partition("=")[::2] for word in first.split()[1:])
    return Wish(
        target=said.pop("target", "") or "",
        network=said.pop("network", "") or "default",
        build_args=said,
    )


def shown(graph: Graph) -> str:
    names = {key: f"v{number}" for number, key in enumerate(graph.vertices)}
    lines = []
    for key, vertex in graph.vertices.items():
        fields = [f"{name}={value!r}" for name, value in attrs.asdict(vertex.op).items() if value]
        inputs = " ".join(names[each] for each in vertex.inputs)
        lines.append(
            f"{names[key]} = {type(vertex.op).__name__}({inputs}) {' '.join(fields)}".rstrip()
        )
    for step in graph.steps:
        at = names[step.vertex] if step.vertex else "config"
        lines.append(f"step {step.index} [{step.stage}] {at}: {step.name}")
    lines.append(f"target {names[graph.target]} epoch {graph.epoch}")
    lines += [f"past {names.get(past.vertex or '', '-')}: {past.created_by}" for past in graph.past]
    lines += [
        f"{key}: {value}" for key, value in sorted(execution_table(graph.config.config).items())
    ]
    lines += [f"warning: {warning}" for warning in graph.warnings]
    return "\n".join(lines)


def answer(text: str) -> str:
    try:
        made = convert(load(text.encode(), "Dockerfile"), wish_of(text), IMAGES)
    except BakehouseError as error:
        return error.text()
    if isinstance(made, Wanted):
        return "\n".join(f"wants {reference}: {fault}" for reference, fault in made.images.items())
    return shown(made)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_becomes_as_written_down(path: Path) -> None:
    golden.check(path, CUT, answer)


def test_keys_say_what_a_vertex_is() -> None:
    def keys(text: str) -> list[str]:
        made = convert(load(text.encode(), "Dockerfile"), Wish(), IMAGES)
        assert isinstance(made, Graph)
        return list(made.vertices)

    plain = keys("FROM debian:bookworm\nRUN a\nRUN b\n")
    assert keys("# other\nFROM debian:bookworm\nLABEL x=y\nRUN   a\nRUN b\n") == plain
    changed = keys("FROM debian:bookworm\nRUN c\nRUN b\n")
    assert changed[0] == plain[0]
    assert not set(changed[1:]) & set(plain)

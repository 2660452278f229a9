"""Whatever text a Dockerfile holds: a value or InvalidArgument, with places inside the file; never anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from hypothesis import example, given, settings
from hypothesis import strategies as st

from supervisor.build.conversion import BaseImage, Wanted, Wish
from supervisor.build.convert import convert
from supervisor.build.dockerfile.instruction import Instruction
from supervisor.build.dockerfile.recognise import load, trigger
from supervisor.build.graph import Graph
from supervisor.errors import InvalidArgument
from supervisor.oci.image import Execution, ImageConfig

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
KEYWORDS = [
    "FROM",
    "RUN",
    "COPY",
    "ADD",
    "ENV",
    "ARG",
    "LABEL",
    "WORKDIR",
    "USER",
    "EXPOSE",
    "VOLUME",
    "CMD",
    "ENTRYPOINT",
    "SHELL",
    "STOPSIGNAL",
    "HEALTHCHECK",
    "ONBUILD",
]
PIECES = [
    " ", "\n", "\\\n", "\t", "#", "# escape=`", "`\n", "<<EOF", "<<-'E'", "EOF\n", "E\n", "--from=0", "--chown=a:b", "--x",
    '["a"]', '["', "'", '"', "$a", "${a:-", "}", "=", "a=b", "AS", "scratch", "a", ".", "/x/", "\r\n", "\0", "é", "[" * 50,
]  # fmt: skip
TEXTS = st.lists(st.sampled_from([*KEYWORDS, *PIECES]) | st.text(max_size=5), max_size=40).map(
    " ".join
)
GLUED = st.lists(st.sampled_from([*KEYWORDS, *PIECES]) | st.text(max_size=5), max_size=40).map(
    "".join
)


def outcome(work: Callable[[], T]) -> T | InvalidArgument:
    try:
        return work()
    except InvalidArgument as error:
        return error


@given(TEXTS | GLUED | TEXTS.map("FROM a\n".__add__))
@example("FROM a\nCMD " + "[" * 100_000)
@example("\ufeffFROM a")
@settings(max_examples=300, deadline=None)
def test_a_value_or_invalid_argument(text: str) -> None:
    data = text.encode("utf-8", "surrogatepass")
    found = outcome(lambda: load(data, "Dockerfile"))
    if not isinstance(found, InvalidArgument):
        assert found.stages
        return
    assert found.faults
    assert all(
        fault.place and 1 <= fault.place.line <= data.count(b"\n") + 1 for fault in found.faults
    )


@given(st.binary(max_size=200))
def test_bytes_too(data: bytes) -> None:
    found = outcome(lambda: load(data, "Dockerfile"))
    assert not isinstance(found, InvalidArgument) or found.faults


@given(TEXTS)
def test_triggers_too(text: str) -> None:
    found = outcome(lambda: trigger(text, "base"))
    assert isinstance(found, Instruction) or found.faults


@given(
    TEXTS.map("FROM a AS b\n".__add__),
    st.dictionaries(st.sampled_from(["a", "X", "TARGETARCH"]), st.text(max_size=5)),
)
@example("FROM a\nARG X\nENV a=${X:?}\nCOPY --from=1 a b\nRUN x\n", {})
@settings(max_examples=300, deadline=None)
def test_a_graph_or_what_it_wants_or_an_error(text: str, arguments: dict[str, str]) -> None:
    file = outcome(lambda: load(text.encode("utf-8", "surrogatepass"), "Dockerfile"))
    if isinstance(file, InvalidArgument):
        return
    base = BaseImage("sha256:a", ImageConfig(config=Execution(on_build=("RUN $a", "ENV a=b"))))
    made = outcome(lambda: convert(file, Wish(build_args=arguments), {"a": base}))
    if isinstance(made, Graph):
        assert made.target in made.vertices
        keys = list(made.vertices)
        for key, vertex in made.vertices.items():
            assert all(keys.index(each) < keys.index(key) for each in vertex.inputs)
    elif isinstance(made, Wanted):
        assert made.images
    else:
        assert made.faults or made.message

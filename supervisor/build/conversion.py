"""What one conversion knows, and what has been made of it so far. Pure.

:mod:`convert` goes through the stages, :mod:`instructions` through what they say; both work on this.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs
from typing_extensions import override

from protocol.errors import Fault
from supervisor.build.dockerfile import instruction as to
from supervisor.build.dockerfile import shell
from supervisor.build.dockerfile.instruction import Argument, Dockerfile, Instruction
from supervisor.build.dockerfile.source import refused
from supervisor.build.graph import Op, Step, Vertex, vertex
from supervisor.build.stage_state import StageState
from supervisor.oci.image import ImageConfig

SCRATCH = "scratch"
EPOCH = "SOURCE_DATE_EPOCH"


@attrs.frozen
class Platform:
    """What images are built for: this host."""

    os: str = "linux"
    architecture: str = "amd64"
    variant: str = ""

    @override
    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


@attrs.frozen
class BaseImage:
    """An image as the builder needs to know it."""

    id: str
    config: ImageConfig


@attrs.frozen
class Wish:
    """What the caller said beside the Dockerfile; see ``BuildRequest``."""

    target: str = ""
    build_args: Mapping[str, str | None] = attrs.field(factory=dict)
    labels: Mapping[str, str] = attrs.field(factory=dict)
    platform: Platform = Platform()
    network: str = "default"


@attrs.frozen
class Wanted:
    """Images that must be looked up before the graph can be made, each with the fault to tell if it is not there."""

    images: Mapping[str, Fault]


@attrs.define
class Conversion:
    """One conversion at work: what is known, and what has been made of it."""

    file: Dockerfile
    wish: Wish
    images: Mapping[str, BaseImage]
    globals: dict[str, str | None] = attrs.field(factory=dict)
    work: shell.Work = attrs.field(factory=shell.Work)
    vertices: dict[str, Vertex] = attrs.field(factory=dict)
    steps: list[Step] = attrs.field(factory=list)
    states: dict[int, StageState] = attrs.field(factory=dict)
    used_args: set[str] = attrs.field(factory=set)
    epoch: int | None = None

    def expand(self, text: Instruction, argument: Argument, variables: Mapping[str, str]) -> str:
        """``argument`` with its variables replaced; what fails is told with its place."""
        try:
            return shell.expand(argument.value, variables, self.file.directives.escape, self.work)
        except shell.Unexpandable as error:
            raise text.text.misread(
                error.message, argument.offset + error.offset, error.hint
            ) from error

    def add(
        self,
        op: Op,
        inputs: tuple[str, ...],
        by: Instruction | None,
        secret_env: tuple[str, ...] = (),
    ) -> str:
        """Put a vertex into the graph; its key."""
        title = by.text.value if by else type(op).__name__
        place = by.text.fault("").place if by else None
        made = vertex(op, inputs, title, place, secret_env)
        self.vertices.setdefault(made.key, made)
        return made.key

    def argument_value(self, name: str, default: str | None) -> str | None:
        """What ARG ``name`` is: the caller's word, the default, or what was said before the first FROM."""
        self.used_args.add(name)
        given = self.wish.build_args.get(name)
        if given is not None:
            return given
        return default if default is not None else self.globals.get(name)

    def source_of(self, name: str, before: int) -> int | str:
        """What ``--from`` or FROM means: the index of an earlier stage, or an image reference."""
        for stage in reversed(self.file.stages[:before]):
            if stage.start.name and stage.start.name == name.lower():
                return stage.index
        return name


def copy_source(conversion: Conversion, each: to.Copy, index: int) -> int | str:
    """What ``COPY --from`` means in stage ``index``."""
    assert each.source_stage is not None
    name = each.source_stage.value
    if "$" in name:
        hint = "name a stage for it: FROM $VARIABLE AS <name>"
        raise refused(
            conversion.file.source.name,
            [each.text.fault("--from takes no variables", each.source_stage.offset, hint)],
        )
    if name.isascii() and name.isdigit() and len(name) < len("99999"):
        if int(name) < index:
            return int(name)
        fault = each.text.fault(
            f"there is no stage {name} above", each.source_stage.offset, "stages are counted from 0"
        )
        raise refused(conversion.file.source.name, [fault])
    return conversion.source_of(name, index)

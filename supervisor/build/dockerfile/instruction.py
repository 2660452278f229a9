"""What a Dockerfile can say: one class per instruction, values as written (not yet expanded).

Every instruction knows where it stands and how it was written. The classes say nothing about how it is carried out.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from protocol.errors import Fault
from supervisor.build.dockerfile.parser import Heredoc
from supervisor.build.dockerfile.source import Directives, Source, Text


@attrs.frozen
class Argument:
    """A word that may hold variables, and where it stands."""

    value: str
    offset: int = 0


@attrs.frozen
class Command:
    """What RUN, CMD and ENTRYPOINT carry.

    Attributes:
        words: The words of the JSON form, or the one text of the shell form.
        shell_form: It is the shell form, to be handed to the SHELL of its moment.
    """

    words: tuple[str, ...]
    shell_form: bool


@attrs.frozen(kw_only=True)
class Instruction:
    """What all have in common.

    Attributes:
        text: As written, lines joined.
    """

    text: Text = attrs.field(eq=False)

    @property
    def line(self) -> int:
        """Where it begins."""
        return self.text.at(0)[0]


@attrs.frozen
class From(Instruction):
    """``FROM [--platform=p] image [AS name]``."""

    image: Argument
    name: str = ""
    platform: Argument | None = None


@attrs.frozen
class Arg(Instruction):
    """``ARG name[=default] …``; ``None`` where there is no default."""

    pairs: tuple[tuple[str, Argument | None], ...]


@attrs.frozen
class Env(Instruction):
    """``ENV key=value …`` or ``ENV key value``."""

    pairs: tuple[tuple[Argument, Argument], ...]


@attrs.frozen
class Label(Instruction):
    """``LABEL key=value …`` or ``LABEL key value``."""

    pairs: tuple[tuple[Argument, Argument], ...]


@attrs.frozen
class Mount:
    """``RUN --mount=…`` as its key-value pairs."""

    options: Mapping[str, str]
    offset: int


@attrs.frozen
class Run(Instruction):
    """``RUN command``, with its here-documents."""

    command: Command
    heredocs: tuple[Heredoc, ...] = ()
    mounts: tuple[Mount, ...] = ()
    network: str = ""


@attrs.frozen
class Copy(Instruction):
    """``COPY`` and ``ADD``: sources of the context, a stage or an image to a place in the image.

    Attributes:
        add: It is ADD: archives are unpacked, URLs fetched.
        source_stage: ``--from``; None for the context.
        heredocs: Sources that stand in the Dockerfile itself.
    """

    sources: tuple[Argument, ...]
    target: Argument
    add: bool = False
    source_stage: Argument | None = None
    owner: Argument | None = None
    mode: Argument | None = None
    heredocs: tuple[Heredoc, ...] = ()


@attrs.frozen
class Workdir(Instruction):
    """``WORKDIR path``."""

    path: Argument


@attrs.frozen
class User(Instruction):
    """``USER user[:group]``."""

    user: Argument


@attrs.frozen
class Expose(Instruction):
    """``EXPOSE port[-port][/protocol] …``."""

    ports: tuple[Argument, ...]


@attrs.frozen
class Volume(Instruction):
    """``VOLUME path …``."""

    paths: tuple[Argument, ...]


@attrs.frozen
class Cmd(Instruction):
    """``CMD command``."""

    command: Command


@attrs.frozen
class Entrypoint(Instruction):
    """``ENTRYPOINT command``."""

    command: Command


@attrs.frozen
class Shell(Instruction):
    """``SHELL ["executable", …]``."""

    words: tuple[str, ...]


@attrs.frozen
class StopSignal(Instruction):
    """``STOPSIGNAL signal``."""

    signal: Argument


@attrs.frozen
class Healthcheck(Instruction):
    """``HEALTHCHECK [options] CMD command`` or ``HEALTHCHECK NONE``; times in nanoseconds, 0 for the default."""

    command: Command | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@attrs.frozen
class Onbuild(Instruction):
    """``ONBUILD instruction``: kept as text, carried out where the image is a base."""

    trigger: str


@attrs.frozen
class Maintainer(Instruction):
    """``MAINTAINER name``, the forerunner of a label."""

    name: str


@attrs.frozen
class Stage:
    """A FROM and what follows it."""

    index: int
    start: From
    instructions: tuple[Instruction, ...]

    @property
    def title(self) -> str:
        """How people call it: its name, or ``stage-N``."""
        return self.start.name or f"stage-{self.index}"


@attrs.frozen
class Dockerfile:
    """A whole file: what was said before the first FROM, the stages, and what is unwise in it."""

    source: Source
    directives: Directives
    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]
    warnings: tuple[Fault, ...] = ()

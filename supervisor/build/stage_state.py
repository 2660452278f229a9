"""What a stage has become so far: its config, its variables, the vertex it stands on. Pure.

Rules: an ENV always wins over an ARG of the same name; an ARG begins at its line and ends with its stage; predefined
proxy ARGs reach RUN without being declared, and are no part of keys, config and history.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping

import attrs

from supervisor.build.graph import Past
from supervisor.oci.image import Execution, ImageConfig
from supervisor.runtime.spec import DEFAULT_PATH

DEFAULT_SHELL = ("/bin/sh", "-c")
PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)


@attrs.define
class StageState:
    """One stage while its instructions are gone through.

    Attributes:
        vertex: Key of the vertex whose file system it has.
        image: The config it began with; ``execution`` is what it has become.
        environment: What ENV set, in order.
        arguments: What ARG declared; None when it has no value.
        past: The history it adds.
        base_image: Id of the image it began with, through other stages too.
        command_set: CMD was given in this stage.
    """

    vertex: str
    image: ImageConfig
    execution: Execution
    environment: dict[str, str]
    arguments: dict[str, str | None]
    past: list[Past]
    base_image: str
    command_set: bool = False

    @classmethod
    def from_image(cls, vertex: str, image: ImageConfig, image_id: str) -> StageState:
        """A stage that begins with an image (or, with the empty config, with nothing)."""
        environment = dict(entry.partition("=")[::2] for entry in image.config.env)
        environment.setdefault("PATH", DEFAULT_PATH.partition("=")[2])
        execution = attrs.evolve(image.config, on_build=())
        return cls(vertex, image, execution, environment, {}, [], image_id)

    def child(self) -> StageState:
        """A stage that begins where this one ended; ARGs end with their stage."""
        return StageState(
            self.vertex,
            self.image,
            self.execution,
            dict(self.environment),
            {},
            list(self.past),
            self.base_image,
        )

    @property
    def variables(self) -> Mapping[str, str]:
        """What words of instructions see."""
        given = {name: value for name, value in self.arguments.items() if value is not None}
        return {**given, **self.environment}

    @property
    def shell(self) -> tuple[str, ...]:
        """What shell forms are handed to."""
        return self.execution.shell or DEFAULT_SHELL

    @property
    def working_dir(self) -> str:
        """Absolute."""
        return posixpath.normpath(posixpath.join("/", self.execution.working_dir or "/"))

    def arguments_for_run(self) -> tuple[str, ...]:
        """The ARGs a RUN sees beside ENV, as ``NAME=value``."""
        return tuple(
            f"{name}={value}"
            for name, value in self.arguments.items()
            if value is not None and name not in self.environment and name not in PROXIES
        )

    def config(self) -> ImageConfig:
        """The image config as it is now; layers and the history it adds are for the exporter."""
        env = tuple(f"{name}={value}" for name, value in self.environment.items())
        return attrs.evolve(self.image, config=attrs.evolve(self.execution, env=env))

"""Compose as somebody uses it: the plugin of the docker command, and docker-compose 1.29."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import attrs

from tests.support.accounts import User, credentials
from tests.support.daemon import REPOSITORY

PLUGINS = (
    REPOSITORY / "var/tools/usr/libexec/docker/cli-plugins",
    Path("/usr/libexec/docker/cli-plugins"),
    Path("/usr/lib/docker/cli-plugins"),
    Path("/usr/local/lib/docker/cli-plugins"),
)
COMPOSE_SECONDS = 240


def plugin() -> Path | None:
    """Compose v2, where this host has it."""
    for directory in PLUGINS:
        if (found := directory / "docker-compose").exists():
            return found
    return None


def standalone() -> Path | None:
    """docker-compose 1.29, where this host has it."""
    found = shutil.which("docker-compose")
    if not found:
        return None
    shown = subprocess.run([found, "version", "--short"], capture_output=True, check=False)
    return Path(found) if shown.stdout.startswith(b"1.") else None


@attrs.define(eq=False)
class Project:
    """A project in a directory of somebody's.

    Attributes:
        argv: The command that is Compose.
        name: The project's.
        settings: Variables of its file; may be changed.
    """

    argv: Sequence[str]
    engine: str
    directory: Path
    name: str
    user: User | None
    settings: dict[str, str] = attrs.field(factory=dict)

    def __call__(self, *arguments: str) -> str:
        """Run Compose; its output."""
        done = subprocess.run(
            [*self.argv, *arguments],
            env=self._environment(),
            cwd=self.directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=COMPOSE_SECONDS,
            **credentials(self.user),
        )
        assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def containers(self, service: str) -> list[str]:
        """The ids of a service's containers, as Compose tells them."""
        return sorted(self("ps", "-q", service).split())

    def _environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "HOME": str(self.directory),
            "DOCKER_CONFIG": str(self.directory / "docker"),
            "DOCKER_HOST": self.engine,
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
            "COMPOSE_PROJECT_NAME": self.name,
            "PYTHONWARNINGS": "ignore",
            **self.settings,
        }


def give_plugin(directory: Path) -> None:
    """Let the docker command of who has this as home find Compose."""
    found = plugin()
    assert found, "there is no Compose to give"
    place = directory / "docker" / "cli-plugins"
    place.mkdir(parents=True)
    (place / "docker-compose").symlink_to(found)


def free_port() -> int:
    """A port of loopback that nobody uses now."""
    with contextlib.closing(socket.socket()) as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port

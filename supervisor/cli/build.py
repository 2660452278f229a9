"""``bakehouse image build`` and ``bootstrap``: long work in the daemon, shown as it goes."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import attrs
import orjson

from supervisor.cli.connection import Request, ask
from supervisor.cli.context import find_context, tar_pieces
from supervisor.cli.progress import Progress
from supervisor.errors import InvalidArgument


@attrs.frozen
class BuildWanted:
    """The command's options."""

    path: Path
    dockerfile: Path | None
    tags: tuple[str, ...]
    arguments: tuple[str, ...]
    labels: tuple[str, ...]
    target: str
    no_cache: bool
    quiet: bool

    def query(self, dockerfile: str) -> tuple[tuple[str, str], ...]:
        """As ``POST /build`` has them.

        Raises:
            InvalidArgument: A label has no name.
        """
        query = [("dockerfile", dockerfile), *(("t", tag) for tag in self.tags)]
        if self.arguments:
            query.append(("buildargs", _json(dict(map(_argument, self.arguments)))))
        if self.labels:
            query.append(("labels", _json(dict(map(_label, self.labels)))))
        if self.target:
            query.append(("target", self.target))
        if self.no_cache:
            query.append(("nocache", "1"))
        return tuple(query)


def _json(table: dict[str, str | None] | dict[str, str]) -> str:
    return orjson.dumps(table).decode()


def _argument(text: str) -> tuple[str, str | None]:
    """An argument without a value takes it from the environment, as docker's does."""
    name, equals, value = text.partition("=")
    return name, value if equals else os.environ.get(name)


def _label(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    if not name:
        raise InvalidArgument(f"cannot build: {text!r} is no label", hint="a label is NAME=VALUE")
    return name, value


async def bake(socket: str, wanted: BuildWanted) -> None:
    """Send the context, show the build.

    Raises:
        BakehouseError: It cannot be built; the message says why.
    """
    context = find_context(wanted.path, wanted.dockerfile)
    request = Request(
        "POST",
        "/build",
        wanted.query(context.dockerfile),
        tar_pieces(context),
        "application/x-tar",
    )
    progress = Progress(quiet=wanted.quiet)
    async with ask(socket, request) as answer:
        await progress.show(answer.messages())
    if wanted.quiet:
        sys.stdout.write(f"{progress.image_id}\n")


async def make_base(socket: str, reference: str, packages: tuple[str, ...]) -> None:
    """Have the daemon make a base image of a distribution.

    Raises:
        BakehouseError: It cannot be made; the message says why.
    """
    body = orjson.dumps({"reference": reference, "include": list(packages)})
    request = Request("POST", "/bakehouse/v1/images/bootstrap", body=body)
    async with ask(socket, request) as answer:
        await Progress().show(answer.messages())

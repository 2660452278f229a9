"""The ``bakehouse`` command: a client like any other.

Rules: what a command needs is imported when it runs, so that it starts fast; an expected failure is one sentence, with
a hint below it, and exit status 1; a wrong command line is 2; being interrupted is 130; never a traceback for either.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from protocol.messages import Want
    from supervisor.cli.connection import Request

FAILED, INTERRUPTED = 1, 130


def main() -> None:
    """Run the command; the entry point."""
    try:
        status: object = bakehouse.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(INTERRUPTED)
    except BaseException as error:
        code = _end(error)
        if code is not None:
            sys.exit(code)
        raise
    sys.exit(status if isinstance(status, int) else 0)


def _end(error: BaseException) -> int | None:
    """The exit status for ``error``, which is told; None for a bug."""
    from supervisor.errors import BakehouseError

    lone = error
    while isinstance(lone, BaseExceptionGroup) and len(lone.exceptions) == 1:
        lone = lone.exceptions[0]
    if isinstance(lone, BakehouseError):
        sys.stderr.write(f"bakehouse: {lone.text()}\n")
        return FAILED
    if isinstance(
        lone, BrokenPipeError
    ):  # who reads us has seen enough; nor is there anything to flush to
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    if isinstance(lone, KeyboardInterrupt):
        return INTERRUPTED
    return None


def _run(work: Callable[[], Awaitable[None]]) -> None:
    import trio

    trio.run(work)


def _socket(context: click.Context) -> str:
    from supervisor.cli.connection import find_socket

    given = context.find_root().params.get("socket")
    return find_socket(given if isinstance(given, str) else None)


async def _get(socket: str, request: Request) -> object:
    from supervisor.cli.connection import ask

    async with ask(socket, request) as answer:
        return await answer.json()


def _fetch(context: click.Context, request: Request) -> object:
    got: list[object] = []

    async def work() -> None:
        got.append(await _get(_socket(context), request))

    _run(work)
    return got[0]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--socket", metavar="PATH", help="Where the daemon listens.")
def bakehouse(socket: str | None) -> None:
    """Bake images and run containers on a host that many people share.

    The daemon is found by --socket, BAKEHOUSE_SOCKET, DOCKER_HOST, or at its installed place.
    """
    del socket  # read from the context by those who need it


@bakehouse.command()
@click.option("--from", "from_", default=None, metavar="CURSOR|oldest|now", help="Where to start.")
@click.option("--follow", "-f", is_flag=True, help="Go on with what happens next, for ever.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--type", "types", multiple=True, metavar="TYPE", help="container.start, container, …"
)
@click.option("--subject", "subjects", multiple=True, metavar="ID", help="Only of these things.")
@click.pass_context
def events(  # one for each option
    context: click.Context,
    from_: str | None,
    follow: bool,
    as_json: bool,
    types: tuple[str, ...],
    subjects: tuple[str, ...],
) -> None:
    """Tell what has happened, in order; a cursor is an event's id."""
    from protocol.messages import Want
    from supervisor.cli.follow import EventsWanted, show_events

    start = from_ or ("now" if follow else "oldest")
    kinds = tuple(name if "." in name else f"{name}.*" for name in types)  # access is all of access
    want: Want = Want(types=kinds, subjects=subjects)
    wanted = EventsWanted(start, follow, as_json, want)
    _run(functools.partial(show_events, _socket(context), wanted))


@bakehouse.group()
def image() -> None:
    """Bake and list images."""


@image.command("build")
@click.argument("path", default=".", type=click.Path(path_type=Path, file_okay=False))
@click.option("--tag", "-t", "tags", multiple=True, metavar="NAME[:TAG]", help="Name the image.")
@click.option(
    "--file",
    "-f",
    "dockerfile",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The recipe, which may lie anywhere; else Dockerfile in PATH.",
)
@click.option(
    "--build-arg",
    "arguments",
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Set an ARG of the recipe; without a value from the environment.",
)
@click.option(
    "--label", "labels", multiple=True, metavar="NAME=VALUE", help="Put a label on the image."
)
@click.option(
    "--target", default="", metavar="STAGE", help="Bake this stage, and only what it needs."
)
@click.option("--no-cache", is_flag=True, help="Run every step anew.")
@click.option("--quiet", "-q", is_flag=True, help="Print the image's id only.")
@click.pass_context
def build(  # noqa: PLR0913, PLR0917  # a parameter for each option
    context: click.Context,
    path: Path,
    tags: tuple[str, ...],
    dockerfile: Path | None,
    arguments: tuple[str, ...],
    labels: tuple[str, ...],
    target: str,
    no_cache: bool,
    quiet: bool,
) -> None:
    """Bake an image from the Dockerfile in PATH."""
    from supervisor.cli.build import BuildWanted, bake

    wanted = BuildWanted(path, dockerfile, tags, arguments, labels, target, no_cache, quiet)
    _run(functools.partial(bake, _socket(context), wanted))


@image.command("ls")
@click.option("--all", "-a", "everything", is_flag=True, help="Those without a name, too.")
@click.pass_context
def list_images(context: click.Context, everything: bool) -> None:
    """List the images you have a name for."""
    from datetime import UTC, datetime

    from supervisor.cli import tables
    from supervisor.cli.connection import Request

    query = (("all", "1"),) if everything else ()
    listed = _fetch(context, Request("GET", "/images/json", query))
    now = datetime.fromtimestamp(_now_seconds(), UTC)
    tables.print_table(
        ("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"), tables.images(listed, now)
    )


def _now_seconds() -> float:
    from supervisor import clock

    return clock.now_ns() / clock.NANOSECONDS_PER_SECOND


@image.command()
@click.argument("reference", metavar="SUITE, e.g. debian:bookworm")
@click.option(
    "--include", "packages", multiple=True, metavar="PACKAGE", help="Put this in as well."
)
@click.pass_context
def bootstrap(context: click.Context, reference: str, packages: tuple[str, ...]) -> None:
    """Make a base image from the distribution's own packages."""
    from supervisor.cli.build import make_base

    names = tuple(name for given in packages for name in given.split(",") if name)
    _run(functools.partial(make_base, _socket(context), reference, names))


@image.command()
@click.argument("name", metavar="IMAGE")
@click.option("--as", "shared_name", default="", metavar="NAME[:TAG]", help="By another name.")
@click.pass_context
def publish(context: click.Context, name: str, shared_name: str) -> None:
    """Let everybody on this host use an image; for administrators."""
    from supervisor.cli.connection import Request

    query = (("as", shared_name),) if shared_name else ()
    _fetch(context, Request("POST", f"/bakehouse/v1/images/{name}/publish", query))
    click.echo(shared_name or name)


@bakehouse.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def reload(context: click.Context, as_json: bool) -> None:
    """Let the daemon read its settings again; for administrators."""
    import orjson

    from supervisor.cli import tables
    from supervisor.cli.connection import Request

    told = _fetch(context, Request("POST", "/bakehouse/v1/reload"))
    if as_json:
        click.echo(orjson.dumps(told))
        return
    click.echo("\n".join(tables.reloaded(told)))


@bakehouse.command()
@click.option("--all", "-a", "everything", is_flag=True, help="Those that have ended, too.")
@click.pass_context
def ps(context: click.Context, everything: bool) -> None:
    """List your containers."""
    from supervisor.cli import tables
    from supervisor.cli.connection import Request

    query = (("all", "1"),) if everything else ()
    listed = _fetch(context, Request("GET", "/containers/json", query))
    titles = ("CONTAINER ID", "IMAGE", "COMMAND", "STATUS", "PORTS", "NAMES")
    tables.print_table(titles, tables.containers(listed))


@bakehouse.command()
@click.option("--once", is_flag=True, help="Show one sample and end.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_context
def top(context: click.Context, once: bool, as_json: bool) -> None:
    """Show what the host, its people and their containers use."""
    from supervisor.cli.watch import watch

    _run(functools.partial(watch, _socket(context), once=once, json=as_json))


@bakehouse.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def queue(context: click.Context, as_json: bool) -> None:
    """Show which starts and build steps work, and which wait for what and why."""
    import orjson

    from supervisor.cli import queue as view
    from supervisor.cli.connection import Request

    answer = _fetch(context, Request("GET", "/bakehouse/v1/queue"))
    click.echo(orjson.dumps(answer) if as_json else view.plain(answer), nl=as_json)


@bakehouse.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def whoami(context: click.Context, as_json: bool) -> None:
    """Tell who you are to the daemon: role, groups, ids, limits and use."""
    from supervisor.cli import people

    _run(functools.partial(people.show_whoami, _socket(context), as_json=as_json))


@bakehouse.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_context
def quota(context: click.Context, as_json: bool) -> None:
    """Tell what you use of what you may."""
    from supervisor.cli import people

    _run(functools.partial(people.show_quota, _socket(context), as_json=as_json))


@bakehouse.group()
def owner() -> None:
    """Look after the people of this host; for administrators. OWNER is a login name or a uid."""


@owner.command("list")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@click.pass_context
def list_owners(context: click.Context, as_json: bool) -> None:
    """List everybody who has something here, or for whom something is set."""
    from supervisor.cli import people

    _run(functools.partial(people.list_owners, _socket(context), as_json=as_json))


@owner.command("show")
@click.argument("owner_", metavar="OWNER")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def show_owner(context: click.Context, owner_: str, as_json: bool) -> None:
    """Show somebody's limits and use."""
    from supervisor.cli import people

    _run(functools.partial(people.show_owner, _socket(context), owner_, as_json=as_json))


@owner.command("set")
@click.argument("owner_", metavar="OWNER")
@click.argument("limits", nargs=-1, required=True, metavar="LIMIT=VALUE...")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def set_owner(context: click.Context, owner_: str, limits: tuple[str, ...], as_json: bool) -> None:
    """Give somebody limits of their own, e.g. memory_bytes_max=4g cpus_max=1.5 containers_max=default.

    They hold at once, also for what runs, and are those of [owner] in the settings; 0 is no limit.
    """
    from supervisor.cli import people

    _run(functools.partial(people.set_owner, _socket(context), owner_, limits, as_json=as_json))


@owner.command("suspend")
@click.argument("owner_", metavar="OWNER")
@click.option("--reason", default="", help="Told to them with every refusal.")
@click.pass_context
def suspend_owner(context: click.Context, owner_: str, reason: str) -> None:
    """Let nothing new of somebody's begin; what runs goes on."""
    from supervisor.cli import people

    _run(functools.partial(people.suspend_owner, _socket(context), owner_, reason))


@owner.command("resume")
@click.argument("owner_", metavar="OWNER")
@click.pass_context
def resume_owner(context: click.Context, owner_: str) -> None:
    """Let somebody work again."""
    from supervisor.cli import people

    _run(functools.partial(people.resume_owner, _socket(context), owner_))


@bakehouse.command()
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="Of that daemon.")
@click.option("--strict", is_flag=True, help="Degraded is a fault, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@click.pass_context
def doctor(context: click.Context, config: Path | None, strict: bool, as_json: bool) -> int:
    """Look at this host and its daemon: what is well, what is not, what to do.

    What containers need is tried, and nothing of it is left. Root sees everything; others see what they may, and what
    the daemon says. Exit status 0: this host can serve; 1: something is broken (with --strict, or degraded).
    """
    from supervisor.cli import doctor as doctors

    return doctors.doctor(_socket(context), config, strict=strict, as_json=as_json)


@bakehouse.command()
@click.pass_context
def version(context: click.Context) -> None:
    """Tell the versions of this command and of the daemon."""
    from importlib import metadata

    from supervisor.cli.connection import Request

    click.echo(f"client: {metadata.version('bakehouse')}")
    answer = _fetch(context, Request("GET", "/version"))
    if isinstance(answer, dict):
        click.echo(f"daemon: {answer.get('Version')} (API {answer.get('ApiVersion')})")

"""bakehouse(1), a page for each of its commands, and completion for shells; from the command's own definition.

A group of commands has a page of its own, and so has each command in it: bakehouse-image(1), bakehouse-image-build(1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from deploy.manuals.roff import Page
from supervisor.cli.commands import bakehouse

NAME = "bakehouse"
_VARIABLE = "_BAKEHOUSE_COMPLETE"
_COMPLETIONS: Mapping[str, type[ShellComplete]] = {
    "bash-completion/completions/bakehouse": BashComplete,
    "zsh/site-functions/_bakehouse": ZshComplete,
    "fish/vendor_completions.d/bakehouse.fish": FishComplete,
}
_ENVIRONMENT = (
    ("BAKEHOUSE_SOCKET", "Where the daemon listens: the path of its socket."),
    ("DOCKER_HOST", "The same as `unix://PATH`, for those who have set it for docker(1) anyhow."),
)
_STATUSES = (
    ("0", "It is done."),
    ("1", "It could not be done; the reason is told, and what to do about it."),
    ("2", "The command line makes no sense."),
    ("130", "It was interrupted."),
)


def completions() -> dict[str, str]:
    """What lies below ``share`` for each shell, and its text."""
    return {
        path: kind(bakehouse, {}, NAME, _VARIABLE).source() for path, kind in _COMPLETIONS.items()
    }


def pages(version: str) -> Iterator[Page]:
    """The command's page and those of all commands in it."""
    for context in _contexts(
        click.Context(bakehouse, info_name=NAME, **bakehouse.context_settings)
    ):
        yield _page(context, version)


def _contexts(context: click.Context) -> Iterator[click.Context]:
    yield context
    for _, command in _below(context):
        yield from _contexts(click.Context(command, parent=context, info_name=command.name))


def _below(context: click.Context) -> list[tuple[str, click.Command]]:
    group = context.command
    if not isinstance(group, click.Group):
        return []
    listed = [(name, group.get_command(context, name)) for name in group.list_commands(context)]
    return [(name, command) for name, command in listed if command and not command.hidden]


def _page(context: click.Context, version: str) -> Page:
    page_name = context.command_path.replace(" ", "-")
    brief, paragraphs = _told(context.command)
    page = Page(page_name, 1, brief, version)
    page.heading("Synopsis")
    usage = context.command.collect_usage_pieces(context)
    page.text(f"`{context.command_path}` {' '.join(usage)}")
    page.heading("Description")
    page.text(*paragraphs)
    options = [record for record in map(_record, _options(context)) if record is not None]
    if options:
        page.heading("Options")
        page.terms(options)
    commands = _below(context)
    if commands:
        page.heading("Commands")
        page.terms(
            (f"{page_name}-{name}(1)", command.get_short_help_str(200))
            for name, command in commands
        )
    if context.parent is None:
        page.heading("Environment")
        page.terms(_ENVIRONMENT)
        page.heading("Files")
        page.terms([("/run/bakehouse/bakehouse.sock", "The socket of the installed daemon.")])
    page.heading("Exit status")
    page.terms(_STATUSES)
    page.see_also(_others(context, page_name))
    return page


def _told(command: click.Command) -> tuple[str, list[str]]:
    """What a page says of a command in a line, and in paragraphs."""
    help_text = command.help or ""
    paragraphs = [part for part in help_text.replace("\b\n", "").split("\n\n") if part.strip()]
    first = " ".join(paragraphs[0].split()) if paragraphs else ""
    return first.rstrip(".").lower()[:1] + first.rstrip(".")[1:], paragraphs


def _options(context: click.Context) -> list[click.Parameter]:
    return context.command.get_params(context)


def _record(parameter: click.Parameter) -> tuple[str, str] | None:
    """An option and what it does; an argument has none."""
    if not isinstance(parameter, click.Option) or parameter.hidden:
        return None
    metavar = "" if parameter.is_flag else f" {parameter.make_metavar(click.Context(bakehouse))}"
    names = ", ".join(sorted([*parameter.opts, *parameter.secondary_opts], key=len))
    repeated = " Can be given more than once." if parameter.multiple else ""
    return f"{names}{metavar}", f"{parameter.help or ''}{repeated}"


def _others(context: click.Context, own: str) -> list[tuple[str, int]]:
    above = context.parent
    if above is None:
        return [("bakehoused", 8), ("bakehouse.toml", 5), ("docker", 1)]
    base = above.command_path.replace(" ", "-")
    siblings = [f"{base}-{name}" for name, _ in _below(above)]
    return [(name, 1) for name in [base, *siblings] if name != own]

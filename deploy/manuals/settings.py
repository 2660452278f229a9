"""The settings explained: ``/etc/bakehouse/bakehouse.toml`` and bakehouse.toml(5), from the classes that read them.

What a setting is for stands in the docstring of its class, below ``Attributes:``; its name, kind and default are the
field's. One without a line there is a fault that a test finds.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import attrs

from deploy.manuals.roff import Page
from supervisor.config import INSTALLED_CONFIG, Config
from supervisor.reloading import RELOADABLE

_ATTRIBUTE = re.compile(r"^ {4}(?P<name>\w+): (?P<text>.+(?:\n {8,}\S.*)*)", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?([^`]+)`")
_WIDTH = 100
AT_START = "Read at the daemon's start only."
_GROUPED_FROM = 10_000


@attrs.frozen
class Setting:
    """One setting.

    Attributes:
        name: Its key.
        default: As TOML writes it.
        meaning: What it is for.
        when: When it is taken up, where a reload does not do it.
    """

    name: str
    default: str
    meaning: str
    when: str


@attrs.frozen
class Table:
    """Settings that belong together.

    Attributes:
        name: Of the TOML table; empty for what stands before all tables.
        brief: What they are about.
        settings: In the order of the class.
    """

    name: str
    brief: str
    settings: tuple[Setting, ...]


def tables() -> list[Table]:
    """All there are, in the order of the class, those of no table first."""
    usual = Config()
    explained = meanings(Config)
    plain: list[Setting] = []
    found: list[Table] = []
    for field in attrs.fields(Config):
        value: object = getattr(usual, field.name)
        if attrs.has(type(value)):
            found.append(_table(field.name, value))
        else:
            shown = usual.socket_path if field.name == "socket" else value
            plain.append(Setting(field.name, written(shown), explained[field.name], AT_START))
    return [Table("", _brief(Config), tuple(plain)), *found]


def meanings(kind: type) -> dict[str, str]:
    """What the docstring of a class says of each of its attributes."""
    text = inspect.getdoc(kind) or ""
    listed = text.partition("Attributes:\n")[2]
    return {
        found["name"]: _ROLE.sub(r"``\1``", " ".join(found["text"].split()))
        for found in _ATTRIBUTE.finditer(listed)
    }


def _table(name: str, value: object) -> Table:
    kind = type(value)
    assert attrs.has(kind)
    explained = meanings(kind)
    settings = tuple(
        Setting(
            field.name,
            written(getattr(value, field.name)),
            explained[field.name],
            "" if f"{name}.{field.name}" in RELOADABLE else AT_START,
        )
        for field in attrs.fields(kind)
    )
    return Table(name, _brief(kind), settings)


def _brief(kind: type) -> str:
    return (inspect.getdoc(kind) or "").partition("\n")[0]


def written(value: object) -> str:
    """A value as TOML writes it."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() if value >= _GROUPED_FROM:
            return f"{value:_}"
        case int() | float():
            return str(value)
        case str() | Path():
            text = str(value).replace("\\", "\\\\").replace('"', '\\"')
            return f'"{text}"'
        case tuple() | list():
            return "[" + ", ".join(written(one) for one in value) + "]"
        case _:
            message = f"a setting cannot be {value!r}"
            raise TypeError(message)


def explained_file() -> str:
    """The settings file with every setting explained, and at its default: none is set."""
    head = (
        "# Settings of bakehoused(8). Every one has a default, which is the one written here behind a `#`: remove it to set\n"
        "# another. A key that does not exist is refused with the one that was likely meant. What is said here is also in\n"
        "# bakehouse.toml(5). After a change: systemctl reload bakehouse, or systemctl restart bakehouse for what is read at\n"
        "# the start only; containers go on meanwhile.\n"
    )
    return "\n".join([head, *_lines()]) + "\n"


def _lines() -> Iterator[str]:
    for table in tables():
        if table.name:
            yield f"[{table.name}]"
            yield from _comment(table.brief)
            yield ""
        for setting in table.settings:
            yield from _comment(f"{setting.meaning} {setting.when}".strip())
            yield f"#{setting.name} = {setting.default}"
            yield ""


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text.replace("``", ""), _WIDTH, initial_indent="# ", subsequent_indent="# "
    )


def page(version: str) -> Page:
    """bakehouse.toml(5)."""
    made = Page("bakehouse.toml", 5, "settings of the Bakehouse daemon", version)
    made.heading("Synopsis")
    made.text(f"`{INSTALLED_CONFIG}`")
    made.heading("Description")
    made.text(
        "Settings of bakehoused in TOML. The file need not be there, and need not say anything: every setting has a "
        "default. A key that does not exist is refused with the one that was likely meant, and all faults are told at once.",
        "An installed file names every setting behind a comment's `#`. An upgrade leaves it as it is, and puts the new "
        "release's beside it, with `.new` at the end of its name, where they differ.",
        "`systemctl reload bakehouse` takes up what has changed, but for settings that are read at the daemon's start only; "
        "those need `systemctl restart bakehouse`, during which containers go on.",
        "Names end in their unit. A size is in bytes. 0 means no limit where it says so.",
    )
    made.heading("Settings")
    for table in tables():
        if table.name:
            made.part(f"[{table.name}]")
        made.text(table.brief)
        made.terms(
            (setting.name, f"{setting.meaning} {setting.when} Default: ``{setting.default}``.")
            for setting in table.settings
        )
    made.heading("Example")
    made.literal(
        """
        [access]
        user_group = "students"

        [network]
        pool = "10.208.0.0/12"
        """
    )
    made.see_also([("bakehoused", 8), ("bakehouse", 1)])
    return made

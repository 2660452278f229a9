"""The host's ``ps`` for ``docker top``: which arguments it is given, and what is taken of its output. Pure.

dockerd hands all arguments to ``ps`` as root and keeps the lines with a pid of the container. Arguments that choose
processes or name columns anew (``-N``, ``-C init``, ``-o ppid=PID``) would show others' processes as the container's, so
only those that say how, and not what, are handed on. See ps(1).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from supervisor.errors import InvalidArgument, Unavailable

ARGUMENTS_MAX = 32
_FLAGS = re.compile(r"-?[aefFjlLmMuvxXwycTHZ]{1,12}|--(?:forest|headers|no-headers|cumulative)")
_FORMAT = re.compile(r"-?[aefxL]{0,6}[oO](?P<columns>.*)|--format(?:=(?P<long>.*))?")
_SORT = re.compile(r"-?k(?P<keys>.+)|--sort(?:=(?P<long>.*))?")
_COLUMNS = re.compile(r"[+-]?[a-z%_]{1,24}(?:,[+-]?[a-z%_]{1,24}){0,63}")
_HINT = "how to show, and not what: -ef, aux, -o pid,args, --sort -rss, …"


def words(arguments: str) -> tuple[str, ...]:
    """The words for ``ps``; those that choose the processes are added by who runs it.

    Raises:
        InvalidArgument: One that is not handed on.
    """
    given = arguments.split()
    found: list[str] = []
    rest = iter(given[:ARGUMENTS_MAX])
    for word in rest:
        found.append(word)
        match = _FORMAT.fullmatch(word) or _SORT.fullmatch(word)
        if match is None:
            if not _FLAGS.fullmatch(word):
                raise InvalidArgument(f"ps: error: unsupported option {word[:40]!r}", _HINT)
            continue
        columns = next(filter(None, match.groups()), "")
        if not columns:
            columns = next(rest, "")
            found.append(columns)
        if not _COLUMNS.fullmatch(columns):
            raise InvalidArgument(f"ps: error: unsupported columns {columns[:40]!r}", _HINT)
    if len(given) > ARGUMENTS_MAX or not found:
        raise InvalidArgument("ps: error: too many arguments", _HINT)
    return tuple(found)


def table(output: str, pids: Collection[int]) -> tuple[list[str], list[list[str]]]:
    """Titles, and the lines of these processes (with their threads' lines, which have no pid).

    Raises:
        InvalidArgument: There is no column with the pid; dockerd's wording.
        Unavailable: The output is not a table.
    """
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise InvalidArgument("Couldn't find PID field in ps output", "ask for pid, too")
    place = titles.index("PID")
    rows: list[list[str]] = []
    inside = False
    for line in filter(None, lines[1:]):
        fields = line.split(maxsplit=len(titles) - 1)
        if len(fields) <= place:
            raise Unavailable("cannot read the output of ps")
        if fields[place] != "-":
            inside = fields[place].isdecimal() and int(fields[place]) in pids
        if inside:
            rows.append(_filled(fields, len(titles)))
    return titles, rows


def _filled(fields: Sequence[str], length: int) -> list[str]:
    return [*fields, *[""] * (length - len(fields))]

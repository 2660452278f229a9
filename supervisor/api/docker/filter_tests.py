"""Docker's filters as tests: of names by expressions, of labels, of ports. Pure.

Words: a filter has a name and values; any of its values will do, of labels all must. A value that is an expression is
looked for in a name as ``docker ps --filter name=^web`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from protocol.patterns import compiled, is_plain
from supervisor.errors import InvalidArgument

TextTest = Callable[[str], bool]
PORT_MAX = 65_535


def named(values: Sequence[str]) -> TextTest:
    """A test of names: equal to a value, or found by it as an expression; one that is none finds nothing."""
    tests: list[TextTest] = [set(values).__contains__, *map(_found_by, values)]
    return lambda name: any(test(name) for test in tests)


def _found_by(value: str) -> TextTest:
    if is_plain(value):
        return lambda name: value in name
    try:
        return compiled(value).found_in
    except ValueError:
        return lambda _: False


def labelled(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """Do ``labels`` have each of ``wanted``: ``key`` or ``key=value``?"""
    return all(
        key in labels and (not equals or labels[key] == value)
        for key, equals, value in (each.partition("=") for each in wanted)
    )


def passes_labels(labels: Mapping[str, str], chosen: Mapping[str, Sequence[str]]) -> bool:
    """Whether a prune with the filters ``label`` and ``label!`` takes what is labelled so.

    Of several ``label!`` all must be there for a thing to stay, as dockerd has it.
    """
    kept = bool(chosen.get("label!")) and labelled(labels, chosen["label!"])
    return labelled(labels, chosen.get("label", ())) and not kept


def ports(name: str, values: Sequence[str]) -> frozenset[str]:
    """``80``, ``53/udp`` and ``8000-8010/tcp`` as ``number/protocol`` of each port.

    Raises:
        InvalidArgument: A value is none of these.
    """
    return frozenset(port for value in values for port in _ports(name, value))


def _ports(name: str, value: str) -> list[str]:
    if ":" in value:
        raise InvalidArgument(f"filter for '{name}' should not contain ':': {value[:80]}")
    numbers, _, protocol = value.partition("/")
    first, dash, last = numbers.partition("-")
    limits = (first, last) if dash else (first, first)
    if not all(part.isascii() and part.isdigit() and len(part) <= len("65535") for part in limits):
        raise InvalidArgument(f"error while looking up for {name} {value[:80]}: invalid port")
    low, high = map(int, limits)
    if not 0 < low <= high <= PORT_MAX:
        raise InvalidArgument(f"error while looking up for {name} {value[:80]}: invalid range")
    return [f"{number}/{protocol.lower() or 'tcp'}" for number in range(low, high + 1)]

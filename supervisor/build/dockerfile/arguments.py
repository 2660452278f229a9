"""The arguments and flags of one node, checked: words, JSON or shell form, times and counts."""

from __future__ import annotations

import re
from collections.abc import Mapping

import attrs

from supervisor.build.dockerfile import shell
from supervisor.build.dockerfile.instruction import Argument, Command
from supervisor.build.dockerfile.parser import Node, Word, json_words, split_words
from supervisor.build.dockerfile.source import did_you_mean

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_NS_MAX = 2**63 - 1
_SHORT_CHARACTERS_MAX = 32
_DURATION_CHARACTERS_MAX = 64
_NOT_SERVED = "leave it out: it is not served yet"


def short(word: str) -> str:
    """``word`` as a message can hold it."""
    return word if len(word) <= _SHORT_CHARACTERS_MAX else f"{word[:_SHORT_CHARACTERS_MAX]}…"


def argument(node: Node, value: str, offset: int) -> Argument:
    """``value`` as a word that may hold variables, checked to be well-formed."""
    try:
        shell.parse(value, node.escape)
    except shell.Unexpandable as error:
        raise node.misread(error.message, offset + error.offset, error.hint) from error
    return Argument(value, offset)


def whole(node: Node) -> Argument:
    """All that follows the flags, as one word."""
    return argument(node, node.rest, node.start)


def words_of(node: Node) -> tuple[Word, ...]:
    """The words of the arguments, with their offsets in the whole."""
    return tuple(
        attrs.evolve(word, offset=word.offset + node.start)
        for word in split_words(node.rest, node.escape)
    )


def list_of(node: Node) -> tuple[Argument, ...]:
    """Arguments in the JSON or the blank-separated form."""
    words = json_words(node.rest)
    if words is not None:
        return tuple(argument(node, word, node.start) for word in words)
    return tuple(argument(node, word.value, word.offset) for word in words_of(node))


def command_of(node: Node) -> Command:
    """The arguments as a command, in the JSON or the shell form."""
    words = json_words(node.rest)
    return (
        Command((node.rest,), shell_form=True)
        if words is None
        else Command(words, shell_form=False)
    )


@attrs.frozen
class Flags:
    """The flags of one node, each known and, unless it may be, not repeated."""

    node: Node
    values: Mapping[str, tuple[tuple[str, int], ...]]

    def one(self, name: str) -> Argument | None:
        """The flag as a word that may hold variables."""
        found = self.values.get(name)
        return argument(self.node, *found[0]) if found else None

    def text(self, name: str, default: str = "") -> str:
        """The flag as it stands."""
        found = self.values.get(name)
        return found[0][0] if found else default


def flags_of(node: Node, known: str = "", *, repeated: str = "", bare: str = "") -> Flags:
    """Check the flags of ``node`` against the names it knows."""
    names = (*known.split(), *repeated.split(), *bare.split())
    values: dict[str, tuple[tuple[str, int], ...]] = {}
    for flag in node.flags:
        if flag.name not in names:
            hint = did_you_mean(f"--{flag.name}", [f"--{name}" for name in names])
            message = f"{node.keyword} has no flag --{short(flag.name)}"
            raise node.misread(message, flag.offset, hint)
        if flag.name in values and flag.name not in repeated.split():
            message = f"the flag --{flag.name} is given twice"
            raise node.misread(message, flag.offset)
        value = flag.value
        if flag.name in bare.split():
            value = "true" if value is None else value.lower()
            if value not in {"true", "false"}:
                message = f"the flag --{flag.name} is either there or not"
                raise node.misread(message, flag.offset, f"write --{flag.name}")
        if not value:
            message = f"the flag --{flag.name} needs a value"
            raise node.misread(message, flag.offset, f"write --{flag.name}=<value>")
        values[flag.name] = (*values.get(flag.name, ()), (value, flag.offset))
    return Flags(node, values)


def refuse_unserved(node: Node, *names: str) -> None:
    """Refuse these flags by name: to leave them out would change what is built."""
    for flag in node.flags:
        if flag.name in names and flag.value != "false":
            message = f"the flag --{flag.name} of {node.keyword}"
            msg = f"cannot carry out {message}"
            raise node.misread(msg, flag.offset, _NOT_SERVED)


def list_of_words(node: Node) -> tuple[Argument, ...]:
    """Arguments between blanks."""
    return tuple(argument(node, word.value, word.offset) for word in words_of(node))


def duration_ns(node: Node, flags: Flags, name: str) -> int:
    """Nanoseconds of a duration in Go's form; at least a millisecond, as Docker has it."""
    if name not in flags.values:
        return 0
    value, offset = flags.values[name][0]
    pieces = list(_DURATION.finditer(value)) if len(value) <= _DURATION_CHARACTERS_MAX else []
    total = int(sum(float(piece[1]) * _NANOSECONDS[piece[2]] for piece in pieces))
    if "".join(piece[0] for piece in pieces) != value or not 0 <= total <= _DURATION_NS_MAX:
        message = f"{short(value)} is no duration"
        raise node.misread(message, offset, "write it as 30s or 1m30s")
    if 0 < total < _NANOSECONDS["ms"]:
        message = f"--{name} cannot be less than 1ms"
        raise node.misread(message, offset)
    return total


def count_of(node: Node, flags: Flags, name: str) -> int:
    """A whole number from 1 on; 0 when the flag is not there."""
    if name not in flags.values:
        return 0
    value, offset = flags.values[name][0]
    if not re.fullmatch(r"[0-9]{1,9}", value) or int(value) < 1:
        message = f"--{name} takes a whole number from 1 on"
        raise node.misread(message, offset)
    return int(value)

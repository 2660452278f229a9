"""Nodes to typed instructions; everything that can be told wrong without an image or a variable is told here.

One function per keyword, in one table. A fault ends its instruction, never the file: all are collected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from protocol.errors import Fault
from supervisor.build.dockerfile import instruction as to
from supervisor.build.dockerfile.arguments import (
    Flags,
    argument,
    command_of,
    count_of,
    duration_ns,
    flags_of,
    list_of,
    list_of_words,
    refuse_unserved,
    short,
    whole,
    words_of,
)
from supervisor.build.dockerfile.instruction import (
    Argument,
    Command,
    Dockerfile,
    Instruction,
    Stage,
)
from supervisor.build.dockerfile.parser import Node, Word, json_words, parse
from supervisor.build.dockerfile.source import (
    BLANKS,
    Directives,
    Misread,
    did_you_mean,
    directives,
    likely,
    read,
    refused,
)

_LIKE_JSON = re.compile(r"\[ *[\"']")
_STAGE_NAME = re.compile(r"^[a-z][a-z0-9_.-]*$")


def load(data: bytes, name: str) -> Dockerfile:
    """The Dockerfile in ``data``, which people know as ``name``.

    Raises:
        InvalidArgument: It cannot be built from; every fault is told, each with place and hint.
    """
    source = read(data, name)
    head = directives(source)
    nodes, faults, warnings = parse(source, head)
    found: list[Instruction] = []
    for node in nodes:
        try:
            found.append(recognise(node))
        except Misread as error:
            faults.extend(error.faults)
            if node.keyword == "FROM" or likely(node.keyword, _RULES) == "FROM":
                found.append(to.From(text=node.whole, image=Argument("scratch")))
    arguments, stages = _stages(found, faults)
    if not stages and not faults:
        hint = "begin with FROM <image>, or FROM scratch"
        faults.append(source.fault("there is no FROM in it: nothing to build from", 1, 0, hint))
    if faults:
        raise refused(name, sorted(faults, key=_position))
    warnings += [warning for node in nodes for warning in _unwise(node)]
    return Dockerfile(source, head, arguments, stages, tuple(sorted(warnings, key=_position)))


def trigger(text: str, image: str) -> Instruction:
    """The instruction in an image's ONBUILD ``text``.

    Raises:
        InvalidArgument: It is none, or more than one, or one that may not be a trigger.
    """
    name = f"ONBUILD of {image}"
    source = read(text.encode("utf-8", "replace"), name)
    nodes, faults, _ = parse(source, Directives())
    if faults or len(nodes) != 1:
        raise refused(name, faults or [source.fault("a trigger is exactly one instruction", 1)])
    _check_trigger(nodes[0], nodes[0])
    return recognise(nodes[0])


def recognise(node: Node) -> Instruction:
    """The typed instruction that ``node`` is.

    Raises:
        InvalidArgument: It is none, or says what makes no sense; with the place.
    """
    rule = _RULES.get(node.keyword)
    if rule is None:
        hint = did_you_mean(node.keyword, _RULES)
        msg = f"there is no instruction {short(node.keyword)}"
        raise node.misread(msg, 0, hint)
    if not node.rest and node.keyword not in _MAY_BE_EMPTY:
        message = f"{node.keyword} needs an argument"
        raise node.misread(message, 0)
    return rule(node)


def _stages(
    found: list[Instruction], faults: list[Fault]
) -> tuple[tuple[to.Arg, ...], tuple[Stage, ...]]:
    """Cut at each FROM; before the first only ARG may stand."""
    arguments: list[to.Arg] = []
    stages: list[tuple[to.From, list[Instruction]]] = []
    stray = False
    for each in found:
        if isinstance(each, to.From):
            stages.append((each, []))
        elif stages:
            stages[-1][1].append(each)
        elif isinstance(each, to.Arg):
            arguments.append(each)
        elif not stray:
            stray = True
            keyword = each.text.value.split(maxsplit=1)[0].upper()
            hint = "begin with FROM <image>; only comments, directives and ARG may stand before it"
            faults.append(each.text.fault(f"{keyword} stands before the first FROM", 0, hint))
    cut = (Stage(index, start, tuple(rest)) for index, (start, rest) in enumerate(stages))
    return tuple(arguments), tuple(cut)


def _position(fault: Fault) -> tuple[int, int]:
    return (fault.place.line, fault.place.column) if fault.place else (0, 0)


def _unwise(node: Node) -> list[Fault]:
    if node.keyword not in {"RUN", "CMD", "ENTRYPOINT"} or not _LIKE_JSON.match(node.rest):
        return []
    if json_words(node.rest) is not None:
        return []
    message = f"the arguments of {node.keyword} look like JSON but are not: the shell gets them"
    return [node.whole.fault(message, node.start, 'JSON strings stand in double quotes: ["a"]')]


# One function per keyword


def _from(node: Node) -> Instruction:
    flags = flags_of(node, "platform")
    words = words_of(node)
    match [word.value for word in words]:
        case [_]:
            name = ""
        case [_, middle, last] if middle.upper() == "AS":
            name = last.lower()
        case _:
            at = words[1].offset if words[1:] else None
            msg = "FROM takes one image, and a name after AS"
            raise node.misread(msg, at, "write FROM <image> [AS <name>]")
    if name and not _STAGE_NAME.match(name):
        message = f"{short(name)} cannot be a stage's name"
        hint = "letters, digits, and _ . - after a first letter"
        raise node.misread(message, words[2].offset, hint)
    image = argument(node, words[0].value, words[0].offset)
    return to.From(text=node.whole, image=image, name=name, platform=flags.one("platform"))


def _run(node: Node) -> Instruction:
    flags = flags_of(node, "network security", repeated="mount device")
    for value, offset in flags.values.get("mount", ()):
        message = f"a {_mount_type(value)} mount of RUN is not served yet"
        raise node.misread(message, offset, "leave the --mount out; what it caches is made anew")
    refuse_unserved(node, "device")
    network = flags.text("network", "")
    if network not in {"", "default", "none", "host"}:
        hint = did_you_mean(network, ("default", "none", "host")) or "it is default, none or host"
        msg = "the network of RUN is not known"
        raise node.misread(msg, flags.values["network"][0][1], hint)
    if flags.text("security", "sandbox") != "sandbox":
        hint = "steps always run in the sandbox"
        msg = "RUN cannot do without the sandbox"
        raise node.misread(msg, flags.values["security"][0][1], hint)
    return to.Run(
        text=node.whole, command=command_of(node), heredocs=node.heredocs, network=network
    )


def _mount_type(value: str) -> str:
    pairs = dict(part.partition("=")[::2] for part in value.split(","))
    return short(pairs.get("type", "bind"))


def _copy(node: Node) -> Instruction:
    flags = flags_of(node, "from chown chmod", repeated="exclude", bare="link parents")
    refuse_unserved(node, "exclude", "parents")
    return _files(node, flags, add=False)


def _add(node: Node) -> Instruction:
    flags = flags_of(
        node, "chown chmod checksum", repeated="exclude", bare="link keep-git-dir unpack"
    )
    refuse_unserved(node, "exclude", "checksum", "keep-git-dir", "unpack")
    return _files(node, flags, add=True)


def _files(node: Node, flags: Flags, *, add: bool) -> Instruction:
    words = list_of(node)
    if not words[1:]:
        message = f"{node.keyword} needs a source and a target"
        raise node.misread(message, None, f"write {node.keyword} <source> … <target>")
    inline = {heredoc.word for heredoc in node.heredocs}
    sources = tuple(word for word in words[:-1] if word.value not in inline)
    for source in sources:
        if add and re.match(r"(https?|git|ssh)://|git@", source.value):
            hint = "fetch it in a RUN step, or put it into the context"
            msg = "ADD of a URL is not served yet"
            raise node.misread(msg, source.offset, hint)
    return to.Copy(
        text=node.whole,
        sources=sources,
        target=words[-1],
        add=add,
        source_stage=flags.one("from"),
        owner=flags.one("chown"),
        mode=flags.one("chmod"),
        heredocs=node.heredocs,
    )


def _pairs(node: Node) -> tuple[tuple[Argument, Argument], ...]:
    """``key=value …``, or the old ``key value``."""
    flags_of(node)
    words = words_of(node)
    if "=" not in words[0].value:
        return (_old_pair(node, words),)
    pairs: list[tuple[Argument, Argument]] = []
    for word in words:
        key, equals, value = word.value.partition("=")
        if not equals:
            hint = "write key=value; a value with blanks stands in quotes"
            message = f"{short(word.value)} has no = in it"
            raise node.misread(message, word.offset, hint)
        if not key:
            msg = "the name before = is missing"
            raise node.misread(msg, word.offset)
        pairs.append(
            (argument(node, key, word.offset), argument(node, value, word.offset + len(key) + 1))
        )
    return tuple(pairs)


def _old_pair(node: Node, words: tuple[Word, ...]) -> tuple[Argument, Argument]:
    if not words[1:]:
        message = f"{node.keyword} {short(words[0].value)} has no value"
        raise node.misread(
            message, words[0].offset, f"write {node.keyword} {short(words[0].value)}=<value>"
        )
    value = node.rest[words[1].offset - node.start :].rstrip(BLANKS)
    return argument(node, words[0].value, words[0].offset), argument(node, value, words[1].offset)


def _arg(node: Node) -> Instruction:
    flags_of(node)
    pairs: list[tuple[str, Argument | None]] = []
    for word in words_of(node):
        name, equals, value = word.value.partition("=")
        if not name:
            msg = "the name before = is missing"
            raise node.misread(msg, word.offset)
        default = argument(node, value, word.offset + len(name) + 1) if equals else None
        pairs.append((name, default))
    return to.Arg(text=node.whole, pairs=tuple(pairs))


def _shell(node: Node) -> Instruction:
    flags_of(node)
    words = json_words(node.rest)
    if not words:
        msg = "SHELL takes the JSON form only"
        raise node.misread(msg, None, 'write SHELL ["/bin/bash", "-c"]')
    return to.Shell(text=node.whole, words=words)


def _healthcheck(node: Node) -> Instruction:
    flags = flags_of(node, "interval timeout start-period start-interval retries")
    kind, _, _ = node.rest.partition(" ")
    words = words_of(node)
    kind = words[0].value.upper()
    if kind == "NONE" and len(words) == 1:
        return to.Healthcheck(text=node.whole, command=None)
    if kind != "CMD":
        hint = (
            did_you_mean(kind, ("CMD", "NONE"))
            or "write HEALTHCHECK CMD <command>, or HEALTHCHECK NONE"
        )
        msg = "a health check is CMD with a command, or NONE"
        raise node.misread(msg, words[0].offset, hint)
    if not words[1:]:
        msg = "the health check has no command"
        raise node.misread(msg, words[0].offset)
    text = node.rest[words[1].offset - node.start :]
    json_form = json_words(text)
    return to.Healthcheck(
        text=node.whole,
        command=Command((text,), shell_form=True)
        if json_form is None
        else Command(json_form, shell_form=False),
        interval_ns=duration_ns(node, flags, "interval"),
        timeout_ns=duration_ns(node, flags, "timeout"),
        start_period_ns=duration_ns(node, flags, "start-period"),
        start_interval_ns=duration_ns(node, flags, "start-interval"),
        retries=count_of(node, flags, "retries"),
    )


def _check_trigger(node: Node, below: Node) -> None:
    if below.keyword in {"ONBUILD", "FROM", "MAINTAINER"}:
        message = f"{below.keyword} cannot be a trigger"
        raise node.misread(message, None)


def _onbuild(node: Node) -> Instruction:
    flags_of(node)
    below = node.below()
    _check_trigger(node, below)
    recognise(below)
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in node.heredocs)
    return to.Onbuild(text=node.whole, trigger=below.whole.value + bodies)


def _plain(node: Node, make: Callable[[Node], Instruction]) -> Instruction:
    flags_of(node)
    return make(node)


_RULES: Mapping[str, Callable[[Node], Instruction]] = {
    "FROM": _from,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _add,
    "ARG": _arg,
    "ENV": lambda node: to.Env(text=node.whole, pairs=_pairs(node)),
    "LABEL": lambda node: to.Label(text=node.whole, pairs=_pairs(node)),
    "WORKDIR": lambda node: _plain(node, lambda it: to.Workdir(text=it.whole, path=whole(it))),
    "USER": lambda node: _plain(node, lambda it: to.User(text=it.whole, user=whole(it))),
    "EXPOSE": lambda node: _plain(
        node, lambda it: to.Expose(text=it.whole, ports=list_of_words(it))
    ),
    "VOLUME": lambda node: _plain(node, lambda it: to.Volume(text=it.whole, paths=list_of(it))),
    "CMD": lambda node: _plain(node, lambda it: to.Cmd(text=it.whole, command=command_of(it))),
    "ENTRYPOINT": lambda node: _plain(
        node, lambda it: to.Entrypoint(text=it.whole, command=command_of(it))
    ),
    "SHELL": _shell,
    "STOPSIGNAL": lambda node: _plain(
        node, lambda it: to.StopSignal(text=it.whole, signal=whole(it))
    ),
    "HEALTHCHECK": _healthcheck,
    "ONBUILD": _onbuild,
    "MAINTAINER": lambda node: _plain(node, lambda it: to.Maintainer(text=it.whole, name=it.rest)),
}
_MAY_BE_EMPTY = frozenset({"CMD", "ENTRYPOINT"})

"""What each instruction does to its stage: one function per kind. Pure."""

from __future__ import annotations

import posixpath
import re

import attrs

from supervisor.build.conversion import SCRATCH, Conversion, copy_source
from supervisor.build.dockerfile import instruction as to
from supervisor.build.dockerfile import shell
from supervisor.build.dockerfile.instruction import Argument, Command, Instruction
from supervisor.build.dockerfile.parser import Heredoc
from supervisor.build.graph import Files, MakeDirectory, Run, SourceContext, SourceImage
from supervisor.build.stage_state import PROXIES, StageState
from supervisor.errors import InvalidArgument
from supervisor.oci.image import HealthCheck
from supervisor.runtime.signals import parse_signal

SCRIPT_PATH = "/dev/pipes/EOF"
PORT_MAX = 65_535
PORTS_MAX = 4_096
_PORT = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?(?:/(tcp|udp|sctp))?")
_MODE = re.compile(r"0*[0-7]{1,4}")


def apply(conversion: Conversion, state: StageState, each: Instruction, index: int) -> None:
    """Carry out ``each`` in stage ``index``.

    Raises:
        Misread: It makes no sense with the values its variables have.
    """
    match each:
        case to.Run():
            _run(conversion, state, each)
        case to.Copy():
            _copy(conversion, state, each, index)
        case to.Workdir():
            _workdir(conversion, state, each)
        case to.Arg():
            _arg(conversion, state, each)
        case to.Env():
            state.environment.update(_pairs(conversion, state, each, each.pairs))
        case to.Label():
            labels = dict(_pairs(conversion, state, each, each.pairs))
            state.execution = attrs.evolve(
                state.execution, labels={**state.execution.labels, **labels}
            )
        case _:
            _configure(conversion, state, each)


def _configure(conversion: Conversion, state: StageState, each: Instruction) -> None:
    """The instructions that set one field of the config."""
    match each:
        case to.User():
            state.execution = attrs.evolve(
                state.execution, user=_word(conversion, state, each, each.user)
            )
        case to.Expose():
            ports = [port for word in each.ports for port in _ports(conversion, state, each, word)]
            state.execution = attrs.evolve(
                state.execution,
                exposed_ports=tuple(dict.fromkeys([*state.execution.exposed_ports, *ports])),
            )
        case to.Volume():
            paths = [_volume(conversion, state, each, path) for path in each.paths]
            state.execution = attrs.evolve(
                state.execution, volumes=tuple(dict.fromkeys([*state.execution.volumes, *paths]))
            )
        case to.Onbuild():
            state.execution = attrs.evolve(
                state.execution, on_build=(*state.execution.on_build, each.trigger)
            )
        case to.Maintainer():
            state.image = attrs.evolve(state.image, author=each.name)
        case _:
            _describe_process(conversion, state, each)


def _describe_process(conversion: Conversion, state: StageState, each: Instruction) -> None:
    """The instructions that say how a container of the image is started, watched and stopped."""
    match each:
        case to.StopSignal():
            state.execution = attrs.evolve(
                state.execution, stop_signal=_signal(conversion, state, each)
            )
        case to.Cmd():
            state.command_set = True
            state.execution = attrs.evolve(state.execution, cmd=_args(state, each.command))
        case to.Entrypoint():
            state.execution = attrs.evolve(state.execution, entrypoint=_args(state, each.command))
            if not state.command_set:
                state.execution = attrs.evolve(state.execution, cmd=None)
        case to.Shell():
            state.execution = attrs.evolve(state.execution, shell=each.words)
        case to.Healthcheck():
            state.execution = attrs.evolve(state.execution, health=_health(each))
        case _:
            raise AssertionError(each)


def history(state: StageState, each: Instruction) -> str:
    """The line ``docker history`` shows for it."""
    if isinstance(each, to.Run):
        given = state.arguments_for_run()
        lead = f"|{len(given)} {' '.join(given)} " if given else ""
        return f"RUN {lead}{' '.join(_command_line(state, each)[0])}"
    return each.text.value


# What changes the file system


def _run(conversion: Conversion, state: StageState, each: to.Run) -> None:
    args, script = _command_line(state, each)
    proxies = {
        name: value
        for name, value in conversion.wish.build_args.items()
        if name in PROXIES and value is not None
    }
    env = tuple(f"{name}={value}" for name, value in state.environment.items())
    op = Run(
        args=args,
        env=(*state.arguments_for_run(), *env),
        working_dir=state.working_dir,
        user=state.execution.user,
        network=each.network
        if each.network not in {"", "default"}
        else conversion.wish.network or "default",
        script=script,
        epoch=conversion.epoch,
    )
    hidden = tuple(
        f"{name}={value}" for name, value in proxies.items() if name not in state.environment
    )
    state.vertex = conversion.add(op, (state.vertex,), each, hidden)


def _command_line(state: StageState, each: to.Run) -> tuple[tuple[str, ...], str | None]:
    """The arguments, and the script they run if there is one."""
    if not each.command.shell_form:
        return each.command.words, None
    text = each.command.words[0]
    if len(each.heredocs) == 1 and text == each.heredocs[0].word:
        body = each.heredocs[0].text
        return ((SCRIPT_PATH,), body) if body.startswith("#!") else ((*state.shell, body), None)
    bodies = "".join(f"\n{heredoc.content}{heredoc.name}" for heredoc in each.heredocs)
    return (*state.shell, text + bodies), None


def _copy(conversion: Conversion, state: StageState, each: to.Copy, index: int) -> None:
    sources = tuple(_word(conversion, state, each, source) for source in each.sources)
    target = _word(conversion, state, each, each.target)
    for word, value in zip((*each.sources, each.target), (*sources, target), strict=True):
        if not value:
            msg = "this path is empty"
            raise each.text.misread(msg, word.offset)
    inline = tuple(
        (heredoc.name, _inline(conversion, state, each, heredoc)) for heredoc in each.heredocs
    )
    if len(sources) + len(inline) > 1 and not target.endswith("/"):
        msg = "several sources need a directory as target"
        raise each.text.misread(msg, each.target.offset, f"end it with a slash: {target}/")
    keep = each.source_stage is not None
    op = Files(
        sources=sources,
        target=_target(state, target),
        owner=_word(conversion, state, each, each.owner) if each.owner else "",
        mode=_mode(conversion, state, each),
        unpack=each.add,
        keep_owner=keep,
        inline=inline,
        epoch=conversion.epoch,
    )
    state.vertex = conversion.add(op, (state.vertex, _source(conversion, each, index)), each)


def _source(conversion: Conversion, each: to.Copy, index: int) -> str:
    """The vertex files are read from."""
    if each.source_stage is None:
        return conversion.add(SourceContext(), (), None)
    source = copy_source(conversion, each, index)
    if isinstance(source, int):
        return conversion.states[source].vertex
    if source == SCRATCH:
        msg = "there is nothing in scratch to copy"
        raise each.text.misread(msg, each.source_stage.offset)
    return conversion.add(SourceImage(conversion.images[source].id, source), (), each)


def _inline(conversion: Conversion, state: StageState, each: to.Copy, heredoc: Heredoc) -> str:
    if not heredoc.expand:
        return heredoc.text
    try:
        return shell.expand_text(
            heredoc.text, state.variables, conversion.file.directives.escape, conversion.work
        )
    except shell.Unexpandable as error:
        message = f"in the here-document {heredoc.name}: {error.message}"
        raise each.text.misread(message, 0, error.hint) from error


def _target(state: StageState, target: str) -> str:
    """Absolute, and still with its slash at the end if it says directory."""
    path = posixpath.normpath(posixpath.join(state.working_dir, target))
    directory = target.endswith(("/", "/.", "/..")) or target in {".", ".."}
    return f"{path.rstrip('/')}/" if directory else path


def _mode(conversion: Conversion, state: StageState, each: to.Copy) -> int | None:
    if each.mode is None:
        return None
    text = _word(conversion, state, each, each.mode)
    if not _MODE.fullmatch(text):
        msg = "--chmod takes octal permission bits"
        raise each.text.misread(msg, each.mode.offset, "write it as --chmod=0644")
    return int(text, 8)


def _workdir(conversion: Conversion, state: StageState, each: to.Workdir) -> None:
    path = _word(conversion, state, each, each.path)
    if not path:
        msg = "the directory's name is empty"
        raise each.text.misread(msg, each.path.offset)
    state.execution = attrs.evolve(
        state.execution, working_dir=posixpath.normpath(posixpath.join(state.working_dir, path))
    )
    if state.working_dir != "/":
        op = MakeDirectory(state.working_dir, conversion.epoch)
        state.vertex = conversion.add(op, (state.vertex,), each)


# What changes the config


def _word(conversion: Conversion, state: StageState, each: Instruction, word: Argument) -> str:
    return conversion.expand(each, word, state.variables)


def _arg(conversion: Conversion, state: StageState, each: to.Arg) -> None:
    for name, default in each.pairs:
        value = _word(conversion, state, each, default) if default is not None else None
        state.arguments[name] = conversion.argument_value(name, value)


def _pairs(
    conversion: Conversion,
    state: StageState,
    each: Instruction,
    pairs: tuple[tuple[Argument, Argument], ...],
) -> list[tuple[str, str]]:
    """Keys and values, all with the variables of before the instruction."""
    found = []
    for key, value in pairs:
        name = _word(conversion, state, each, key)
        if not name or (isinstance(each, to.Env) and "=" in name):
            msg = "this is no name"
            raise each.text.misread(msg, key.offset)
        found.append((name, _word(conversion, state, each, value)))
    return found


def _args(state: StageState, command: Command) -> tuple[str, ...]:
    if command.shell_form:
        return (*state.shell, command.words[0]) if command.words[0] else ()
    return command.words


def _ports(conversion: Conversion, state: StageState, each: to.Expose, word: Argument) -> list[str]:
    """``8000-8002/udp`` as its single ports."""
    try:
        words = shell.expand_words(
            word.value, state.variables, conversion.file.directives.escape, conversion.work
        )
    except shell.Unexpandable as error:
        raise each.text.misread(error.message, word.offset + error.offset, error.hint) from error
    found: list[str] = []
    for text in words:
        match = _PORT.fullmatch(text.lower())
        first = int(match[1]) if match else 0
        last = int(match[2] or first) if match else 0
        if match is None or not 0 < first <= last <= PORT_MAX:
            msg = f"{text:.32} is no port"
            raise each.text.misread(msg, word.offset, "write it as 80, 80/udp or 8000-8010")
        found += [f"{port}/{match[3] or 'tcp'}" for port in range(first, last + 1)]
        if len(found) + len(state.execution.exposed_ports) > PORTS_MAX:
            msg = f"more than {PORTS_MAX} ports are exposed"
            raise each.text.misread(msg, word.offset)
    return found


def _volume(conversion: Conversion, state: StageState, each: to.Volume, word: Argument) -> str:
    path = _word(conversion, state, each, word)
    if not path.strip("/") or ".." in path.split("/"):
        msg = "a volume is a directory below /"
        raise each.text.misread(msg, word.offset, "write an absolute path without ..")
    return posixpath.normpath("/" + path.lstrip("/"))


def _signal(conversion: Conversion, state: StageState, each: to.StopSignal) -> str:
    text = _word(conversion, state, each, each.signal)
    try:
        parse_signal(text)
    except InvalidArgument as error:
        msg = f"{text:.32} is no signal"
        raise each.text.misread(msg, each.signal.offset, "write it as SIGTERM or 15") from error
    return text


def _health(each: to.Healthcheck) -> HealthCheck:
    if each.command is None:
        test: tuple[str, ...] = ("NONE",)
    elif each.command.shell_form:
        test = ("CMD-SHELL", *each.command.words)
    else:
        test = ("CMD", *each.command.words)
    return HealthCheck(test, each.interval_ns, each.timeout_ns, each.start_period_ns, each.retries)

"""A Dockerfile, what the caller said, and the configs of base images → the graph. Pure.

Only what the target needs is converted. Two passes: backwards to find the wanted stages (and the images that are still
to be looked up), forwards to convert them. Faults of all wanted stages are collected.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import attrs

from protocol.errors import Fault
from supervisor.build import instructions
from supervisor.build.conversion import (
    EPOCH,
    SCRATCH,
    BaseImage,
    Conversion,
    Platform,
    Wanted,
    Wish,
    copy_source,
)
from supervisor.build.dockerfile import instruction as to
from supervisor.build.dockerfile.instruction import Dockerfile, Instruction, Stage
from supervisor.build.dockerfile.recognise import trigger
from supervisor.build.dockerfile.source import Misread, did_you_mean, refused
from supervisor.build.graph import Graph, Past, Scratch, SourceImage, Step
from supervisor.build.stage_state import PROXIES, StageState
from supervisor.errors import InvalidArgument, NotFound
from supervisor.oci.image import ImageConfig

_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "i686": "386",
}


def convert(file: Dockerfile, wish: Wish, images: Mapping[str, BaseImage]) -> Graph | Wanted:
    """The graph of what ``wish`` asks for; or, if it needs images that are not in ``images``, which.

    Args:
        file: The recipe.
        wish: What the caller said.
        images: By the reference as the recipe has it, after expansion.

    Raises:
        InvalidArgument: A word cannot be expanded, a stage or place is not known, …; every fault is told.
        NotFound: The target is no stage of the file.
    """
    conversion = Conversion(file, wish, images)
    faults: list[Fault] = []
    conversion.epoch = _epoch(wish)
    _global_arguments(conversion, faults)
    if faults:
        raise refused(file.source.name, faults)
    target = _target(file, wish.target)
    needed, missing = _needed(conversion, target)
    if missing:
        return Wanted(missing)
    plans = [(index, _plan(conversion, index)) for index in sorted(needed)]
    for index, plan in plans:
        _convert_stage(conversion, index, plan, faults)
    if faults:
        raise refused(file.source.name, faults)
    return _graph(conversion, target)


def _graph(conversion: Conversion, target: int) -> Graph:
    state = conversion.states[target]
    labels = {**state.execution.labels, **conversion.wish.labels}
    state.execution = attrs.evolve(state.execution, labels=labels)
    platform = conversion.wish.platform
    config = state.config()
    if not state.base_image:
        config = attrs.evolve(
            config, architecture=platform.architecture, os=platform.os, variant=platform.variant
        )
    return Graph(
        vertices=conversion.vertices,
        steps=tuple(conversion.steps),
        target=state.vertex,
        config=config,
        past=tuple(state.past),
        base_image=state.base_image,
        epoch=conversion.epoch,
        warnings=tuple(_warnings(conversion)),
    )


def _warnings(conversion: Conversion) -> Iterator[str]:
    predefined = PROXIES | {EPOCH} | set(_platform_arguments(conversion.wish.platform))
    unused = sorted(set(conversion.wish.build_args) - conversion.used_args - predefined)
    if unused:
        yield f"One or more build-args {unused} were not consumed"
    for fault in conversion.file.warnings:
        yield str(fault)


def _epoch(wish: Wish) -> int | None:
    text = wish.build_args.get(EPOCH)
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,11}", text):
        msg = f"cannot build: {EPOCH} is {text!r:.40}"
        raise InvalidArgument(msg, hint="it is a number of seconds since 1970")
    return int(text)


def _platform_arguments(platform: Platform) -> dict[str, str]:
    values = {
        "PLATFORM": str(platform),
        "OS": platform.os,
        "ARCH": platform.architecture,
        "VARIANT": platform.variant,
    }
    return {
        f"{kind}{name}": value for kind in ("TARGET", "BUILD") for name, value in values.items()
    }


def _global_arguments(conversion: Conversion, faults: list[Fault]) -> None:
    conversion.globals.update(_platform_arguments(conversion.wish.platform))
    for each in conversion.file.arguments:
        for name, default in each.pairs:
            try:
                value = conversion.expand(each, default, _given(conversion)) if default else None
            except Misread as error:
                faults.extend(error.faults)
            else:
                conversion.globals[name] = conversion.argument_value(name, value)


def _given(conversion: Conversion) -> dict[str, str]:
    return {name: value for name, value in conversion.globals.items() if value is not None}


def _target(file: Dockerfile, name: str) -> int:
    if not name:
        return len(file.stages) - 1
    for stage in reversed(file.stages):
        if stage.start.name == name.lower():
            return stage.index
    if (
        name.isascii()
        and name.isdigit()
        and len(name) < len("99999")
        and int(name) < len(file.stages)
    ):
        return int(name)
    known = [stage.start.name for stage in file.stages if stage.start.name]
    hint = did_you_mean(name, known) or (
        f"its stages are {', '.join(known)}" if known else "its stages have no names"
    )
    msg = f"cannot build the target {name:.64}: {file.source.name} has no such stage"
    raise NotFound(msg, hint)


def _needed(conversion: Conversion, target: int) -> tuple[set[int], dict[str, Fault]]:
    """The stages the target needs, and the images not looked up yet."""
    needed, missing = {target}, dict[str, Fault]()
    for index in range(target, -1, -1):
        if index not in needed:
            continue
        for text, source in _sources(conversion, index):
            if isinstance(source, int):
                needed.add(source)
            elif source != SCRATCH and source not in conversion.images:
                missing.setdefault(source, _missing(conversion, text, source))
    return needed, missing


def _missing(conversion: Conversion, text: Instruction, source: str) -> Fault:
    later = [stage.start.name for stage in conversion.file.stages if stage.start.name]
    hint = (
        f"the stage {source} stands further down"
        if source.lower() in later
        else did_you_mean(source, later)
    )
    return text.text.fault(
        f"there is no image {source:.200} here", 0, hint or "load, bootstrap or build it first"
    )


def _sources(conversion: Conversion, index: int) -> Iterator[tuple[Instruction, int | str]]:
    """What stage ``index`` begins with and copies from."""
    stage = conversion.file.stages[index]
    base = _base(conversion, stage)
    yield stage.start, base
    known = base == SCRATCH or isinstance(base, int) or base in conversion.images
    for each in _plan(conversion, index) if known else stage.instructions:
        if isinstance(each, to.Copy) and each.source_stage is not None:
            yield each, copy_source(conversion, each, index)


def _base(conversion: Conversion, stage: Stage) -> int | str:
    start = stage.start
    try:
        name = conversion.expand(start, start.image, _given(conversion))
        if not name:
            hint = "give it a value with ARG before the first FROM, or --build-arg"
            msg = "the image's name is empty"
            raise start.text.misread(msg, start.image.offset, hint)
        if start.platform is not None:
            _check_platform(conversion, start)
    except Misread as error:
        raise refused(conversion.file.source.name, error.faults) from error
    return conversion.source_of(name, stage.index)


def _check_platform(conversion: Conversion, start: to.From) -> None:
    assert start.platform is not None
    asked = conversion.expand(start, start.platform, _given(conversion))
    fault = platform_fault(asked, conversion.wish.platform)
    if fault:
        raise start.text.misread(
            fault, start.platform.offset, f"leave it out, or write {conversion.wish.platform}"
        )


def platform_fault(asked: str, host: Platform) -> str:
    """Why images for ``asked`` cannot be built on ``host``; empty when they can."""
    os, _, rest = asked.lower().partition("/")
    architecture = rest.partition("/")[0]
    architecture = _ARCHITECTURES.get(architecture, architecture)
    if os == host.os and architecture in {"", host.architecture}:
        return ""
    return f"this host builds for {host}, not for {asked:.40}"


def _plan(conversion: Conversion, index: int) -> list[Instruction]:
    """The stage's instructions, after the triggers of the image it begins with."""
    stage = conversion.file.stages[index]
    base = _base(conversion, stage)
    triggers: tuple[str, ...] = ()
    if isinstance(base, str) and base in conversion.images:
        triggers = conversion.images[base].config.config.on_build
    elif isinstance(base, int):
        own = conversion.file.stages[base].instructions
        triggers = tuple(each.trigger for each in own if isinstance(each, to.Onbuild))
    return [*(trigger(text, str(base)) for text in triggers), *stage.instructions]


def _convert_stage(
    conversion: Conversion, index: int, plan: list[Instruction], faults: list[Fault]
) -> None:
    stage = conversion.file.stages[index]
    state = conversion.states[index] = _begin(conversion, stage)
    _step(conversion, stage, stage.start, state.vertex, state.vertex)
    for each in plan:
        before = state.vertex
        try:
            instructions.apply(conversion, state, each, index)
        except Misread as error:
            faults.extend(error.faults)
            continue
        made = state.vertex if state.vertex != before else None
        state.past.append(Past(instructions.history(state, each), made))
        _step(conversion, stage, each, made, before)


def _begin(conversion: Conversion, stage: Stage) -> StageState:
    base = _base(conversion, stage)
    if isinstance(base, int):
        state = conversion.states[base].child()
        state.execution = attrs.evolve(state.execution, on_build=())
        return state
    if base == SCRATCH:
        return StageState.from_image(conversion.add(Scratch(), (), None), ImageConfig(), "")
    image = conversion.images[base]
    key = conversion.add(SourceImage(image.id, base), (), stage.start)
    return StageState.from_image(key, image.config, image.id)


def _step(
    conversion: Conversion, stage: Stage, each: Instruction, made: str | None, before: str
) -> None:
    name = each.text.value
    conversion.steps.append(
        Step(len(conversion.steps) + 1, name, stage.title, stage.index, made, before)
    )

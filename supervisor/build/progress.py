"""What a build tells the one who waits for it, and how Docker's classic builder words it.

The values go to a callback in order; :class:`ClassicText` turns each into the text of the classic stream.
"""

from __future__ import annotations

import codecs
from typing import assert_never

import attrs

SHORT_ID_CHARACTERS = 12
RED, PLAIN = "\x1b[91m", "\x1b[0m"


@attrs.frozen
class StepStarted:
    """A step begins, or is over at once because it is cached. ``index`` counts from 1."""

    index: int
    total: int
    name: str
    stage: str = ""
    cached: bool = False


@attrs.frozen
class StepRunning:
    """A step's command is being run, under this id."""

    index: int
    step_id: str


@attrs.frozen
class StepOutput:
    """What a step's command wrote as they came; ``errors`` when it is of its standard error."""

    index: int
    data: bytes
    errors: bool = False


@attrs.frozen
class StepDone:
    """A step is over, well or (``error``) not."""

    index: int
    seconds: float = 0.0
    cached: bool = False
    error: str = ""


@attrs.frozen
class BuildWarning:
    """Something unwise in the recipe or the request."""

    message: str


@attrs.frozen
class ImageBuilt:
    """The image is there; ``image`` is its id, ``sha256:…``."""

    image: str


@attrs.frozen
class Tagged:
    """The image has this name, in the familiar form."""

    reference: str


OfTheWhole = BuildWarning | ImageBuilt | Tagged
Progress = StepStarted | StepRunning | StepOutput | StepDone | OfTheWhole


class ClassicText:
    """The words of the classic builder, errors in red; remembers characters that output has only begun."""

    def __init__(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")
        self._output, self._errors = decoder("replace"), decoder("replace")

    def render(self, progress: Progress) -> str:
        """The text of one value; empty where the classic builder says nothing."""
        match progress:
            case StepStarted():
                line = f"Step {progress.index}/{progress.total} : {progress.name.partition(chr(10))[0]}\n"
                return line + (" ---> Using cache\n" if progress.cached else "")
            case StepRunning():
                return f" ---> Running in {progress.step_id[:SHORT_ID_CHARACTERS]}\n"
            case StepOutput():
                if not progress.errors:
                    return self._output.decode(progress.data)
                return _red(self._errors.decode(progress.data))
            case StepDone():
                rest = self._errors.decode(b"", final=True)
                return self._output.decode(b"", final=True) + _red(rest)
            case _:
                return _of_the_whole(progress)


def _red(text: str) -> str:
    return f"{RED}{text}{PLAIN}" if text else ""


def _of_the_whole(progress: OfTheWhole) -> str:
    match progress:
        case BuildWarning():
            return f"[Warning] {progress.message}\n"
        case ImageBuilt():
            return f"Successfully built {progress.image.removeprefix('sha256:')[:SHORT_ID_CHARACTERS]}\n"
        case Tagged():
            return f"Successfully tagged {progress.reference}\n"
        case _:
            assert_never(progress)

"""The words of the classic builder."""

from __future__ import annotations

from supervisor.build.progress import (
    BuildWarning,
    ClassicText,
    ImageBuilt,
    StepDone,
    StepOutput,
    StepRunning,
    StepStarted,
    Tagged,
)


def test_a_build_as_docker_words_it() -> None:
    text = ClassicText()
    told = [
        text.render(progress)
        for progress in (
            BuildWarning("unwise"),
            StepStarted(1, 3, "FROM a"),
            StepDone(1),
            StepStarted(2, 3, "RUN <<E\nx\nE"),
            StepRunning(2, "0123456789abcdef"),
            StepOutput(2, "grün".encode()[:3]),
            StepOutput(2, "grün".encode()[3:] + b"\n"),
            StepOutput(2, b"bad\n", errors=True),
            StepOutput(2, b"\xff"),
            StepDone(2),
            StepStarted(3, 3, "CMD x", cached=True),
            ImageBuilt("sha256:" + "ab" * 32),
            Tagged("a:b"),
        )
    ]
    assert "".join(told) == (
        "[Warning] unwise\nStep 1/3 : FROM a\nStep 2/3 : RUN <<E\n ---> Running in 0123456789ab\ngrün\n\x1b[91mbad\n\x1b[0m\ufffd"
        "Step 3/3 : CMD x\n ---> Using cache\nSuccessfully built abababababab\nSuccessfully tagged a:b\n"
    )

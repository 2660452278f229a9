"""What runtimes say when a command cannot be executed, and the codes the docker command makes of our words."""

from __future__ import annotations

import pytest

from supervisor.errors import Internal, InvalidArgument
from supervisor.runtime.complaints import exec_failure, reworded, start_failure

CRUN_MISSING = "executable file `nosuch` not found in $PATH: No such file or directory"
RUNC_MISSING = 'exec: "nosuch": executable file not found in $PATH: unknown'
NOT_FOUND = 'exec: "nosuch": executable file not found in $PATH'


@pytest.mark.parametrize(
    ("complaint", "words", "code"),
    [
        (CRUN_MISSING, NOT_FOUND, 127),
        (RUNC_MISSING, NOT_FOUND, 127),
        ("open executable: Operation not permitted", "permission denied", 126),
        ('exec: "/etc": permission denied', "permission denied", 126),
        ("exec /a.sh: exec format error", "permission denied", 126),
        ("chdir `/nope`: No such file or directory", "chdir `/nope`", 0),
    ],
)
def test_complaints_in_words_docker_understands(complaint: str, words: str, code: int) -> None:
    text, meant = reworded(complaint)
    assert words in text
    assert meant == code


def test_what_did_not_start_is_named_once() -> None:
    told = start_failure("web", Internal(CRUN_MISSING))
    assert told.message == f"cannot start container web: {NOT_FOUND}"
    assert isinstance(told, InvalidArgument), "the caller's command is wrong, not the daemon"
    known = Internal("cannot mount /x: it is gone")
    assert start_failure("web", known) is known


@pytest.mark.parametrize(
    "complaint",
    [
        "write to /proc/sys/net/core/somaxconn: Invalid argument",
        "open `/proc/sys/net/core/nothing`: No such file or directory",
        "mount `tmpfs` to `t`: Invalid argument",
        "error during container init: write /proc/sys/net/core/somaxconn: invalid argument",
        "mount `/run/x/mounts/0` to `tmp`: Not a directory",
        'error mounting "/run/x/mounts/0" to rootfs at "/tmp": mount /a:/tmp: not a directory',
        'error mounting "tmpfs" to rootfs at "/t": mount tmpfs:/t: invalid argument',
    ],
)
def test_a_value_the_kernel_refuses_is_the_requests_fault(complaint: str) -> None:
    assert isinstance(start_failure("web", Internal(complaint)), InvalidArgument)


def test_an_exec_that_cannot_run_is_126_unless_nothing_was_found() -> None:
    failure, code = exec_failure("web", Internal(CRUN_MISSING))
    assert (failure.message, code) == (f"cannot execute in container web: {NOT_FOUND}", 127)
    assert exec_failure("web", Internal("capset: Operation not permitted"))[1] == 126

"""What a runtime says when it cannot start something, in the words Docker's clients know; pure.

The docker command tells 126 and 127 from the text alone, so the two ways a command cannot be executed have Docker's wording
whatever runtime complained.
"""

from __future__ import annotations

import re

from supervisor.errors import BakehouseError, InvalidArgument

NOT_FOUND_CODE, NOT_EXECUTABLE_CODE = 127, 126

_NOT_FOUND = (
    re.compile(r"executable file `(?P<name>[^`]*)` not found"),  # crun
    re.compile(r"open executable: No such file or directory(?P<name>)"),
    re.compile(
        r'exec: "(?P<name>[^"]*)": (executable file not found|stat .* no such file)'
    ),  # runc
)
_NOT_EXECUTABLE = re.compile(
    r"permission denied|is a directory|exec format error|open executable", re.IGNORECASE
)
_ASKED_FOR = re.compile(
    r"(write( to)?|open) `?/proc/sys/|write sysctl|mount(ing)? [`\"]tmpfs[`\"].*invalid argument"
    r"|mount(ing)? .*not a directory",
    re.IGNORECASE,
)
"""A value that only the kernel could judge, and did; a directory mounted over a file, or a file over one."""


def start_failure(name: str, error: BakehouseError) -> BakehouseError:
    """Why the container ``name`` did not start, as its client is told."""
    if error.message.startswith("cannot "):
        return error
    text, code = reworded(error.message)
    kind = InvalidArgument if code or _ASKED_FOR.search(text) else type(error)
    return kind(f"cannot start container {name}: {text}", error.hint, error.faults)


def exec_failure(name: str, error: BakehouseError) -> tuple[BakehouseError, int]:
    """Why a command did not start in the running container ``name``, and its exit code: 126 if it could be found."""
    text, code = reworded(error.message)
    if not text.startswith("cannot "):
        text = f"cannot execute in container {name}: {text}"
    return type(error)(text, error.hint, error.faults), code or NOT_EXECUTABLE_CODE


def reworded(complaint: str) -> tuple[str, int]:
    """The complaint in Docker's wording, and the exit code it means; 0 where it is about something else."""
    for pattern in _NOT_FOUND:
        if found := pattern.search(complaint):
            return f'exec: "{found["name"]}": executable file not found in $PATH', NOT_FOUND_CODE
    if _NOT_EXECUTABLE.search(complaint):
        return f"exec: permission denied: {complaint}", NOT_EXECUTABLE_CODE
    return complaint, 0

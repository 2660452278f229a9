"""Reading and writing the kernel's cgroup files, and walking the directories that are the groups.

Rules: a group may go at any moment. What reads therefore has a value for "gone", and what must have the group lets
``OSError`` pass for the caller to word.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

READ_BYTES = 65_536
_V1_NO_LIMIT = 1 << 62  # v1 says "not limited" as the largest multiple of a page below 2^63


def text(path: Path) -> str:
    """What the file says; nothing if it is gone or the kernel does not serve it.

    With plain system calls, which take a third of ``read_text``'s time: a sample reads two dozen files a group.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        said = b""
        while part := os.read(fd, READ_BYTES):
            said += part
        return said.decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def number(path: Path) -> int:
    """The number in the file; 0 if it is gone, says nothing or ``max``."""
    return limit(path) or 0


def limit(path: Path) -> int | None:
    """The limit in the file; ``None`` if there is none."""
    word = text(path).strip()
    if not word.lstrip("-").isdigit():
        return None
    value = int(word)
    return None if value < 0 or value >= _V1_NO_LIMIT else value


def table(path: Path) -> dict[str, int]:
    """A file of ``key value`` lines; empty if it is gone."""
    pairs = (line.split() for line in text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}  # noqa: PLR2004 - a pair


def names(path: Path, key: str) -> bool:
    """Whether a line of the file begins with ``key``; none does if it is gone."""
    return any(line.split(None, 1)[:1] == [key] for line in text(path).splitlines())


def write(path: Path, value: object) -> None:
    """Write in one call, as the kernel wants it; never make the file."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)


def offers(path: Path, value: object) -> bool:
    """Write if the kernel has such a file; whether it has."""
    try:
        write(path, value)
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise
        return False
    return True


def make(path: Path) -> bool:
    """The directory is there; whether this made it. Its parent must be there."""
    try:
        path.mkdir(mode=0o755)
    except FileExistsError:
        return False
    return True


def below(path: Path) -> list[str]:
    """Names of the groups right below; none if it is gone."""
    try:
        with os.scandir(path) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []


def walk(path: Path) -> Iterator[Path]:
    """The group and all below it, the deepest first."""
    for name in below(path):
        yield from walk(path / name)
    yield path


def processes(path: Path) -> set[int]:
    """All processes in the group and below; those of foreign PID namespaces (shown as 0) cannot be told."""
    found = {int(word) for group in walk(path) for word in text(group / "cgroup.procs").split()}
    return found - {0}


def remove(path: Path) -> bool:
    """Remove the group and all below; ``False`` when something still lives there."""
    gone = True
    for group in walk(path):
        try:
            group.rmdir()
        except FileNotFoundError:
            continue
        except OSError:  # EBUSY: processes, or a group made in this moment
            gone = False
    return gone


def remove_one(path: Path) -> bool:
    """Remove the group itself; ``False`` when anything is in it, another group too."""
    try:
        path.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def kill_processes(members: Callable[[], set[int]]) -> int:
    """SIGKILL to all of ``members``, and how many that were.

    A number alone may be somebody else's by now: each is held by a pidfd first, and must still be a member then.
    """
    held: dict[int, int] = {}
    try:
        for pid in members():
            with contextlib.suppress(OSError):
                held[pid] = os.pidfd_open(pid)
        if not held:
            return 0
        for pid in members() & held.keys():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(held[pid], signal.SIGKILL)
        return len(held)
    finally:
        for fd in held.values():
            os.close(fd)

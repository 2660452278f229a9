"""What the spawner does on request, besides starting commands.

Words: an *errand* is a function run in the spawner's process, inside the daemon's mount namespace (M); a *forked* one
runs in a child of its own, so that it may block, change credentials or enter namespaces.

Rules: standard library, ``syscall``, ``beneath`` and ``spawner_wire`` only: the spawner's interpreter sees no installed
packages and must stay small. An expected failure is an ``OSError``; anything else is a bug and crashes the daemon.
Errands that are not forked leave working directory, namespaces and credentials as they found them.
A forked errand leads a process group of its own, which is killed when the request is cancelled.

Every module in this package registers its errands with :func:`errand`; :func:`load` imports them all.
"""

from __future__ import annotations

import errno
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.linux.spawner_wire import JSON


@dataclass
class Surroundings:
    """Where the spawner stands.

    Attributes:
        run_root: The daemon's run directory.
        host_mounts_fd: The host's mount namespace.
        own_mounts_fd: The daemon's own, M.
        user_namespaces: Kept for idmapped views, by map text.
    """

    run_root: Path
    host_mounts_fd: int
    own_mounts_fd: int
    user_namespaces: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Done:
    """An errand's result: a value, and fds that are passed on and then closed here."""

    value: JSON = None
    fds: tuple[int, ...] = ()


Arguments = dict[str, JSON]
Work = Callable[[Arguments, Sequence[int], Surroundings], Done]


@dataclass(frozen=True)
class Errand:
    """One entry of the table."""

    work: Work
    forked: bool


ERRANDS: dict[str, Errand] = {}


def errand(name: str, *, forked: bool = False) -> Callable[[Work], Work]:
    """Register a function under ``name``."""

    def register(work: Work) -> Work:
        ERRANDS[name] = Errand(work, forked)
        return work

    return register


def load() -> None:
    """Import every module of this package, once, when the spawner starts."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def text(arguments: Arguments, key: str) -> str:
    """A string argument without NUL."""
    value = arguments[key]
    if not isinstance(value, str):
        message = f"{key} is not a string"
        raise TypeError(message)
    if "\0" in value:
        raise OSError(errno.EINVAL, "the path holds a NUL byte")
    return value


def flag(arguments: Arguments, key: str) -> bool:
    """A yes or no; absent is no."""
    return arguments.get(key) is True


def number(arguments: Arguments, key: str) -> int:
    """An integer argument."""
    value = arguments[key]
    if not isinstance(value, int):
        message = f"{key} is not a number"
        raise TypeError(message)
    return value


def texts(arguments: Arguments, key: str) -> list[str]:
    """A list of strings."""
    value = arguments.get(key, [])
    if not isinstance(value, list):
        message = f"{key} is not a list"
        raise TypeError(message)
    return [str(one) for one in value]


def numbers(arguments: Arguments, key: str) -> list[int]:
    """A list of integers."""
    value = arguments.get(key, [])
    if not isinstance(value, list):
        message = f"{key} is not a list"
        raise TypeError(message)
    return [one for one in value if isinstance(one, int)]

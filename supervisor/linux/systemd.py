"""What a service manager hands over when it starts us, and what it is told: sd_listen_fds(3), sd_notify(3).

Words: the *service manager* is systemd, or whoever speaks its protocol; *activated* sockets were made by it, and listened
on before we were started.

Rules: what it passed is ours alone: :func:`take_over` removes the variables and makes the descriptors close on exec, so
that neither the spawner nor any child finds them. Without a service manager nothing here does anything.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import time
from collections.abc import MutableMapping
from pathlib import Path

import attrs

from supervisor.errors import InvalidArgument, Unavailable

FIRST_FD = 3
SOCKETS_MAX = 64
WAIT_SECONDS_MAX = 1.0
MICROSECONDS = 1_000_000
_ADDRESS_BYTES_MAX = 107  # sun_path of unix(7), without its final 0
_VARIABLES = (
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "NOTIFY_SOCKET",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    "JOURNAL_STREAM",
    "INVOCATION_ID",
)

log = logging.getLogger(__name__)


@attrs.define(eq=False)
class ServiceManager:
    """Whoever started us, as far as it wants to be told.

    Attributes:
        sockets: The activated ones, by the names its unit gives them; in its order.
        watchdog_seconds: It ends us when it hears nothing of us for that long; 0 when it does not.
        journal: The standard error we were given is the journal's.
        unit: It started us as a unit, in whatever surroundings that has.
    """

    sockets: tuple[tuple[str, socket.socket], ...] = ()
    watchdog_seconds: float = 0.0
    journal: bool = False
    unit: bool = False
    _address: str | bytes | None = None
    _silent: bool = False

    @property
    def listens(self) -> bool:
        """Whether anybody is told anything."""
        return self._address is not None

    def tell(self, **said: str | int) -> None:
        """Send assignments such as ``READY=1`` and ``STATUS=…`` in one message.

        A service manager that is behind is waited for, as sd_notify(3) does, but only for a moment and not again
        before it hears. That it does not is logged once: it draws its own conclusions.
        """
        if self._address is None:
            return
        text = "\n".join(f"{name}={_one_line(value)}" for name, value in said.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as speaking:
                speaking.settimeout(0 if self._silent else WAIT_SECONDS_MAX)
                speaking.sendto(text.encode(errors="replace"), self._address)
        except OSError as error:
            if not self._silent:
                log.warning("cannot tell the service manager: %s", error)
            self._silent = True
        else:
            self._silent = False

    def status(self, text: str) -> None:
        """Say in one line what we do."""
        self.tell(STATUS=text)

    def starting(self, text: str, extend_seconds: float) -> None:
        """The same while starting or stopping takes its time: do not lose patience before ``extend_seconds``."""
        self.tell(STATUS=text, EXTEND_TIMEOUT_USEC=int(extend_seconds * MICROSECONDS))

    def ready(self, text: str) -> None:
        """Everything is open; also after :meth:`reloading`."""
        self.tell(READY=1, STATUS=text)

    def reloading(self) -> None:
        """The settings are being read again; :meth:`ready` says when that is over."""
        self.tell(
            RELOADING=1,
            MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1_000,
            STATUS="reading the settings again",
        )

    def stopping(self, text: str) -> None:
        """The end has begun."""
        self.tell(STOPPING=1, STATUS=text)

    def alive(self) -> None:
        """Feed the watchdog."""
        self.tell(WATCHDOG=1)


NOBODY = ServiceManager()
"""We were started by hand."""


def take_over(environ: MutableMapping[str, str]) -> ServiceManager:
    """What the service manager that started this process passed to it, taken out of ``environ``.

    Raises:
        InvalidArgument: It passed something we cannot listen on, or an address nobody can have.
    """
    said = {name: environ.pop(name, "") for name in _VARIABLES}
    for_us = said["LISTEN_PID"] == str(os.getpid())
    watched = said["WATCHDOG_PID"] in {"", str(os.getpid())}
    return ServiceManager(
        sockets=_sockets(said["LISTEN_FDS"], said["LISTEN_FDNAMES"]) if for_us else (),
        watchdog_seconds=_count(said["WATCHDOG_USEC"]) / MICROSECONDS if watched else 0.0,
        journal=is_journal(said["JOURNAL_STREAM"], fd=2),
        unit=bool(said["INVOCATION_ID"]),
        address=_address(said["NOTIFY_SOCKET"]),
    )


def check_mounts(manager: ServiceManager, process: Path = Path("/proc/1")) -> None:
    """Refuse a unit with a mount namespace of its own.

    Such a namespace goes with each daemon, and in it the way back to the containers' root file systems: the next daemon
    would find containers that run, and nothing of what they stand on.

    Args:
        manager: Who started us.
        process: One that has the host's mounts.

    Raises:
        Unavailable: It has one.
    """
    if not manager.unit:
        return
    own, hosts = (Path(each, "ns/mnt").stat() for each in ("/proc/self", process))
    if (own.st_dev, own.st_ino) != (hosts.st_dev, hosts.st_ino):
        raise Unavailable(
            "cannot start bakehoused: its unit has a mount namespace of its own, which would end with it",
            hint="leave PrivateTmp=, PrivateMounts=, ProtectSystem=, ProtectHome=, ReadOnlyPaths= and the like "
            "out of bakehouse.service",
        )


def is_journal(told: str, fd: int) -> bool:
    """Whether ``fd`` is the stream ``JOURNAL_STREAM`` told of, and not one it was led to since (systemd.exec(5))."""
    with contextlib.suppress(OSError):
        here = os.fstat(fd)
        return told == f"{here.st_dev}:{here.st_ino}"
    return False


def _sockets(count: str, names: str) -> tuple[tuple[str, socket.socket], ...]:
    """The passed descriptors, all of which must be listening Unix stream sockets: only there we are told who speaks."""
    named = names.split(":") if names else []
    passed = range(FIRST_FD, FIRST_FD + min(_count(count), SOCKETS_MAX))
    for fd in passed:
        os.set_inheritable(fd, False)
    return tuple(
        (named[fd - FIRST_FD] if fd - FIRST_FD < len(named) else "unknown", _listening(fd))
        for fd in passed
    )


def _listening(fd: int) -> socket.socket:
    refusal = InvalidArgument(
        f"cannot listen on descriptor {fd}, which the service manager passed: "
        "it is no listening Unix stream socket",
        hint="ListenStream=/run/bakehouse/bakehouse.sock",
    )
    try:
        made = socket.socket(fileno=fd)
        listens = made.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise refusal from error
    if made.family != socket.AF_UNIX or made.type != socket.SOCK_STREAM or not listens:
        raise refusal
    return made


def _address(told: str) -> str | bytes | None:
    """``/path``, or ``@name`` for an abstract one; others (``vsock:``) are for those in virtual machines."""
    if not told:
        return None
    if told[0] not in "/@" or len(told.encode()) > _ADDRESS_BYTES_MAX:
        raise InvalidArgument(f"cannot tell the service manager at {told}: no such address")
    return told if told[0] == "/" else b"\0" + told[1:].encode()


def _count(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _one_line(value: str | int) -> str:
    return " ".join(str(value).split())

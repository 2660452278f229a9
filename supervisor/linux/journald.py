"""Logging to systemd's journal with fields of its own, by its native protocol.

Rules: a field's name is upper-case letters, digits and ``_``; a value with a line break goes with its length, so that
nothing somebody chose (the name of a container, the message of a build) can pass for a field. What the journal does not
take is written to standard error, which is the journal, too. See ``JOURNAL_NATIVE_PROTOCOL.md`` and
systemd.journal-fields(7).
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path

from typing_extensions import override

SOCKET = Path("/run/systemd/journal/socket")
IDENTIFIER = "bakehoused"
FIELDS = "journal_fields"
"""Name of the attribute of a log record that holds further fields: ``extra={FIELDS: {"BAKEHOUSE_OWNER": "1000"}}``."""

VALUE_BYTES_MAX = 65_536
"""A datagram takes some 200 kB; a longer traceback loses its beginning."""

_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG = 7


def encode(fields: Mapping[str, str]) -> bytes:
    """One entry as it goes over the wire; pure."""
    parts: list[bytes] = []
    for name, value in fields.items():
        data = value.encode(errors="replace")[-VALUE_BYTES_MAX:]
        if b"\n" in data:
            parts += [name.encode(), b"\n", struct.pack("<Q", len(data)), data, b"\n"]
        else:
            parts += [name.encode(), b"=", data, b"\n"]
    return b"".join(parts)


def priority(level: int) -> int:
    """syslog(3)'s for a level of Python's; pure."""
    return next((number for least, number in _PRIORITIES if level >= least), _DEBUG)


class JournalHandler(logging.Handler):
    """Sends log records to the journal at ``path``."""

    def __init__(self, path: Path = SOCKET) -> None:
        super().__init__()
        # The level and the logger have fields; without one of its own, logging.basicConfig() gives it a format with both.
        self.setFormatter(logging.Formatter("%(message)s"))
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)

    @override
    def emit(self, record: logging.LogRecord) -> None:
        message = self.format(record)
        fields = {
            "MESSAGE": message,
            "PRIORITY": str(priority(record.levelno)),
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "LOGGER": record.name,
            "CODE_FILE": record.pathname,
            "CODE_LINE": str(record.lineno),
            "CODE_FUNC": record.funcName or "",
            **getattr(record, FIELDS, {}),
        }
        try:
            self._socket.sendto(encode(fields), self._path)
        except OSError:
            sys.stderr.write(f"<{priority(record.levelno)}>{message}\n")

    @override
    def close(self) -> None:
        self._socket.close()
        super().close()

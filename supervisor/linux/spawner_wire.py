"""What the daemon and its spawner say to each other: one JSON object per packet, with fds.

Words: a *request* ``{id, errand, arguments}`` gets one *answer* ``{id, value}`` or ``{id, error}``; ``{cancel: id}``
ends a request's child early; ``{ended: id, status}`` tells that a spawned command has ended.

Rules: standard library only (the spawner's process imports it); a large message travels in a memfd, the first of the
packet's fds; paths keep their bytes through ``surrogateescape``.
"""

from __future__ import annotations

import array
import json
import os
import socket
from collections.abc import Sequence
from typing import TypeAlias

JSON: TypeAlias = "bool | int | float | str | list[JSON] | dict[str, JSON] | None"
Message: TypeAlias = dict[str, JSON]

PACKET_BYTES_MAX = 65_536
MESSAGE_BYTES_MAX = 8_388_608
FDS_MAX = 250  # SCM_MAX_FD is 253; one may be the memfd
ANCILLARY_BYTES = socket.CMSG_SPACE((FDS_MAX + 1) * array.array("i").itemsize)
RECEIVE_FLAGS = socket.MSG_CMSG_CLOEXEC
_IN_MEMFD = b"*"


def pack(message: Message) -> tuple[bytes, int | None]:
    """The packet's bytes, and the memfd that holds the message if it is large (the caller closes it).

    Raises:
        ValueError: The message is longer than ``MESSAGE_BYTES_MAX``.
    """
    content = json.dumps(message, separators=(",", ":")).encode()
    if len(content) <= PACKET_BYTES_MAX:
        return content, None
    if len(content) > MESSAGE_BYTES_MAX:
        text = f"a message of {len(content)} bytes is more than {MESSAGE_BYTES_MAX}"
        raise ValueError(text)
    memfd = os.memfd_create("bakehouse-message", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(memfd), "wb") as file:
        file.write(content)
    return _IN_MEMFD, memfd


def unpack(packet: bytes, fds: list[int]) -> Message:
    """The inverse of :func:`pack`; takes the memfd out of ``fds`` and closes it."""
    if packet == _IN_MEMFD:
        memfd = fds.pop(0)
        with os.fdopen(memfd, "rb") as file:
            file.seek(0)
            packet = file.read(MESSAGE_BYTES_MAX + 1)
    message = json.loads(packet)
    if not isinstance(message, dict):
        text = "a message is an object"
        raise TypeError(text)
    return message


def ancillary(fds: Sequence[int]) -> list[tuple[int, int, array.array[int]]]:
    """The control message that passes ``fds``; none when there are none."""
    if len(fds) > FDS_MAX + 1:
        text = f"{len(fds)} file descriptors are more than {FDS_MAX}"
        raise ValueError(text)
    if not fds:
        return []
    return [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]


def received_fds(control: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The fds of a received packet; they are the receiver's to close."""
    fds: list[int] = []
    for level, kind, content in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            numbers = array.array("i")
            numbers.frombytes(content[: len(content) - len(content) % numbers.itemsize])
            fds.extend(numbers)
    return fds


def send(control: socket.socket, message: Message, fds: Sequence[int] = ()) -> None:
    """Send one message and wait until it is gone (the spawner's side; the daemon's is trio's)."""
    packet, memfd = pack(message | {"fds": len(fds)})
    try:
        passed = fds if memfd is None else [memfd, *fds]
        control.sendmsg([packet], ancillary(passed))
    finally:
        if memfd is not None:
            os.close(memfd)


def receive(control: socket.socket) -> tuple[Message, list[int]] | None:
    """Wait for one message; None when the other side has gone."""
    packet, received, _, _ = control.recvmsg(PACKET_BYTES_MAX, ANCILLARY_BYTES, RECEIVE_FLAGS)
    fds = received_fds(received)
    if not packet:
        return None
    return unpack(packet, fds), fds


def complete(message: Message, fds: list[int]) -> bool:
    """Whether all fds of ``message`` arrived; the kernel drops them when the receiver may hold no more.

    When not, those that did arrive are closed.
    """
    if message.get("fds", 0) == len(fds):
        return True
    while fds:
        os.close(fds.pop())
    return False

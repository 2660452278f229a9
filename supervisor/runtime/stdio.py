"""The forms a container's stdio has on its way to a client; pure.

Words: a *packet* is what conmon's attach socket carries (first byte 2: stdout, 3: stderr); a *frame* is Docker's
multiplexed form (stream, three zeros, big-endian length, bytes); *detach keys* are the keystrokes by which a person at a
terminal leaves without ending anything.
"""

from __future__ import annotations

import struct

from supervisor.errors import InvalidArgument

STDIN, STDOUT, STDERR = 0, 1, 2
PACKET_STREAMS = {2: STDOUT, 3: STDERR}
_FRAME = struct.Struct(">BxxxI")
DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"
_CONTROL_KEYS = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def frame(stream: int, data: bytes) -> bytes:
    """Docker's multiplexed form of ``data``."""
    return frame_head(stream, len(data)) + data


def frame_head(stream: int, length: int) -> bytes:
    """What goes before so many bytes in that form."""
    return _FRAME.pack(stream, length)


def split_packet(packet: bytes) -> tuple[int, bytes]:
    """(stream, bytes) of one packet of conmon's."""
    return PACKET_STREAMS.get(packet[0], STDOUT), packet[1:]


def parse_detach_keys(text: str) -> bytes:
    r"""The bytes of ``ctrl-p,ctrl-q`` and the like; empty text means the default.

    Raises:
        InvalidArgument: A key that is neither one character nor ``ctrl-`` with a letter or ``@[\\]^_``.
    """
    return bytes(_key(word) for word in (text or DEFAULT_DETACH_KEYS).split(","))


def _key(word: str) -> int:
    if len(word) == 1 and word.isascii():
        return ord(word)
    control = word.removeprefix("ctrl-")
    if word.startswith("ctrl-") and len(control) == 1:
        if control.isascii() and control.isalpha():
            return ord(control.lower()) - ord("a") + 1
        if control in _CONTROL_KEYS:
            return _CONTROL_KEYS[control]
    raise InvalidArgument(
        f"cannot use the detach keys: {word!r} is no key",
        hint="for example ctrl-p,ctrl-q or ctrl-a,d",
    )


class DetachWatch:
    """Looks for the detach keys in what a person types; keys of a sequence not completed go through."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._seen = 0

    def feed(self, typed: bytes) -> tuple[bytes, bool]:
        """(what goes through, whether the person leaves); what stands behind the keys is dropped."""
        through = bytearray()
        for byte in typed:
            if byte == self._keys[self._seen]:
                self._seen += 1
                if self._seen == len(self._keys):
                    return bytes(through), True
                continue
            through += self._keys[: self._seen]
            self._seen = 1 if byte == self._keys[0] else 0
            if not self._seen:
                through.append(byte)
        return bytes(through), False

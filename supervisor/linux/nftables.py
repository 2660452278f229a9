"""Packet filter rules, through libnftables.

libnftables is what ``nft`` itself is made of; in the process it adds an element in 0.08 ms, where starting ``nft`` costs
3 ms and more with every element there is.

Rules:

* One call of :meth:`Nftables.apply` is one transaction: all of it holds, or nothing.
* Scripts are nft's own language, not its JSON: libnftables 1.0.6 crashes on a JSON map whose values are concatenations
  (and with it would the daemon), and people can read the script.
* Scripts are made by pure builders from numbers, addresses and names of our own; nothing a user wrote goes into one.
* A context is used by one thread at a time.

libnftables(3), nft(8).
"""

from __future__ import annotations

import ctypes
import errno
import json
import socket
import struct
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager

import trio

from supervisor.errors import Internal, Unavailable
from supervisor.linux import libnftables
from supervisor.tasks import in_thread


class NftablesRefused(Internal):
    """nft refused a script; nothing of it holds.

    Attributes:
        missing: It spoke of a table, set or element that is not there.
        said: nft's words.
    """

    def __init__(self, message: str, said: str) -> None:
        super().__init__(message)
        self.said = said
        self.missing = "No such file or directory" in said


class Nftables:
    """One libnftables context."""

    def __init__(self, library: ctypes.CDLL, context: int) -> None:
        self._library = library
        self._context = context
        self._one_thread = trio.CapacityLimiter(1)

    async def apply(self, script: str) -> None:
        """Run a script as one transaction.

        Raises:
            NftablesRefused: With nft's words.
        """
        await in_thread(lambda: self._run(script, 0), self._one_thread)

    async def listing(self, command: str) -> list[dict[str, dict[str, object]]]:
        """What a ``list …`` command shows: nft's JSON, one ``{kind: attributes}`` for each object.

        Raises:
            NftablesRefused: With nft's words; ``missing`` when there is no such thing.
        """
        text = await in_thread(
            lambda: self._run(command, libnftables.OUTPUT_JSON), self._one_thread
        )
        objects: list[dict[str, dict[str, object]]] = json.loads(text)["nftables"] if text else []
        return [item for item in objects if "metainfo" not in item]

    async def has_table(self, family: str, name: str) -> bool:
        """Whether a table is there."""
        wanted = (family, name)
        return any(
            (item["table"].get("family"), item["table"].get("name")) == wanted
            for item in await self.listing(f"list tables {family}")
            if "table" in item
        )

    def _run(self, script: str, flags: int) -> str:
        self._library.nft_ctx_output_set_flags(self._context, flags)
        failed = self._library.nft_run_cmd_from_buffer(self._context, script.encode())
        output: bytes = self._library.nft_ctx_get_output_buffer(self._context)
        errors: bytes = self._library.nft_ctx_get_error_buffer(self._context)
        if failed:
            said = errors.decode(errors="replace").strip()
            first = said.partition("\n")[0] or "no reason given"
            message = f"cannot change the packet filter: {first}"
            raise NftablesRefused(message, said)
        return output.decode(errors="replace")


@asynccontextmanager
async def open_nftables() -> AsyncIterator[Nftables]:
    """A context of libnftables, freed at the end.

    Raises:
        Unavailable: The library is not installed.
    """
    library = await in_thread(_load)
    context = library.nft_ctx_new(0)
    library.nft_ctx_buffer_output(context)
    library.nft_ctx_buffer_error(context)
    try:
        yield Nftables(library, context)
    finally:
        library.nft_ctx_free(context)


def _load() -> ctypes.CDLL:
    try:
        return libnftables.load()
    except OSError as error:
        message = f"cannot use nftables: {error}"
        raise Unavailable(message, "install libnftables1 (Debian, Ubuntu) or nftables") from error


_NETLINK_NETFILTER = 12
_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES = 270, 1, 7
_HEADER = struct.Struct("=IHHII")
_SUBSYSTEM = 10 << 8
_TELLING = frozenset({_SUBSYSTEM | message for message in (2, 3, 5, 8)})
"""NFT_MSG_DELTABLE, NEWCHAIN, DELCHAIN, DELRULE: how things of others appear, and things of ours vanish."""


class Changes:
    """Tells when somebody takes away tables, chains or rules, or makes chains; ours included.

    linux/netfilter/nf_tables.h, nfnetlink group NFNLGRP_NFTABLES.
    """

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        raw = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        raw.bind((0, 0))  # a socket without an address of its own is told nothing
        raw.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
        self._sock = trio.socket.from_stdlib_socket(raw)

    def close(self) -> None:
        """Close the socket; more than once is fine."""
        self._sock.close()

    async def wait(self, names: Collection[str]) -> None:
        """Return after such a change to a table or chain of one of these names, or when one may have been missed."""
        wanted = [name.encode() + b"\0" for name in names]
        while True:
            try:
                data = await self._sock.recv(_CHANGE_BYTES)
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                return
            if any(name in payload for payload in _told(data) for name in wanted):
                return


_CHANGE_BYTES = 65_536


def _told(data: bytes) -> Iterator[bytes]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if kind in _TELLING:
            yield data[offset + _HEADER.size : offset + length]
        offset += (max(length, _HEADER.size) + 3) & ~3

"""A detour inside a container's network namespace: what it sends to one address and port arrives at others.

It is a table of the packet filter there with nothing but these rules, written as one nfnetlink batch over a socket that
lives in the namespace: starting ``nft`` there would cost more than all the rest of a container's network.

linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address

import attrs

from supervisor.errors import Internal
from supervisor.tasks import in_thread

TABLE, CHAIN = b"names\0", b"sent\0"

_NLMSG = struct.Struct("=IHHII")
_NUMBER = struct.Struct("=i")
_NFGEN = struct.Struct("!BBH")
_REQUEST, _ACK, _CREATE, _APPEND = 0x1, 0x4, 0x400, 0x800
_NLMSG_ERROR = 2
_BATCH_BEGIN, _BATCH_END, _SUBSYSTEM = 0x10, 0x11, 10
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = (_SUBSYSTEM << 8 | number for number in (0, 2, 3, 6))
_IPV4, _LOCAL_OUT, _PRIORITY_DNAT = 2, 3, -100
_NESTED = 0x8000
_RECEIVE_BYTES = 65_536
_KERNEL_SECONDS = 10.0
_REGISTER_ADDRESS, _REGISTER_PORT = 1, 2
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_DESTINATION_OFFSET, _PORT_OFFSET = 16, 2
_META_PROTOCOL, _DNAT = 16, 1
PROTOCOLS = {"tcp": socket.IPPROTO_TCP, "udp": socket.IPPROTO_UDP}


@attrs.frozen
class Detour:
    """``protocol`` (``tcp`` or ``udp``) sent to ``address`` and ``port`` arrives at the same address and ``arrives``."""

    protocol: str
    address: IPv4Address
    port: int
    arrives: int


async def lead(netfilter: socket.socket, detours: Sequence[Detour]) -> None:
    """Exactly these detours are there, in one transaction.

    Args:
        netfilter: A netfilter netlink socket that lives in the namespace; nobody else uses it.
        detours: What is to be there.

    Raises:
        Internal: The kernel refuses.
    """
    messages = list(_batch(detours))

    def apply() -> int:
        netfilter.settimeout(_KERNEL_SECONDS)
        netfilter.send(b"".join(messages))
        wanted, told = len(messages) - 2, list[int]()
        while len(told) < wanted and not any(told):
            told += _acknowledged(netfilter.recv(_RECEIVE_BYTES))
        return next(filter(None, told), 0)

    try:
        refused = await in_thread(apply)
    except OSError as failure:
        refused = failure.errno or 0
    if refused:
        raise Internal(f"cannot lead names to their server: {os.strerror(refused)}")


def _acknowledged(data: bytes) -> Iterator[int]:
    """The error numbers in acknowledgements; 0 for done."""
    offset = 0
    while offset + _NLMSG.size < len(data):
        length, kind, *_ = _NLMSG.unpack_from(data, offset)
        if kind == _NLMSG_ERROR:
            yield -_NUMBER.unpack_from(data, offset + _NLMSG.size)[0]
        offset += (length + 3) & ~3


def _batch(detours: Sequence[Detour]) -> Iterator[bytes]:
    table = _attribute(1, TABLE)
    hook = _nested(4, _attribute(1, _number(_LOCAL_OUT)), _attribute(2, _number(_PRIORITY_DNAT)))
    chain = b"".join((_attribute(1, TABLE), _attribute(3, CHAIN), hook, _attribute(7, b"nat\0")))
    yield _message(_BATCH_BEGIN, 0, b"", _SUBSYSTEM)
    yield _message(_NEWTABLE, _CREATE | _ACK, table)
    yield _message(_DELTABLE, _ACK, table)
    yield _message(_NEWTABLE, _CREATE | _ACK, table)
    yield _message(_NEWCHAIN, _CREATE | _ACK, chain)
    for detour in detours:
        yield _message(_NEWRULE, _CREATE | _APPEND | _ACK, _rule(detour))
    yield _message(_BATCH_END, 0, b"", _SUBSYSTEM)


def _rule(detour: Detour) -> bytes:
    """``ip daddr A <protocol> dport P dnat to A:arrives``, as the kernel's small machine runs it."""
    to = detour.address.packed
    expressions = (
        _load("payload", (2, _NETWORK_HEADER), (3, _DESTINATION_OFFSET), (4, len(to))),
        _compare(to),
        _load("meta", (2, _META_PROTOCOL)),
        _compare(bytes([PROTOCOLS[detour.protocol]])),
        _load("payload", (2, _TRANSPORT_HEADER), (3, _PORT_OFFSET), (4, 2)),
        _compare(detour.port.to_bytes(2, "big")),
        _immediate(_REGISTER_ADDRESS, to),
        _immediate(_REGISTER_PORT, detour.arrives.to_bytes(2, "big")),
        _expression(
            "nat",
            *(
                _attribute(kind, _number(value))
                for kind, value in (
                    (1, _DNAT),
                    (2, _IPV4),
                    (3, _REGISTER_ADDRESS),
                    (5, _REGISTER_PORT),
                )
            ),
        ),
    )
    return _attribute(1, TABLE) + _attribute(2, CHAIN) + _nested(4, *expressions)


def _load(name: str, *fields: tuple[int, int]) -> bytes:
    """Something of the packet goes into the first register."""
    where = ((1, _REGISTER_ADDRESS), *fields)
    return _expression(name, *(_attribute(kind, _number(value)) for kind, value in where))


def _compare(value: bytes) -> bytes:
    """The first register is that, or the rule ends here."""
    equal = _attribute(1, _number(_REGISTER_ADDRESS)) + _attribute(2, _number(0))
    return _expression("cmp", equal, _nested(3, _attribute(1, value)))


def _immediate(register: int, value: bytes) -> bytes:
    return _expression(
        "immediate", _attribute(1, _number(register)), _nested(2, _attribute(1, value))
    )


def _expression(name: str, *data: bytes) -> bytes:
    return _nested(1, _attribute(1, name.encode() + b"\0"), _nested(2, *data))


def _message(kind: int, flags: int, payload: bytes, resource: int = 0) -> bytes:
    body = _NFGEN.pack(0 if resource else _IPV4, 0, resource) + payload
    return _NLMSG.pack(_NLMSG.size + len(body), kind, flags | _REQUEST, 0, 0) + body


def _nested(kind: int, *inner: bytes) -> bytes:
    return _attribute(kind | _NESTED, b"".join(inner))


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _number(value: int) -> bytes:
    return struct.pack("!i", value)

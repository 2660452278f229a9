"""Trying the packet filter and links, in whatever network namespace this process is. Standard library only."""

from __future__ import annotations

import errno
import os
import socket
import struct

from supervisor.linux import libnftables

SCRIPT = """
table inet doctor {
  map ports { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 8000 : 10.208.0.2 . 80 }; }
  set bridges { type ifname; elements = { "bridge0" }; }
  chain prerouting {
    type nat hook prerouting priority dstnat;
    meta nfproto ipv4 dnat ip to meta l4proto . th dport map @ports
  }
  chain postrouting {
    type nat hook postrouting priority srcnat;
    iifname @bridges ct status dnat masquerade
  }
  chain forward { type filter hook forward priority filter; iifname @bridges ct state established,related accept; }
}
"""

_MESSAGE = struct.Struct("=IHHII")
_LINK = struct.Struct("=BxHiII")
_RTM_NEWLINK, _REQUEST, _ACK, _CREATE, _EXCLUSIVE = 16, 0x1, 0x4, 0x400, 0x200
_IFLA_IFNAME, _IFLA_LINKINFO, _INFO_KIND = 3, 18, 1
_RECEIVE_BYTES = 65_536


def apply(script: str, *, as_json: bool = False) -> str:
    """Let libnftables run a script; what it prints.

    Raises:
        OSError: It is not installed, or refuses: with its words.
    """
    library = libnftables.load()
    context = library.nft_ctx_new(0)
    try:
        library.nft_ctx_buffer_output(context)
        library.nft_ctx_buffer_error(context)
        library.nft_ctx_output_set_flags(context, libnftables.OUTPUT_JSON if as_json else 0)
        failed = library.nft_run_cmd_from_buffer(context, script.encode())
        output: bytes = library.nft_ctx_get_output_buffer(context)
        complaint: bytes = library.nft_ctx_get_error_buffer(context)
    finally:
        library.nft_ctx_free(context)
    if failed:
        first = complaint.decode(errors="replace").strip().partition("\n")[0]
        raise OSError(errno.EOPNOTSUPP, first or "nft gave no reason")
    return output.decode(errors="replace")


def add_link(kind: str, name: str) -> None:
    """Make a link; rtnetlink(7).

    Raises:
        OSError: The kernel has no such links.
    """
    info = _attribute(_IFLA_LINKINFO, _attribute(_INFO_KIND, kind.encode()))
    body = (
        _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
        + info
    )
    flags = _REQUEST | _ACK | _CREATE | _EXCLUSIVE
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as netlink:
        netlink.send(_MESSAGE.pack(_MESSAGE.size + len(body), _RTM_NEWLINK, flags, 1, 0) + body)
        answer = netlink.recv(_RECEIVE_BYTES)
    number = -struct.unpack_from("=i", answer, _MESSAGE.size)[0]
    if number:
        raise OSError(number, os.strerror(number), kind)


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)

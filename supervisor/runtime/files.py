"""The three small files every container gets of its own: hosts, hostname, resolv.conf; pure. See hosts(5), resolv.conf(5)."""

from __future__ import annotations

from collections.abc import Sequence

LOCAL_NAMES = (
    "127.0.0.1\tlocalhost",
    "::1\tlocalhost ip6-localhost ip6-loopback",
    "fe00::0\tip6-localnet",
    "ff00::0\tip6-mcastprefix",
    "ff02::1\tip6-allnodes",
    "ff02::2\tip6-allrouters",
)


HOST_GATEWAY = "host-gateway"
"""Stands for the host's address as the container reaches it."""


def hosts(hostname: str, addresses: Sequence[str], extra: Sequence[str], gateway: str = "") -> str:
    """``/etc/hosts``: the local names, what was asked for (``name:address``), and the container's own name.

    Without a ``gateway`` (it has no network) what asks for the host is left out.
    """
    lines = list(LOCAL_NAMES)
    for entry in extra:
        name, _, where = entry.partition(":")
        where = gateway if where == HOST_GATEWAY else where
        if where:
            lines.append(f"{where}\t{name}")
    lines += own_lines(hostname, addresses)
    return "\n".join(lines) + "\n"


def own_lines(hostname: str, addresses: Sequence[str]) -> list[str]:
    """What ``/etc/hosts`` says of the container itself."""
    return [f"{address}\t{hostname}" for address in addresses]


def changed_hosts(text: str, hostname: str, addresses: Sequence[str]) -> str:
    """``/etc/hosts`` of a container that has other addresses now; lines of other names stay as they are."""
    kept = [line for line in text.splitlines() if line.partition("\t")[2] != hostname]
    return "\n".join([*kept, *own_lines(hostname, addresses)]) + "\n"


def resolv_conf(nameservers: Sequence[str], search: Sequence[str], options: Sequence[str]) -> str:
    """``/etc/resolv.conf``."""
    lines = []
    if search:
        lines.append(f"search {' '.join(search)}")
    lines += [f"nameserver {nameserver}" for nameserver in nameservers]
    if options:
        lines.append(f"options {' '.join(options)}")
    return "\n".join(lines) + "\n" if lines else ""

"""Which name servers a container is told of, and which ours asks. Pure but for :func:`read`.

A container cannot reach the host's loopback, where many hosts have their resolver (systemd-resolved at 127.0.0.53).
So its first resolver is our forwarder at the bridge's gateway, which asks the host's from the host's own network; the
host's resolvers that are elsewhere stand behind it, for the moments in which the daemon is not there.

resolv.conf(5), systemd-resolved.service(8).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import attrs

HOST_FILE = Path("/etc/resolv.conf")
SYSTEMD_FILE = Path("/run/systemd/resolve/resolv.conf")
"""What systemd-resolved itself asks."""

NAMESERVERS_MAX = 3
"""MAXNS of resolv.h: a C library looks at no more."""


@attrs.frozen
class HostResolvers:
    """The host's resolvers.

    Attributes:
        upstream: Asked from the host's network; loopback ones are fine.
        direct: Those of them, or of systemd-resolved's, that can be asked from a container.
        search: Domains tried behind a short name.
        options: As in resolv.conf.
    """

    upstream: tuple[str, ...] = ()
    direct: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def told(self, gateway: str | None) -> tuple[str, ...]:
        """What a container behind ``gateway`` is told; None where no forwarder of ours is."""
        return (*([gateway] if gateway else []), *self.direct)[:NAMESERVERS_MAX]


def choose(host: str, systemd: str) -> HostResolvers:
    """The resolvers from the texts of ``/etc/resolv.conf`` and of systemd-resolved's own; either may be empty."""
    upstream = _nameservers(host)
    direct = [server for server in upstream if _reachable(server)]
    if not direct:
        direct = [server for server in _nameservers(systemd) if _reachable(server)]
    return HostResolvers(
        upstream=tuple(upstream or direct),
        direct=tuple(direct),
        search=tuple(_last(host, "search", "domain")),
        options=tuple(_last(host, "options")),
    )


def read(host: Path = HOST_FILE, systemd: Path = SYSTEMD_FILE) -> HostResolvers:
    """:func:`choose` on the files; one that cannot be read counts as empty. Blocks, shortly."""
    return choose(_text(host), _text(systemd))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _fields(text: str) -> list[list[str]]:
    lines = (line.strip() for line in text.splitlines())
    return [line.split() for line in lines if line and line[0] not in "#;"]


def _nameservers(text: str) -> list[str]:
    named = [fields[1] for fields in _fields(text) if fields[0] == "nameserver" and len(fields) > 1]
    return [server for server in named if _parsed(server) is not None]


def _last(text: str, *keywords: str) -> Sequence[str]:
    found = [fields[1:] for fields in _fields(text) if fields[0] in keywords]
    return found[-1] if found else ()


def _parsed(server: str) -> IPv4Address | IPv6Address | None:
    try:
        return ipaddress.ip_address(server.partition("%")[0])
    except ValueError:
        return None


def _reachable(server: str) -> bool:
    """Whether a container can ask it: it has IPv4 alone, and no way to the host's loopback."""
    parsed = _parsed(server)
    return isinstance(parsed, IPv4Address) and not parsed.is_loopback and not parsed.is_unspecified

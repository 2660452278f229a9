"""A container's own door to the name server: port 53 of 127.0.0.11 in its network namespace, as with Docker.

Programs and configurations know that address (``resolver 127.0.0.11``); it stays the same whatever networks the
container is on, no firewall or name server of the host is in the way, and nobody else can ask there. The server listens
at another port, and the container's queries are led to it: port 53 is free for a name server in the container.
"""

from __future__ import annotations

from contextlib import ExitStack
from ipaddress import IPv4Address
from pathlib import Path

from supervisor.linux import mounts
from supervisor.linux.detour import Detour, lead
from supervisor.linux.spawner import Spawner
from supervisor.network.dns import NameServer
from supervisor.network.dns_upstream import PORT

ADDRESS = IPv4Address("127.0.0.11")

LISTENS_AT = 31_053
"""Below the ports that programs are given, and registered for none."""


async def open_door(
    server: NameServer, spawner: Spawner, pin: Path, container_id: str, owner: int
) -> None:
    """The container is answered there from now on. Also again: after a restart of the daemon it has to be.

    Args:
        server: Answers.
        spawner: Enters the namespace.
        pin: Of its network namespace.
        container_id: Who asks there.
        owner: Whose bounds it is within.

    Raises:
        NotFound: No namespace is pinned there.
        Internal: The kernel refuses.
    """
    datagrams, listener, netfilter = await mounts.name_sockets(spawner, pin, ADDRESS, LISTENS_AT)
    with netfilter, ExitStack() as unless_opened:
        unless_opened.enter_context(datagrams)
        unless_opened.enter_context(listener)
        ports = {"udp": datagrams.getsockname()[1], "tcp": listener.getsockname()[1]}
        await lead(
            netfilter, [Detour(protocol, ADDRESS, PORT, ports[protocol]) for protocol in ports]
        )
        server.open_inside(container_id, owner, datagrams, listener)
        unless_opened.pop_all()

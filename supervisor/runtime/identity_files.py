"""``/etc/hosts``, ``hostname`` and ``resolv.conf``: each container has its own. See hosts(5), resolv.conf(5)."""

from __future__ import annotations

import os
from pathlib import Path

from supervisor.access.owners import Owner
from supervisor.network.networks import Endpoint
from supervisor.runtime import files, spec
from supervisor.runtime.conmon import SessionPaths
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.spec import SpecMount

LOOPBACK = "127.0.0.1"


def identity_files(
    record: ContainerRecord, owner: Owner, session: SessionPaths, endpoint: Endpoint
) -> tuple[SpecMount, ...]:
    """The three files, written anew, as mounts.

    An administrator's container may change them, as in Docker. A user's may not: they lie in the run directory, where
    nothing bounds what is written, and the host needs the room.
    """
    taken = {mount.target for mount in record.mounts}
    texts = {
        "/etc/hostname": f"{record.hostname}\n",
        "/etc/hosts": files.hosts(
            own_names(record),
            endpoint.address,
            record.request.extra_hosts,
            host_gateway(record, endpoint),
        ),
        "/etc/resolv.conf": files.resolv_conf(
            record.request.dns or endpoint.resolvers,
            record.request.dns_search or endpoint.search,
            record.request.dns_options or endpoint.resolver_options,
        ),
    }
    shown = []
    for target, text in texts.items():
        if target in taken:
            continue
        path = session.directory / Path(target).name
        path.write_text(text)
        path.chmod(0o644)
        os.chown(path, owner.id_map.uid_outside(0), owner.id_map.gid_outside(0))
        shown.append(spec.own_file(target, str(path), read_only=owner.remapped))
    return tuple(shown)


def own_names(record: ContainerRecord) -> str:
    """What a container calls itself, the full name first where it has a domain."""
    domain = record.request.domainname
    return f"{record.hostname}.{domain} {record.hostname}" if domain else record.hostname


def host_gateway(record: ContainerRecord, endpoint: Endpoint) -> str:
    """The host's address as the container reaches it; empty where it does not."""
    return LOOPBACK if record.request.network_mode == "host" else endpoint.gateway

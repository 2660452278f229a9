"""``/etc/hosts``, ``hostname`` and ``resolv.conf``: each container has its own. See hosts(5), resolv.conf(5)."""

from __future__ import annotations

import os
from pathlib import Path

from supervisor.access.owners import Owner
from supervisor.network.networks import Sandbox
from supervisor.runtime import files, spec
from supervisor.runtime.conmon import SessionPaths
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.spec import SpecMount

LOOPBACK = "127.0.0.1"
DOTS = "ndots:"


def identity_files(
    record: ContainerRecord, owner: Owner, session: SessionPaths, sandbox: Sandbox
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
            addresses_of(sandbox),
            record.request.extra_hosts,
            host_gateway(record, sandbox),
        ),
        "/etc/resolv.conf": resolver_text(record, sandbox),
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


def addresses_of(sandbox: Sandbox) -> list[str]:
    """A container's own, network by network."""
    given = [(one.address, one.ipv6_address) for one in sandbox.endpoints]
    return [address for pair in given for address in pair if address]


def resolver_text(record: ContainerRecord, sandbox: Sandbox) -> str:
    """``/etc/resolv.conf``: on a network with names it asks us, and we ask the resolvers it was given."""
    given = () if sandbox.named else record.request.dns
    options = record.request.dns_options or sandbox.resolver_options
    if sandbox.named and not any(option.startswith(DOTS) for option in options):
        options = (*options, f"{DOTS}0")  # a name without a dot is first of all one of a container
    return files.resolv_conf(
        given or sandbox.resolvers, record.request.dns_search or sandbox.search, options
    )


def own_names(record: ContainerRecord) -> str:
    """What a container calls itself, the full name first where it has a domain."""
    domain = record.request.domainname
    return f"{record.hostname}.{domain} {record.hostname}" if domain else record.hostname


def host_gateway(record: ContainerRecord, sandbox: Sandbox) -> str:
    """The host's address as the container reaches it; empty where it does not."""
    return LOOPBACK if record.request.network_mode == "host" else sandbox.gateway

"""``/etc/hosts``, ``hostname`` and ``resolv.conf``: each container has its own. See hosts(5), resolv.conf(5).

They lie beside the container's snapshot, so that what it writes into them takes the room that all it writes takes, and goes
with it. They are made anew at every start, as Docker's are, and changed in place while it runs.
"""

from __future__ import annotations

import os
from pathlib import Path

from supervisor.access.owners import Owner
from supervisor.network.networks import Sandbox
from supervisor.runtime import files, spec
from supervisor.runtime.records import ContainerRecord
from supervisor.runtime.spec import SpecMount
from supervisor.store.snapshots import Snapshots

LOOPBACK = "127.0.0.1"
DOTS = "ndots:"


async def identity_place(
    snapshots: Snapshots, record: ContainerRecord, owner: Owner
) -> tuple[Path, Path]:
    """The directory of the three files: on disk, in canonical ids, and as M shows it."""
    return snapshots.beside(record.id), await snapshots.beside_in_mounts(record.id, owner)


def identity_files(
    record: ContainerRecord, place: Path, shown_at: Path, sandbox: Sandbox
) -> tuple[SpecMount, ...]:
    """The three files, written anew, as mounts. The container may change them unless its root is read-only.

    Args:
        record: Of the container.
        place: The directory they are in, in canonical ids.
        shown_at: Where M shows it.
        sandbox: What the container has of networks.
    """
    place.mkdir(mode=0o755, exist_ok=True)
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
        path = place / Path(target).name
        path.write_text(text)
        path.chmod(0o644)
        os.chown(path, 0, 0)
        source = str(shown_at / path.name)
        read_only = record.request.read_only_rootfs
        shown.append(spec.own_file(target, source, read_only=read_only))
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

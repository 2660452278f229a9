"""Connecting a container to networks, and disconnecting it, while it lives.

Rules: of a container that runs it is an effect and a record in one transaction; of one that does not run a record alone.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import attrs

from supervisor.errors import Conflict, NotFound, PermissionDenied
from supervisor.runtime.connections import SHARED, connection_to, recorded_of
from supervisor.runtime.files import changed_hosts
from supervisor.runtime.identity_files import addresses_of, own_names, resolver_text
from supervisor.tasks import in_thread

if TYPE_CHECKING:
    from pathlib import Path

    from supervisor.access.requests import EndpointRequest
    from supervisor.network.endpoints import Network
    from supervisor.network.networks import Sandbox
    from supervisor.runtime.keeper import Keeper
    from supervisor.runtime.records import ContainerRecord

HOSTS_BYTES_MAX = 1_048_576


async def connect(keeper: Keeper, network: Network, wished: EndpointRequest) -> None:
    """The container is on the network, now and whenever it runs.

    Raises:
        Conflict: It has no networks of its own; Docker's wording.
        PermissionDenied: It is on it already; Docker's wording and status.
        BakehouseError: See :meth:`Networks.attach`.
    """
    async with keeper.turn:
        record, networks = keeper.record, keeper.parts.networks
        _check_own(record)
        connection = connection_to(network, wished)
        before = await recorded_of(networks, record)
        if any(one.names(network) for one in before):
            raise PermissionDenied(
                f"endpoint with name {record.name} already exists in network {network.name}"
            )
        after = attrs.evolve(record, connections=(*before, connection))
        if networks.sandbox(record.id) is None:
            await keeper.row.recast(after)
        else:
            await keeper.row.recast(
                after, functools.partial(networks.connect, record.id, connection, record.ports)
            )
            await _refresh_files(keeper)
        networks.hold(record.id, [connection])


async def disconnect(keeper: Keeper, network: Network) -> None:
    """The container is not on the network any more.

    Raises:
        Conflict: It has no networks of its own; Docker's wording.
        NotFound: It is not on it; Docker's wording.
    """
    async with keeper.turn:
        record, networks = keeper.record, keeper.parts.networks
        before = await recorded_of(networks, record)
        connection = next((one for one in before if one.names(network)), None)
        if connection is None:
            _check_own(record)
            raise NotFound(f"container {record.id} is not connected to network {network.name}")
        left = tuple(one for one in before if one is not connection)
        after = attrs.evolve(record, connections=left)
        if networks.sandbox(record.id) is None:
            await keeper.row.recast(after)
        else:
            await keeper.row.recast(
                after, functools.partial(networks.disconnect, record.id, connection)
            )
            await _refresh_files(keeper)
        networks.let_go(record.id, [connection])


async def forget_network(keeper: Keeper, reference: str) -> None:
    """The container is not to be connected any more to a network that has gone, by its name or id.

    Raises:
        NotFound: It was not; Docker's wording.
    """
    async with keeper.turn:
        record = keeper.record
        before = record.connections or ()
        left = tuple(one for one in before if reference not in {one.name, one.network_id})
        if left == before:
            raise NotFound(f"container {record.id} is not connected to the network {reference}")
        await keeper.row.recast(attrs.evolve(record, connections=left))


def _check_own(record: ContainerRecord) -> None:
    mode = record.request.network_mode
    if mode.startswith(SHARED):
        raise Conflict(
            "container sharing network namespace with another container or host cannot be connected to any other network"
        )
    if mode == "none":
        raise Conflict(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )
    if mode == "host":
        raise Conflict(
            "container cannot be disconnected from host network or connected to host network"
        )


async def _refresh_files(keeper: Keeper) -> None:
    """Its ``/etc/hosts`` and ``/etc/resolv.conf`` tell of the networks it is on; the same files, written anew.

    What the container has put into its hosts file stays: lines of addresses it has or had are changed.
    """
    record = keeper.record
    sandbox = keeper.parts.networks.sandbox(record.id)
    if sandbox is None:
        return
    directory = keeper.parts.store.snapshots.beside(record.id)
    await in_thread(lambda: _rewrite(directory, record, sandbox))


def _rewrite(directory: Path, record: ContainerRecord, sandbox: Sandbox) -> None:
    hosts, resolver = directory / "hosts", directory / "resolv.conf"
    if hosts.exists() and hosts.stat().st_size <= HOSTS_BYTES_MAX:
        text = hosts.read_text(errors="surrogateescape")
        changed = changed_hosts(text, own_names(record), addresses_of(sandbox))
        hosts.write_text(changed, errors="surrogateescape")
    if resolver.exists():
        resolver.write_text(resolver_text(record, sandbox))

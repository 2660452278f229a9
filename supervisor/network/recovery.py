"""Networks after a daemon's end: the kernel is made to agree with the records.

Rules: what works for a running container works all the while. What no record speaks of was half made, and goes. What a
record speaks of and is gone is made again, as far as it can be.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING

import attrs

from supervisor.errors import Internal, NotFound
from supervisor.linux import mounts, netlink
from supervisor.network import doors, rows
from supervisor.network.endpoints import Mode, publications
from supervisor.network.publishing import hold_again
from supervisor.tasks import in_thread

if TYPE_CHECKING:
    from supervisor.network.seating import Place, Seats

log = logging.getLogger(__name__)


async def recover(seats: Seats, wanted: Collection[str]) -> None:
    """Only the containers that are ``wanted`` are seated, and those that share their namespaces with one of them."""
    for container_id in [one for one in seats.places if one not in wanted]:
        await seats.detach(container_id)
    await _clear_strangers(seats)
    for place in list(seats.places.values()):
        await _hold_again(seats, place)
    numbers = {wired.network for place in seats.places.values() for wired in place.seat.wires}
    await seats.bridges.take_up([seats.registry.numbered[number] for number in sorted(numbers)])
    for place in list(seats.places.values()):
        seats.enter_names(place.seat)
        await _wire_again(seats, place)
        await _answer_again(seats, place)


async def _clear_strangers(seats: Seats) -> None:
    """Take down pins, links and bridges that no record speaks of: an earlier daemon died while it made them."""
    pins = {
        seats.pins / container_id
        for container_id, place in seats.places.items()
        if place.seat.mode in {Mode.BRIDGE, Mode.NONE}
    }
    found = await mounts.mounted(seats.spawner, seats.pins)
    on_disk = await in_thread(lambda: list(seats.pins.iterdir()))
    for pin in dict.fromkeys([*found, *on_disk]):
        if pin not in pins:
            await seats.unpin(pin)
    wires = [wired for place in seats.places.values() for wired in place.seat.wires]
    known = {seats.link_name(wired) for wired in wires}
    known |= {seats.bridges.link_name(seats.registry.numbered[one.network]) for one in wires}
    prefixes = (seats.link_prefix, seats.bridges.prefix)
    there = [link.name for link in await seats.links.links() if link.name.startswith(prefixes)]
    await seats.links.batch([netlink.delete(name) for name in there if name not in known])


async def _hold_again(seats: Seats, place: Place) -> None:
    """The ports are ours again; those that are not any more are struck from the record."""
    place.holds = hold_again(place.seat.ports)
    kept = tuple(held.port for held in place.holds)
    if kept != place.seat.ports:
        place.seat = attrs.evolve(place.seat, ports=kept)
        seat = place.seat
        await seats.database.write(lambda connection: rows.store_seat(connection, seat))
    out = seats.out_of(place.seat)
    seats.bridges.publications.update(publications(place.seat.ports, out))


async def _wire_again(seats: Seats, place: Place) -> None:
    """Mend the links of a running container that somebody took away, with their bridge perhaps."""
    gone = []
    for wired in place.seat.wires:
        link = await seats.links.link(seats.link_name(wired))
        if link is None or link.master != seats.bridges.raised[wired.network].index:
            gone.append(wired)
    if not gone:
        return
    name = place.seat.container_name
    log.warning("the link of container %s was gone: making it again", name)
    try:
        await seats.wire(place, gone)
    except NotFound:  # its namespace went with the last boot: so did the container
        log.warning("container %s has no network namespace", name)


async def _answer_again(seats: Seats, place: Place) -> None:
    """A container's own door to the name server went with the daemon before."""
    try:
        await doors.answer(seats, place.seat)
    except (NotFound, Internal) as error:
        log.warning("%s; container %s finds no names", error, place.seat.container_name)

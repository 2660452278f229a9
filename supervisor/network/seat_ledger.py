"""Writing down who is seated where, and telling it, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING

import attrs

from protocol.events import NetworkConnect, NetworkDisconnect
from supervisor.network import rows
from supervisor.network.endpoints import Mode, Seat, Wire
from supervisor.network.registry import DRIVERS

if TYPE_CHECKING:
    from supervisor.events.journal import Events
    from supervisor.network.registry import Registry

Also = Callable[[sqlite3.Connection], None]
"""Written in the same transaction."""


@attrs.frozen
class SeatLedger:
    """The rows of seats; its methods are called inside a unit of the database."""

    _events: Events
    _registry: Registry

    def record(self, connection: sqlite3.Connection, seat: Seat) -> None:
        """A container is seated."""
        rows.store_seat(connection, seat)
        for name, driver, subject, address in self._places_of(seat):
            data = NetworkConnect(container=seat.container_id, address=address)
            self._tell(connection, data, seat, (name, driver, subject))

    def forget(self, connection: sqlite3.Connection, seat: Seat) -> None:
        """It is not; nothing is told of one that was not recorded."""
        if rows.remove_seat(connection, seat.container_id):
            for name, driver, subject, _ in self._places_of(seat):
                data = NetworkDisconnect(container=seat.container_id)
                self._tell(connection, data, seat, (name, driver, subject))

    def rewrite(
        self,
        connection: sqlite3.Connection,
        seat: Seat,
        also: Also,
        wired: Wire,
        *,
        joined: bool,
    ) -> None:
        """It has that wire, or has it no more; ``also`` is written with it."""
        rows.store_seat(connection, seat)
        also(connection)
        network = self._registry.numbered[wired.network]
        data = (
            NetworkConnect(container=seat.container_id, address=str(wired.ipv4))
            if joined
            else NetworkDisconnect(container=seat.container_id)
        )
        self._tell(connection, data, seat, (network.name, "bridge", network.id))

    def _places_of(self, seat: Seat) -> list[tuple[str, str, str, str]]:
        """Name, driver and id of each network a seat is on, and its address there."""
        if seat.mode in {Mode.HOST, Mode.NONE}:
            mode = seat.mode
            return [(mode.value, DRIVERS[mode], self._registry.id_of(seat.owner, mode), "")]
        networks = self._registry.numbered
        return [
            (networks[one.network].name, "bridge", networks[one.network].id, str(one.ipv4))
            for one in seat.wires
        ]

    def _tell(
        self,
        connection: sqlite3.Connection,
        data: NetworkConnect | NetworkDisconnect,
        seat: Seat,
        where: tuple[str, str, str],
    ) -> None:
        name, driver, subject = where
        self._events.record(
            connection,
            data,
            owner=seat.owner,
            subject=subject,
            attributes={"container": seat.container_id, "name": name, "type": driver},
        )

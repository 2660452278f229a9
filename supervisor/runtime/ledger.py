"""Writing down what becomes of a container: the row, and the event that tells it, in one transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from protocol.events import ContainerDie, ContainerStart, EventData, VolumeMount, VolumeUnmount
from supervisor.access.requests import MountKind
from supervisor.database.database import Database
from supervisor.events.journal import Events
from supervisor.runtime.records import (
    ContainerRecord,
    ContainerState,
    ExecRecord,
    dump,
    load_exec,
    load_record,
    load_state,
)
from supervisor.store.layers import lease_in, orphaned_in, release_in


class Ledger:
    """The rows of containers and execs."""

    def __init__(self, database: Database, events: Events) -> None:
        self._database = database
        self._events = events

    async def insert(
        self, record: ContainerRecord, state: ContainerState, events: Sequence[EventData] = ()
    ) -> None:
        """A container is made, or about to be. It keeps its image's layers, whatever becomes of the image.

        Raises:
            sqlite3.IntegrityError: Its owner has another of that name.
            NotFound: The image was removed just now.
        """

        def work(connection: sqlite3.Connection) -> None:
            lease_in(connection, _holder(record), record.layers)
            connection.execute(
                "INSERT INTO containers (id, owner, name, record, state) VALUES (?, ?, ?, ?, ?)",
                (record.id, record.owner, record.name, dump(record), dump(state)),
            )
            self._tell(connection, record, events)

        await self._database.write(work)

    async def write(
        self, record: ContainerRecord, state: ContainerState, events: Sequence[EventData] = ()
    ) -> None:
        """The container is now so, and these events say why."""

        def work(connection: sqlite3.Connection) -> None:
            self.rewrite(connection, record, state)
            self._tell(connection, record, events)

        await self._database.write(work)

    @staticmethod
    def rewrite(
        connection: sqlite3.Connection, record: ContainerRecord, state: ContainerState
    ) -> None:
        """The container is now so; in a transaction that writes more."""
        connection.execute(
            "UPDATE containers SET name = ?, record = ?, state = ? WHERE id = ?",
            (record.name, dump(record), dump(state), record.id),
        )

    async def tell(self, record: ContainerRecord, *events: EventData) -> None:
        """Nothing of the container changed, but something happened to it."""
        await self._database.write(lambda connection: self._tell(connection, record, events))

    async def delete(self, record: ContainerRecord, events: Sequence[EventData]) -> bool:
        """The container is gone; whether its layers have become needless with it."""

        def work(connection: sqlite3.Connection) -> bool:
            connection.execute("DELETE FROM containers WHERE id = ?", (record.id,))
            release_in(connection, _holder(record))
            self._tell(connection, record, events)
            return orphaned_in(connection, record.layers)

        return await self._database.write(work)

    async def write_exec(
        self, container: ContainerRecord, record: ExecRecord, events: Sequence[EventData] = ()
    ) -> None:
        """The exec is now so; of a container that is gone there is nothing to write."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO execs (id, container_id, record)"
                " SELECT ?, id, ? FROM containers WHERE id = ?"
                " ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                (record.id, dump(record), container.id),
            )
            self._tell(connection, container, events)

        await self._database.write(work)

    async def delete_execs(self, exec_ids: Sequence[str]) -> None:
        """These execs are forgotten."""
        rows = [(exec_id,) for exec_id in exec_ids]
        await self._database.write(
            lambda connection: connection.executemany("DELETE FROM execs WHERE id = ?", rows)
        )

    async def read(self) -> list[tuple[ContainerRecord, ContainerState, list[ExecRecord]]]:
        """All containers with their execs, oldest first."""

        def work(
            connection: sqlite3.Connection,
        ) -> list[tuple[ContainerRecord, ContainerState, list[ExecRecord]]]:
            execs: dict[str, list[ExecRecord]] = {}
            for row in connection.execute("SELECT container_id, record FROM execs"):
                execs.setdefault(row["container_id"], []).append(load_exec(row["record"]))
            rows = connection.execute("SELECT id, record, state FROM containers ORDER BY rowid")
            return [
                (load_record(row["record"]), load_state(row["state"]), execs.get(row["id"], []))
                for row in rows
            ]

        return await self._database.read(work)

    def _tell(
        self, connection: sqlite3.Connection, record: ContainerRecord, events: Sequence[EventData]
    ) -> None:
        for data in events:
            told = [(record.id, data, _attributes(record, data))]
            if isinstance(data, ContainerStart):
                told = [*_mounted(record), *told]
            elif isinstance(data, ContainerDie):
                told += _unmounted(record)
            for subject, kind, attributes in told:
                self._events.record(
                    connection, kind, owner=record.owner, subject=subject, attributes=attributes
                )


def _holder(record: ContainerRecord) -> str:
    """Who leases a container's layers."""
    return f"container:{record.id}"


def _attributes(record: ContainerRecord, data: EventData) -> Mapping[str, str]:
    """Docker's actor attributes: labels, image, name, and what the kind itself says."""
    said = {
        key: str(value)
        for key, field in (
            ("exitCode", "exit_code"),
            ("signal", "signal"),
            ("oldName", "old_name"),
            ("execID", "exec_id"),
            ("height", "height"),
            ("width", "width"),
            ("imageID", "image"),
            ("imageRef", "reference"),
            ("comment", "comment"),
        )
        if (value := getattr(data, field, None)) is not None
    }
    if "oldName" in said:
        said["oldName"] = (
            f"/{said['oldName']}"  # names have a slash inside dockerd, and here it shows
        )
    return {**record.labels, "image": record.image_reference, "name": record.name, **said}


_Told = tuple[str, EventData, Mapping[str, str]]
"""An event: of what, its kind, Docker's actor attributes."""


def _mounted(record: ContainerRecord) -> list[_Told]:
    """A run uses its container's volumes from its start on."""
    return [
        (
            mount.source,
            VolumeMount(container=record.id, destination=mount.target, read_only=mount.read_only),
            {
                "driver": "local",
                "container": record.id,
                "destination": mount.target,
                "read/write": "false" if mount.read_only else "true",
                "propagation": mount.propagation,
            },
        )
        for mount in record.mounts
        if mount.kind is MountKind.VOLUME
    ]


def _unmounted(record: ContainerRecord) -> list[_Told]:
    """And no more from its end on."""
    return [
        (
            mount.source,
            VolumeUnmount(container=record.id),
            {"driver": "local", "container": record.id},
        )
        for mount in record.mounts
        if mount.kind is MountKind.VOLUME
    ]

"""Which execs there are: by their ids, and of each container, so that one container's cost does not grow with others'."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from supervisor.runtime.execs import Exec


class ExecIndex:
    """All execs of this daemon's containers, oldest first."""

    def __init__(self) -> None:
        self._by_id: dict[str, Exec] = {}
        self._by_container: defaultdict[str, dict[str, Exec]] = defaultdict(dict)
        self._by_owner: defaultdict[int, dict[str, Exec]] = defaultdict(dict)

    def add(self, made: Exec) -> None:
        """There is one more."""
        self._by_id[made.record.id] = made
        self._by_container[made.record.container_id][made.record.id] = made
        self._by_owner[made.record.owner][made.record.id] = made

    def find(self, exec_id: str) -> Exec | None:
        """The exec with this id."""
        return self._by_id.get(exec_id)

    def of(self, container_id: str) -> Collection[Exec]:
        """Those of a container."""
        return self._by_container.get(container_id, {}).values()

    def forget(self, exec_ids: Iterable[str]) -> None:
        """These are gone."""
        for exec_id in exec_ids:
            gone = self._by_id.pop(exec_id, None)
            if gone is not None:
                self._by_container[gone.record.container_id].pop(exec_id, None)
                self._leave_owner(gone)

    def forget_container(self, container_id: str) -> None:
        """The container is gone, and its execs with it."""
        for exec_id in self._by_container.pop(container_id, {}):
            gone = self._by_id.pop(exec_id, None)
            if gone is not None:
                self._leave_owner(gone)

    def at_work(self, owner: int) -> int:
        """How many of an owner's have not ended, those that are not started yet among them."""
        return sum(1 for one in self._by_owner.get(owner, {}).values() if not one.ended.is_set())

    def _leave_owner(self, gone: Exec) -> None:
        theirs = self._by_owner[gone.record.owner]
        theirs.pop(gone.record.id, None)
        if not theirs:
            del self._by_owner[gone.record.owner]

"""Where an owner's mounts are: views of the store in the owner's ids, and the gates before them.

Words:
    view: The layers, an owner's snapshots or volumes, mounted once more in M with the owner's ids shown (idmapped; plain
        for owners that are not remapped). One of each per owner and map: overlays and binds are made from them.
    gate: The directory that lets in only root and the owner's container root (0710; 0700 for owners not remapped).

Rules: everything is mounted in M alone; the gates stand should somebody enter M; after a reboot all of it is made anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import trio

from supervisor.access.owners import Owner
from supervisor.linux import mounts
from supervisor.linux.spawner import Spawner
from supervisor.tasks import in_thread

PASSAGE_MODE = 0o711
GATE_MODE = 0o710
CLOSED_MODE = 0o700


@attrs.define(eq=False)
class Views:
    """All owners' views.

    Attributes:
        data_root: Where layers/, snapshots/ and volumes/ are.
        run_root: Where they are shown: views/ and rootfs/.
    """

    data_root: Path
    run_root: Path
    _spawner: Spawner
    _made: set[Path] = attrs.field(factory=set)
    _making: trio.Lock = attrs.field(factory=trio.Lock)

    async def layers(self, owner: Owner) -> Path:
        """The layers, read-only."""
        return await self._view(owner, "layers", self.data_root / "layers", read_only=True)

    async def snapshots(self, owner: Owner) -> Path:
        """The owner's snapshots."""
        return await self._view(owner, "snapshots", self.own(owner, "snapshots"), read_only=False)

    async def volumes(self, owner: Owner) -> Path:
        """The owner's volumes."""
        return await self._view(owner, "volumes", self.own(owner, "volumes"), read_only=False)

    def own(self, owner: Owner, kind: str) -> Path:
        """An owner's directory of one kind in the store itself, in canonical ids."""
        return self.data_root / kind / f"u{owner.uid}"

    async def gate(self, owner: Owner, kind: str) -> Path:
        """An owner's directory below run_root/<kind>, closed to everybody else."""
        place = self.run_root / kind / gate_name(owner.uid, remapped=owner.remapped)
        if place not in self._made:
            await in_thread(lambda: _make_gate(place, owner))
            self._made.add(place)
        return place

    async def _view(self, owner: Owner, kind: str, source: Path, *, read_only: bool) -> Path:
        target = await self.gate(owner, "views") / owner.map_digest / kind
        if target in self._made:
            return target
        async with self._making:
            await in_thread(lambda: _make_directories(source, target))
            await mounts.idmapped_view(self._spawner, source, target, owner.view_map, read_only)
            self._made.add(target)
        return target


def gate_name(uid: int, *, remapped: bool) -> str:
    """An owner may have things of both kinds; they lie behind different gates."""
    return f"u{uid}" if remapped else f"u{uid}-plain"


def _make_gate(place: Path, owner: Owner) -> None:
    place.parent.mkdir(mode=PASSAGE_MODE, parents=True, exist_ok=True)
    place.parent.chmod(PASSAGE_MODE)
    place.mkdir(mode=CLOSED_MODE, exist_ok=True)
    if owner.remapped:
        os.chown(place, 0, owner.id_map.gid_outside(0))
        place.chmod(GATE_MODE)


def _make_directories(source: Path, target: Path) -> None:
    source.mkdir(mode=CLOSED_MODE, parents=True, exist_ok=True)
    target.parent.mkdir(mode=0o755, exist_ok=True)
    target.mkdir(mode=0o755, exist_ok=True)

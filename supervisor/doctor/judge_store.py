"""How bad it is, of what is kept and of the daemon itself: facts in, findings out; pure."""

from __future__ import annotations

from collections.abc import Iterator

from supervisor.doctor.facts import DaemonSeen, Disk, Tried
from supervisor.doctor.findings import Finding, Standing, broken, degraded, ok, unseen

FREE_LEAST_BYTES, FREE_FEW_BYTES = 512 * 2**20, 5 * 2**30
FREE_LEAST_PERCENT, FREE_FEW_PERCENT = 1, 10
NOT_FOR_LAYERS = frozenset(
    {"nfs", "nfs4", "cifs", "fuse", "fuseblk", "vfat", "exfat", "9p", "overlay"}
)
PROJECT_QUOTAS = frozenset({"prjquota", "pquota"})
_GIB = 2**30


def storage(seen: Disk, tried: Tried | None) -> Iterator[Finding]:
    """Layers are shared between people, each of whom sees them with their own ids."""
    where = f"{seen.kind} at {seen.directory}"
    if seen.read_only:
        yield broken(
            "storage", f"{where} is read-only", "set data_root to a disk that can be written to"
        )
    elif tried is not None and not tried.worked:
        elsewhere = "set data_root to a directory on a local disk with ext4, xfs or btrfs"
        yield broken("storage", f"{where}: {tried.said}", elsewhere)
    elif tried is None and seen.kind in NOT_FOR_LAYERS:
        yield degraded(
            "storage", f"{where} may not take overlays over idmapped layers", "only root can try it"
        )
    elif tried is None:
        yield unseen("storage", where, "only root can try overlays over idmapped layers there")
    else:
        yield ok("storage", f"{where}: {tried.said}")
    quotas = bool(PROJECT_QUOTAS & seen.options)
    yield ok(
        "quotas",
        "the file system has project quotas"
        if quotas
        else "the file system has no project quotas; what people use is counted",
    )


def room(seen: Disk) -> Iterator[Finding]:
    """A full disk stops builds first."""
    free = seen.bytes_free / _GIB
    said = f"{free:.1f} GiB of {seen.bytes / _GIB:.1f} are free at {seen.directory}"
    yield _room("disk", said, _level(seen.bytes_free, seen.bytes))
    if seen.inodes:
        told = f"{seen.inodes_free} of {seen.inodes} inodes are free"
        percent = seen.inodes_free * 100 / seen.inodes
        yield _room("inodes", told, _by_percent(percent))


def _level(free: int, total: int) -> Standing:
    if free < FREE_LEAST_BYTES:
        return Standing.BROKEN
    if free < FREE_FEW_BYTES or free * 100 < total * FREE_FEW_PERCENT:
        return Standing.DEGRADED
    return Standing.OK


def _by_percent(percent: float) -> Standing:
    if percent < FREE_LEAST_PERCENT:
        return Standing.BROKEN
    return Standing.DEGRADED if percent < FREE_FEW_PERCENT else Standing.OK


def _room(subject: str, said: str, standing: Standing) -> Finding:
    advice = (
        ""
        if standing is Standing.OK
        else "docker image prune and docker builder prune make room, or use a larger disk"
    )
    return Finding(subject, standing, said, advice)


def daemon(seen: DaemonSeen) -> Iterator[Finding]:
    """Whether there is one that serves this caller."""
    if seen.answers:
        said = f"{seen.version} answers at {seen.socket}"
        if seen.version != seen.client_version:
            advice = "restart the daemon, or install the same version of both"
            yield degraded("daemon", f"{said}; this command is {seen.client_version}", advice)
        else:
            yield ok("daemon", said)
    elif seen.refused:
        yield broken(
            "daemon", seen.complaint, "an administrator puts you into its group; then log in again"
        )
    elif seen.listening:
        yield broken(
            "daemon", seen.complaint, "journalctl -u bakehouse, or the terminal it was started in"
        )
    else:
        yield degraded(
            "daemon",
            f"none runs at {seen.socket}",
            "systemctl start bakehouse, or start bakehoused",
        )

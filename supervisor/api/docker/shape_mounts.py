"""Docker's three ways to say what a container mounts: Binds, Mounts and Tmpfs, and VolumesFrom. Pure.

Binds are ``source:target[:options]``; a source that is no absolute path is a volume's name.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Iterator

from protocol.errors import Fault
from supervisor.access.requests import MountForm, MountKind, MountRequest
from supervisor.api.docker.fields import INT64_MAX, Fields
from supervisor.errors import InvalidArgument

VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
BIND_PARTS_MAX = 3
MODE_MAX = 0o7777

_PROPAGATION = frozenset({"private", "rprivate", "shared", "rshared", "slave", "rslave"})
_ACCESS = frozenset({"ro", "rw"})
_RELABEL = frozenset({"z", "Z"})
_CONSISTENCY = frozenset({"cached", "delegated", "consistent", "default"})
_EXCLUSIVE = (_PROPAGATION, _ACCESS, _RELABEL, _CONSISTENCY, frozenset({"nocopy"}))
"""Of each of these one at most."""
_TMPFS_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9]{1,18})([bkmg]?)", re.IGNORECASE)


def mounts(host: Fields) -> tuple[MountRequest, ...]:
    """Binds, Mounts and Tmpfs, in this order; each target once."""
    found = [*_binds(host), *_mounts(host), *_tmpfs(host)]
    seen: set[str] = set()
    for mount in found:
        if mount.target in seen:
            host.faults.append(Fault(f"Duplicate mount point: {mount.target}"))
        seen.add(mount.target)
    return tuple(found)


def volumes_from(host: Fields) -> tuple[str, ...]:
    """``container[:ro|rw|z|Z]`` of each."""
    given = host.texts("VolumesFrom")
    for text in given:
        name, _, mode = text.partition(":")
        words = set(filter(None, mode.split(",")))
        if not name:
            host.fault("VolumesFrom", "volumes-from specification cannot be an empty string")
        elif not (words <= _ACCESS | _RELABEL and _alone(words)):
            host.fault("VolumesFrom", f"invalid mode: {mode[:80]}", "ro or rw")
    return given


def _alone(words: set[str]) -> bool:
    return all(len(words & group) <= 1 for group in _EXCLUSIVE)


def _binds(host: Fields) -> Iterator[MountRequest]:
    for index, bind in enumerate(host.texts("Binds")):
        mount = host.read(f"Binds[{index}]", parse_bind, bind)
        if mount is not None:
            yield mount


def parse_bind(text: str) -> MountRequest:
    """``source:target[:options]``, or ``target`` alone for an anonymous volume.

    Raises:
        InvalidArgument: It is none of these.
    """
    parts = text.split(":")
    if len(parts) == 1:
        return MountRequest(MountKind.VOLUME, target(parts[0]), form=MountForm.BIND, spelt=text)
    if len(parts) > BIND_PARTS_MAX or not parts[0]:
        raise InvalidArgument(f"{text[:200]!r} is no volume specification", "source:target[:ro]")
    source, path, options = (
        parts[0],
        target(parts[1]),
        parts[2].split(",") if len(parts) == BIND_PARTS_MAX else [],
    )
    propagation = next((option for option in options if option in _PROPAGATION), "")
    words = set(filter(None, options))
    if not words <= frozenset().union(*_EXCLUSIVE) or not _alone(words):
        raise InvalidArgument(
            f"invalid mode: {','.join(options)[:80]}", "ro, rw, nocopy, rprivate, …"
        )
    if source.startswith("/"):
        return MountRequest(
            MountKind.BIND,
            path,
            source,
            "ro" in options,
            create_source=True,
            propagation=propagation,
            form=MountForm.BIND,
            spelt=text,
        )
    if not VOLUME_NAME.fullmatch(source):
        raise InvalidArgument(f"{source[:80]!r} is neither a volume's name nor an absolute path")
    return MountRequest(
        MountKind.VOLUME,
        path,
        source,
        "ro" in options,
        propagation=propagation,
        copy_up="nocopy" not in options,
        form=MountForm.BIND,
        spelt=text,
    )


def target(path: str) -> str:
    """A path in the container, normalised.

    Raises:
        InvalidArgument: It is not absolute, or it is the root.
    """
    if not path.startswith("/"):
        raise InvalidArgument(f"invalid mount path: '{path[:200]}' mount path must be absolute")
    normal = "/" + posixpath.normpath(path).lstrip("/")
    if normal == "/":
        raise InvalidArgument("the root of the container cannot be mounted over")
    return normal


def _mounts(host: Fields) -> Iterator[MountRequest]:
    kinds = {kind.value for kind in MountKind}
    for mount in host.children("Mounts"):
        path = mount.read("Target", target, mount.text("Target"))
        kind = mount.text("Type")
        bind, volume, tmpfs = (
            mount.child(name) for name in ("BindOptions", "VolumeOptions", "TmpfsOptions")
        )
        bind.known("ReadOnlyForceRecursive")  # as it is anyway, unless it is the other way wanted
        mount.known("Consistency")
        driver = volume.child("DriverConfig")
        driver.refuse({"Name": ("local",), "Options": ()})
        tmpfs.refuse({"Options": ()})
        mode = tmpfs.number_or_none("Mode", 0, MODE_MAX)
        read = MountRequest(
            kind=MountKind(kind) if kind in kinds else MountKind.TMPFS,
            target=path or "/",
            source=_source(mount, kind),
            read_only=mount.flag("ReadOnly"),
            create_source=bind.flag("CreateMountpoint"),
            propagation=bind.text("Propagation"),
            copy_up=not volume.flag("NoCopy"),
            subpath=_subpath(volume, mount),
            recursive=not bind.flag("NonRecursive"),
            read_only_recursive=not bind.flag("ReadOnlyNonRecursive"),
            size_bytes=tmpfs.number("SizeBytes", 0),
            mode=mode,
            labels=volume.mapping("Labels"),
        )
        if kind not in kinds:
            mount.fault("Type", f"is {kind[:40]!r}", "bind, volume or tmpfs")
        yield read


def _subpath(volume: Fields, mount: Fields) -> str:
    subpath = volume.text("Subpath")
    if not subpath:
        return ""
    if not mount.text("Source"):
        volume.fault("Subpath", "must not be set when using anonymous volumes")
    if subpath.startswith("/") or ".." in subpath.split("/") or "\0" in subpath:
        volume.fault("Subpath", "must be a relative path within the volume")
    return subpath


def _source(mount: Fields, kind: str) -> str:
    source = mount.text("Source")
    if kind == MountKind.BIND and not source.startswith("/"):
        mount.fault("Source", f"is {source[:200]!r}, which is not an absolute path")
    if kind == MountKind.VOLUME and source and not VOLUME_NAME.fullmatch(source):
        mount.fault("Source", f"is {source[:80]!r}, which is no volume's name")
    if kind == MountKind.TMPFS and source:
        mount.fault("Source", "must be empty for a tmpfs")
    return source


def _tmpfs(host: Fields) -> Iterator[MountRequest]:
    for path, options in sorted(host.mapping("Tmpfs").items()):
        where = f"Tmpfs.{path}"
        clean = host.read(where, target, path)
        mount = host.read(where, functools.partial(parse_tmpfs, clean or "/"), options)
        if clean is not None and mount is not None:
            yield mount


def parse_tmpfs(path: str, text: str) -> MountRequest:
    """``size=64m,mode=1777,noexec`` at ``path``.

    Raises:
        InvalidArgument: Size or mode makes no sense.
    """
    size, mode, read_only, others = 0, None, False, []
    for option in filter(None, text.split(",")):
        key, _, value = option.partition("=")
        if key == "size":
            size = _size(value)
        elif key == "mode":
            mode = _mode(value)
        elif option == "ro":
            read_only = True
        elif option != "rw":
            others.append(option)
    return MountRequest(
        MountKind.TMPFS,
        path,
        read_only=read_only,
        size_bytes=size,
        mode=mode,
        options=tuple(others),
        form=MountForm.TMPFS,
        spelt=text,
    )


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) * _TMPFS_UNITS[match[2].lower()] > INT64_MAX:
        raise InvalidArgument(f"size={text[:40]!r} is no size", "a number with k, m or g")
    return int(match[1]) * _TMPFS_UNITS[match[2].lower()]


def _mode(text: str) -> int:
    if not re.fullmatch(r"[0-7]{1,5}", text) or int(text, 8) > MODE_MAX:
        raise InvalidArgument(f"mode={text[:40]!r} is no mode", "octal digits, like 1777")
    return int(text, 8)

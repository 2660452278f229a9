"""The options of a volume of the driver ``local``: a tmpfs, or a directory of the host's. Pure.

They are mount(8)'s: ``type``, ``device``, and ``o`` with the rest. Anything else than ``tmpfs`` and ``bind`` would be a file
system that the daemon mounts with the host's own privileges, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from attrs import frozen

from supervisor.errors import InvalidArgument

KNOWN = ("device", "o", "type")
TMPFS, BIND = "tmpfs", "bind"
_FLAGS = frozenset({"ro", "rw", "exec", "noexec", "nosuid", "nodev"})
_VALUE = re.compile(
    r"(?:size|nr_inodes|nr_blocks)=[0-9]{1,18}[kmg%]?|mode=[0-7]{3,4}|[ug]id=[0-9]{1,10}"
)
_BINDING = frozenset({"bind", "rbind"})
_HINT = "type=tmpfs with device=tmpfs, or type=none with o=bind and device=/a/directory"


@frozen
class VolumeSource:
    """What a volume's content is.

    Attributes:
        directory: The host's directory; empty for a tmpfs.
        read_only: It is not written through this volume.
        options: Of a tmpfs, ``name=value`` and ``noexec``.
    """

    directory: str = ""
    read_only: bool = False
    options: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """Those of the options that are the mount's, and not the file system's."""
        return tuple(option for option in self.options if "=" not in option)


def volume_source(options: Mapping[str, str]) -> VolumeSource | None:
    """What these options ask for; None for none: a directory of the daemon's own.

    Raises:
        InvalidArgument: They make no sense, or are not served; dockerd's wording where it has one.
    """
    if not options:
        return None
    for name in options:
        if name not in KNOWN:
            raise InvalidArgument(f'invalid option: "{name[:40]}"', ", ".join(KNOWN))
    kind, device = options.get("type", ""), options.get("device", "")
    given = tuple(filter(None, options.get("o", "").split(",")))
    if not device:
        raise InvalidArgument('missing required option: "device"', _HINT)
    if _BINDING & set(given) and kind in {"", "none", "bind"}:
        return _bound(device, given)
    if kind == TMPFS:
        return _in_memory(given)
    raise InvalidArgument(f"the volume type {kind[:40]!r} is not served", _HINT)


def _bound(device: str, given: Sequence[str]) -> VolumeSource:
    if not device.startswith("/"):
        raise InvalidArgument(f"invalid option: device {device[:80]!r} is no absolute path")
    if unknown := set(given) - _BINDING - {"ro", "rw"}:
        raise InvalidArgument(f"invalid option: o {','.join(sorted(unknown))[:80]!r}", "bind,ro")
    return VolumeSource(device, read_only="ro" in given)


def _in_memory(given: Sequence[str]) -> VolumeSource:
    for option in given:
        if option not in _FLAGS and not _VALUE.fullmatch(option):
            raise InvalidArgument(f"invalid option: o {option[:80]!r}", "size=64m,mode=1777,uid=33")
    kept = tuple(option for option in given if "=" in option or option == "noexec")
    return VolumeSource(read_only="ro" in given, options=kept)

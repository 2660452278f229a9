"""What Docker tells about one file of a container: ``X-Docker-Container-Path-Stat``. Pure.

Its mode is Go's ``os.FileMode`` (io/fs): permission bits as in Unix, the kind of file and the rest in bits of their own.
"""

from __future__ import annotations

import base64
import stat

import orjson

from protocol.times import format_time
from supervisor.api.http import JsonObject
from supervisor.linux.tree_view import Found, Place

TIME_FIRST_NS, TIME_LAST_NS = -62_135_596_800 * 10**9, 253_402_300_799 * 10**9
"""The years 1 to 9999: a file may be of any."""

PATH_STAT_FIELD = "X-Docker-Container-Path-Stat"

_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_BITS = ((stat.S_ISUID, 1 << 23), (stat.S_ISGID, 1 << 22), (stat.S_ISVTX, 1 << 20))


def go_mode(mode: int) -> int:
    """``st_mode`` as Go has it."""
    whole = mode & 0o777 | _KINDS.get(stat.S_IFMT(mode), 0)
    for bit, go_bit in _BITS:
        whole |= go_bit if mode & bit else 0
    return whole


def path_stat(place: Place, found: Found) -> JsonObject:
    """What is at a place, as the field tells it."""
    return {
        "name": place.name,
        "size": found.size,
        "mode": go_mode(found.mode),
        "mtime": format_time(min(max(found.mtime_ns, TIME_FIRST_NS), TIME_LAST_NS)),
        "linkTarget": found.link,
    }


def path_stat_field(place: Place, found: Found) -> tuple[str, str]:
    """The header field."""
    told = orjson.dumps(path_stat(place, found))
    return PATH_STAT_FIELD, base64.b64encode(told).decode()

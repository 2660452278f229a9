"""Where a container's output goes and how much of it is kept: Docker's log drivers and their options. Pure.

Words: a *detail* is what ``docker logs --details`` shows before each line: labels and environment that the options
choose, and the tag. Rules: options are checked when the container is made, with dockerd's wording; what an option leaves
open is the daemon's own bound, so no log grows for ever. ``json-file`` and ``local`` are kept in one form here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote_plus

from attrs import frozen

from protocol.patterns import compiled
from supervisor.access.log_sizes import count, size_bytes
from supervisor.access.requests import LogRequest
from supervisor.config import RuntimeConfig
from supervisor.errors import InvalidArgument
from supervisor.runtime.records import ContainerRecord

JSON_FILE, LOCAL, JOURNALD, NONE = "json-file", "local", "journald", "none"
DRIVERS = (JOURNALD, JSON_FILE, LOCAL, NONE)
JOURNAL_SOCKET = Path("/run/systemd/journal/socket")
FILES_MAX_MAX = 1_000
CUT_FACTOR, CUT_BYTES_MIN = 4, 16_777_216

_CHOOSING = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
_BOUNDS = frozenset({"max-size", "max-file", "compress"})
_FOR_ALL = frozenset({"mode", "max-buffer-size"})
_OPTIONS: Mapping[str, frozenset[str]] = {
    JSON_FILE: _CHOOSING | _BOUNDS,
    LOCAL: _BOUNDS,
    JOURNALD: frozenset({"tag"}),
}
_UNKNOWN = {
    JSON_FILE: "unknown log opt '{}' for json-file log driver",
    LOCAL: "unknown log opt '{}' for log driver local",
    JOURNALD: "unknown log opt '{}' for journald log driver",
}
_TRUTHS = {"1": True, "t": True, "true": True, "0": False, "f": False, "false": False}
_FIELD = re.compile(r"\{\{\s*\.([A-Za-z]+)\s*\}\}")


@frozen
class LogSettings:
    """How one container's log is kept.

    Attributes:
        bytes_max: Size at which the current file is rotated.
        files_max: Files kept, the current one included.
        compressed: Whether those that are not written any more are.
    """

    driver: str
    bytes_max: int
    files_max: int
    compressed: bool = False

    @property
    def in_files(self) -> bool:
        """Whether it is kept in files of ours."""
        return self.driver in {JSON_FILE, LOCAL}

    @property
    def cut_bytes(self) -> int:
        """Size at which conmon itself cuts the current file, if nobody came to rotate it before."""
        return max(self.bytes_max * CUT_FACTOR, CUT_BYTES_MIN)


def check_log(request: LogRequest) -> None:
    """Let pass what is served.

    Raises:
        InvalidArgument: There is no such driver or option, or a value makes no sense; dockerd's wording.
    """
    driver, options = request.driver or JSON_FILE, request.options
    if driver not in DRIVERS:
        raise InvalidArgument(f"logger: no log driver named '{driver[:40]}' is registered")
    if driver == NONE:
        return
    _check_mode(options)
    for name in options:
        if name not in _OPTIONS[driver] | _FOR_ALL:
            raise InvalidArgument(_UNKNOWN[driver].format(name[:40]))
    for name, value in options.items():
        _VALUES.get(name, _anything)(value)
    bounded = "max-size" in options and _count(options.get("max-file", "1")) > 1
    if driver == JSON_FILE and _truth(options.get("compress", "0")) and not bounded:
        raise _unusable(
            "compress cannot be true when max-file is less than 2 or max-size is not set"
        )


def _check_mode(options: Mapping[str, str]) -> None:
    mode = options.get("mode", "")
    if mode not in {"", "blocking", "non-blocking"}:
        raise InvalidArgument(f"logger: logging mode not supported: {mode[:40]}")
    if "max-buffer-size" in options and mode != "non-blocking":
        raise InvalidArgument(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'"
        )


def log_settings(request: LogRequest, config: RuntimeConfig) -> LogSettings:
    """What was asked for, over the daemon's own bounds. The request has passed :func:`check_log`."""
    options = request.options
    bytes_max, files_max = config.log_bytes_max, config.log_files_max
    if "max-size" in options:
        bytes_max = _size(options["max-size"])
        files_max = files_max if request.driver == LOCAL else 1
    if "max-file" in options:
        files_max = _count(options["max-file"])
    compressed = _truth(options.get("compress", "0"))
    return LogSettings(request.driver or JSON_FILE, bytes_max, files_max, compressed)


def log_words(settings: LogSettings, record: ContainerRecord, log: Path) -> Sequence[str]:
    """What conmon is told about the log; ``log`` is the current file."""
    match settings.driver:
        case "none":
            return ("-l", "none")
        case "journald":
            return ("-l", "journald:", "--log-tag", tag(record))
        case _:
            return ("-l", f"k8s-file:{log}", "--log-size-max", str(settings.cut_bytes))


def details(record: ContainerRecord) -> str:
    """What ``--details`` shows of each line: ``key=value`` joined by commas, sorted, as in a URL's query."""
    options = record.request.log.options
    env = dict(entry.partition("=")[::2] for entry in record.env)
    chosen = dict(_chosen(record.labels, options.get("labels", ""), options.get("labels-regex")))
    chosen |= _chosen(env, options.get("env", ""), options.get("env-regex"))
    if options.get("tag"):
        chosen["tag"] = tag(record)
    return ",".join(
        f"{quote_plus(key)}={quote_plus(value)}" for key, value in sorted(chosen.items())
    )


def tag(record: ContainerRecord) -> str:
    """The tag, its fields filled in; by default the short id."""
    template = record.request.log.options.get("tag") or "{{.ID}}"
    return _FIELD.sub(lambda field: _FIELDS[field[1]](record), template)


def _chosen(
    values: Mapping[str, str], names: str, pattern: str | None
) -> Iterator[tuple[str, str]]:
    wanted = {name.strip() for name in names.split(",")}
    matches = compiled(pattern).found_in if pattern else None
    return (
        (key, value)
        for key, value in values.items()
        if key in wanted or (matches is not None and matches(key))
    )


def _size(text: str) -> int:
    size = size_bytes(text)
    if size is None:
        raise _unusable(f"invalid size: '{text[:40]}'")
    if size <= 0:
        raise _unusable("max-size must be a positive number")
    return size


def _count(text: str) -> int:
    number = count(text)
    if number is None:
        raise _unusable(f"max-file {text[:40]!r} is no whole number")
    if number < 1:
        raise _unusable("max-file cannot be less than 1")
    if number > FILES_MAX_MAX:
        raise _unusable(f"max-file cannot be more than {FILES_MAX_MAX}")
    return number


def _truth(text: str) -> bool:
    if text.lower() not in _TRUTHS:
        raise _unusable(f"compress {text[:40]!r} is neither true nor false")
    return _TRUTHS[text.lower()]


def _tag(text: str) -> None:
    rest = _FIELD.sub(lambda field: "" if field[1] in _FIELDS else field[0], text)
    if "{{" in rest or "}}" in rest:
        raise _unusable(f"cannot read the tag {text[:80]!r}", ", ".join(sorted(_FIELDS)))


def _pattern(text: str) -> None:
    try:
        compiled(text)
    except ValueError as error:
        raise _unusable(str(error)) from error


def _anything(_: str) -> None:
    """Every value will do."""


def _unusable(why: str, hint: str = "") -> InvalidArgument:
    return InvalidArgument(f"failed to initialize logging driver: {why}", hint)


_VALUES: Mapping[str, Callable[[str], object]] = {
    "max-size": _size,
    "max-buffer-size": _size,
    "max-file": _count,
    "compress": _truth,
    "tag": _tag,
    "labels-regex": _pattern,
    "env-regex": _pattern,
}

_FIELDS: Mapping[str, Callable[[ContainerRecord], str]] = {
    "ID": lambda record: record.short_id,
    "FullID": lambda record: record.id,
    "Name": lambda record: record.name,
    "ImageID": lambda record: record.image_id.removeprefix("sha256:")[:12],
    "ImageFullID": lambda record: record.image_id,
    "ImageName": lambda record: record.image_reference,
    "DaemonName": lambda _: "docker",
    "Command": lambda record: " ".join(record.args),
    "Hostname": lambda record: record.hostname,
}

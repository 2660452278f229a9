"""What an image says of itself: Docker's image config, which the OCI image specification took over, and what binds images together.

Rules:
    What we do not know is kept (``extra``), so that a config goes through us unharmed.
    What comes in is hostile: everything is checked for its type and its size; all that is wrong is an InvalidArgument.
    ``diff_ids`` are the digests of the layers' tars as they are uncompressed, bottom first.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Mapping, Sequence

import attrs
import orjson

from supervisor.errors import InvalidArgument
from supervisor.oci import digest as digests

CONFIG_BYTES_MAX = 4 << 20
MANIFEST_BYTES_MAX = 4 << 20

MEDIA_INDEX = "application/vnd.oci.image.index.v1+json"
MEDIA_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
MEDIA_CONFIG = "application/vnd.oci.image.config.v1+json"
MEDIA_LAYER = "application/vnd.oci.image.layer.v1.tar"
MEDIA_DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
MEDIA_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

INDEXES = frozenset({MEDIA_INDEX, MEDIA_DOCKER_INDEX})
MANIFESTS = frozenset({MEDIA_MANIFEST, MEDIA_DOCKER_MANIFEST})

ANNOTATION_REFERENCE = "org.opencontainers.image.ref.name"
ANNOTATION_IMAGE_NAME = "io.containerd.image.name"

Json = Mapping[str, object]


@attrs.frozen
class HealthCheck:
    """``Healthcheck`` of a config; times in nanoseconds, 0 for the default."""

    test: tuple[str, ...] = ()
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    retries: int = 0


@attrs.frozen
class Execution:
    """How containers of the image are run: the ``config`` object within the image config.

    ``cmd``, ``entrypoint`` and ``shell`` are ``None`` where the image does not say.
    """

    env: tuple[str, ...] = ()
    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = attrs.field(factory=dict)
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    stop_seconds: int | None = None
    shell: tuple[str, ...] | None = None
    health: HealthCheck | None = None
    on_build: tuple[str, ...] = ()
    extra: Json = attrs.field(factory=dict)


@attrs.frozen
class History:
    """One step of an image's making. ``created`` is RFC 3339 or empty."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    author: str = ""
    empty_layer: bool = False


@attrs.frozen
class ImageConfig:
    """The image config: platform, execution, layers, history."""

    architecture: str = "amd64"
    os: str = "linux"
    variant: str = ""
    created: str = ""
    author: str = ""
    config: Execution = Execution()
    diff_ids: tuple[str, ...] = ()
    history: tuple[History, ...] = ()
    extra: Json = attrs.field(factory=dict)


@attrs.frozen
class Descriptor:
    """What points to content: media type, digest, size in bytes."""

    media_type: str
    digest: str
    size: int
    annotations: Mapping[str, str] = attrs.field(factory=dict)
    architecture: str = ""
    os: str = ""


@attrs.frozen
class Manifest:
    """An OCI or Docker schema 2 manifest: a config and its layers, bottom first."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


@attrs.frozen
class ArchiveEntry:
    """One image of a ``docker save`` archive: paths within the archive, and names."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...] = ()


def parse_config(data: bytes) -> ImageConfig:
    """Read an image config.

    Raises:
        InvalidArgument: It is not one.
    """
    whole = _object(_json(data, "image config", CONFIG_BYTES_MAX), "image config")
    rootfs = _object(whole.get("rootfs") or {}, "rootfs")
    if rootfs.get("type", "layers") != "layers":
        raise _wrong("rootfs.type", "only layers are known")
    diff_ids = tuple(
        digests.parse(one, "diff_id") for one in _list(rootfs.get("diff_ids"), "rootfs.diff_ids")
    )
    known = {"architecture", "os", "variant", "created", "author", "config", "rootfs", "history"}
    return ImageConfig(
        architecture=_text(whole, "architecture"),
        os=_text(whole, "os") or "linux",
        variant=_text(whole, "variant"),
        created=_text(whole, "created"),
        author=_text(whole, "author"),
        config=parse_execution(_object(whole.get("config") or {}, "config")),
        diff_ids=diff_ids,
        history=tuple(_history(one) for one in _list(whole.get("history"), "history")),
        extra={key: value for key, value in whole.items() if key not in known},
    )


def parse_execution(table: Json) -> Execution:
    """Read the ``config`` object, as it stands in an image config and in Docker's API.

    Raises:
        InvalidArgument: A field is of another type than it should be, or a volume lies outside.
    """
    labels = _object(table.get("Labels") or {}, "Labels")
    stop_seconds = table.get("StopTimeout")
    return Execution(
        env=_texts(table.get("Env"), "Env") or (),
        cmd=_texts(table.get("Cmd"), "Cmd"),
        entrypoint=_texts(table.get("Entrypoint"), "Entrypoint"),
        working_dir=_text(table, "WorkingDir"),
        user=_text(table, "User"),
        labels={key: _string(value, f"Labels.{key}") for key, value in labels.items()},
        exposed_ports=tuple(_object(table.get("ExposedPorts") or {}, "ExposedPorts")),
        volumes=tuple(_volume(path) for path in _object(table.get("Volumes") or {}, "Volumes")),
        stop_signal=_text(table, "StopSignal"),
        stop_seconds=None if stop_seconds is None else _integer(stop_seconds, "StopTimeout"),
        shell=_texts(table.get("Shell"), "Shell"),
        health=_health(table.get("Healthcheck")),
        on_build=_texts(table.get("OnBuild"), "OnBuild") or (),
        extra={key: value for key, value in table.items() if key not in _EXECUTION_KEYS},
    )


def config_json(config: ImageConfig) -> bytes:
    """The config as bytes, the same for the same config: what its digest, the image id, is taken of."""
    table: dict[str, object] = {
        **config.extra,
        "architecture": config.architecture,
        "os": config.os,
        "config": execution_table(config.config),
        "rootfs": {"type": "layers", "diff_ids": list(config.diff_ids)},
        "history": [_history_table(one) for one in config.history],
    }
    table |= {
        key: value
        for key in ("variant", "created", "author")
        if (value := str(getattr(config, key)))
    }
    return orjson.dumps(table, option=orjson.OPT_SORT_KEYS)


def execution_table(execution: Execution) -> dict[str, object]:
    """The ``config`` object, with Docker's names; what is not said is left out."""
    table: dict[str, object] = dict(execution.extra)
    optional: Iterable[tuple[str, object]] = (
        ("Env", list(execution.env)),
        ("WorkingDir", execution.working_dir),
        ("User", execution.user),
        ("Labels", dict(execution.labels)),
        ("ExposedPorts", {port: {} for port in execution.exposed_ports}),
        ("Volumes", {path: {} for path in execution.volumes}),
        ("StopSignal", execution.stop_signal),
        ("OnBuild", list(execution.on_build)),
    )
    table |= {key: value for key, value in optional if value}
    stated = (
        ("Cmd", execution.cmd),
        ("Entrypoint", execution.entrypoint),
        ("Shell", execution.shell),
    )
    table |= {key: list(value) for key, value in stated if value is not None}
    if execution.stop_seconds is not None:
        table["StopTimeout"] = execution.stop_seconds
    if execution.health is not None:
        table["Healthcheck"] = _health_table(execution.health)
    return table


def parse_manifest(data: bytes) -> Manifest:
    """Read an OCI or Docker manifest.

    Raises:
        InvalidArgument: It is not one. A manifest with ``manifests`` (manifest confusion, CVE-2021-41190) is refused.
    """
    table = _object(_json(data, "manifest", MANIFEST_BYTES_MAX), "manifest")
    if "manifests" in table:
        raise _wrong("manifest", "it says manifests and is meant to be no index")
    config = parse_descriptor(table.get("config"), "config")
    layers = tuple(parse_descriptor(one, "layers") for one in _list(table.get("layers"), "layers"))
    return Manifest(config, layers)


def parse_index(data: bytes) -> tuple[Descriptor, ...]:
    """Read an OCI index: the descriptors of its manifests.

    Raises:
        InvalidArgument: It is not one, or it is also a manifest.
    """
    table = _object(_json(data, "index", MANIFEST_BYTES_MAX), "index")
    if "layers" in table or "config" in table:
        raise _wrong("index", "it says layers or config and is meant to be no manifest")
    return tuple(
        parse_descriptor(one, "manifests") for one in _list(table.get("manifests"), "manifests")
    )


def parse_descriptor(value: object, where: str) -> Descriptor:
    """Read a descriptor. ``urls`` are not read: nothing is ever fetched from where an archive says.

    Raises:
        InvalidArgument: It is not one.
    """
    table = _object(value, where)
    size = _integer(table.get("size"), f"{where}.size")
    if size < 0:
        raise _wrong(f"{where}.size", "it is negative")
    platform = _object(table.get("platform") or {}, f"{where}.platform")
    annotations = _object(table.get("annotations") or {}, f"{where}.annotations")
    return Descriptor(
        media_type=_text(table, "mediaType"),
        digest=digests.parse(table.get("digest")),
        size=size,
        annotations={key: _string(one, "annotations") for key, one in annotations.items()},
        architecture=_text(platform, "architecture"),
        os=_text(platform, "os"),
    )


def parse_archive_manifest(data: bytes) -> tuple[ArchiveEntry, ...]:
    """Read the ``manifest.json`` of a ``docker save`` archive.

    Raises:
        InvalidArgument: It is not one.
    """
    entries = _list(_json(data, "manifest.json", MANIFEST_BYTES_MAX), "manifest.json")
    found = []
    for entry in entries:
        table = _object(entry, "manifest.json")
        layers = _texts(table.get("Layers"), "Layers") or ()
        tags = _texts(table.get("RepoTags"), "RepoTags") or ()
        found.append(ArchiveEntry(_string(table.get("Config"), "Config"), layers, tags))
    return tuple(found)


def descriptor_table(descriptor: Descriptor) -> dict[str, object]:
    """The descriptor as JSON has it."""
    table: dict[str, object] = {
        "mediaType": descriptor.media_type,
        "digest": descriptor.digest,
        "size": descriptor.size,
    }
    if descriptor.annotations:
        table["annotations"] = dict(descriptor.annotations)
    if descriptor.architecture:
        table["platform"] = {"architecture": descriptor.architecture, "os": descriptor.os}
    return table


def manifest_json(manifest: Manifest) -> bytes:
    """The manifest as bytes, the same for the same manifest."""
    return orjson.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MEDIA_MANIFEST,
            "config": descriptor_table(manifest.config),
            "layers": [descriptor_table(one) for one in manifest.layers],
        }
    )


def index_json(manifests: Sequence[Descriptor]) -> bytes:
    """An index of ``manifests`` as bytes."""
    listed = [descriptor_table(one) for one in manifests]
    return orjson.dumps({"schemaVersion": 2, "mediaType": MEDIA_INDEX, "manifests": listed})


_EXECUTION_KEYS = frozenset({
    "Env", "Cmd", "Entrypoint", "WorkingDir", "User", "Labels", "ExposedPorts", "Volumes",
    "StopSignal", "StopTimeout", "Shell", "Healthcheck", "OnBuild",
})  # fmt: skip


def _history(value: object) -> History:
    table = _object(value, "history")
    return History(
        created=_text(table, "created"),
        created_by=_text(table, "created_by"),
        comment=_text(table, "comment"),
        author=_text(table, "author"),
        empty_layer=table.get("empty_layer") is True,
    )


def _history_table(history: History) -> dict[str, object]:
    return {key: value for key, value in attrs.asdict(history).items() if value}


def _health(value: object) -> HealthCheck | None:
    if value is None:
        return None
    table = _object(value, "Healthcheck")
    keys = ("Interval", "Timeout", "StartPeriod", "Retries")
    numbers = [_integer(table.get(key) or 0, f"Healthcheck.{key}") for key in keys]
    return HealthCheck(_texts(table.get("Test"), "Healthcheck.Test") or (), *numbers)


def _health_table(health: HealthCheck) -> dict[str, object]:
    table: dict[str, object] = {"Test": list(health.test)} if health.test else {}
    numbers = (
        ("Interval", health.interval_ns),
        ("Timeout", health.timeout_ns),
        ("StartPeriod", health.start_period_ns),
        ("Retries", health.retries),
    )
    return table | {key: value for key, value in numbers if value}


def _volume(path: str) -> str:
    """A volume lies at an absolute path in the container; one that climbs is an attack (CVE-2022-23648)."""
    if ".." in path.split("/") or "\0" in path or not path.strip("/"):
        raise _wrong(f"Volumes {path!r:.200}", "it must be an absolute path below /, without ..")
    return posixpath.normpath("/" + path.lstrip("/"))


def _json(data: bytes, what: str, bytes_max: int) -> object:
    if len(data) > bytes_max:
        raise _wrong(what, f"it is larger than {bytes_max} bytes")
    try:
        loaded: object = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise _wrong(what, str(error)) from error
    return loaded


def _object(value: object, where: str) -> Json:
    if isinstance(value, dict):
        return value
    raise _wrong(where, "it is not an object")


def _list(value: object, where: str) -> list[object]:
    if value is None:
        return []
    if isinstance(value, list):
        return value
    raise _wrong(where, "it is not a list")


def _text(table: Json, key: str) -> str:
    value = table.get(key)
    return "" if value is None else _string(value, key)


def _string(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    raise _wrong(where, "it is not a text")


def _texts(value: object, where: str) -> tuple[str, ...] | None:
    return None if value is None else tuple(_string(one, where) for one in _list(value, where))


def _integer(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise _wrong(where, "it is not a whole number")


def _wrong(where: str, why: str) -> InvalidArgument:
    return InvalidArgument(f"cannot read the image: {where}: {why}")

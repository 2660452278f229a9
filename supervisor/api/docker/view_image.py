"""Our records of images as Docker's JSON. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from supervisor.api.http import JsonObject
from supervisor.clock import NANOSECONDS_PER_SECOND, rfc3339
from supervisor.oci.image import ImageConfig, execution_table

if TYPE_CHECKING:
    from supervisor.store.image_records import Image
    from supervisor.store.images import HistoryEntry

MISSING = "<missing>"
NONE = "<none>:<none>"
ALWAYS: JsonObject = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": False, "AttachStderr": False,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "", "Volumes": None,
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": None,
}  # fmt: skip
"""Fields clients read without asking whether they are there."""


def names_of(image: Image) -> list[str]:
    """Its names with tags, as people write them."""
    return [name.familiar for name in image.names]


def inspect(image: Image) -> JsonObject:
    """``GET /images/{name}/json``. ``ContainerConfig`` is the config again: docker-compose 1 reads it."""
    config = image.config
    execution = {**ALWAYS, **execution_table(config.config)}
    return {
        "Id": image.id,
        "RepoTags": names_of(image),
        "RepoDigests": [],
        "Parent": image.parent,
        "Comment": config.history[-1].comment if config.history else "",
        "Created": config.created or "0001-01-01T00:00:00Z",
        "Container": str(config.extra.get("container", "")),
        "ContainerConfig": _container_config(config) or execution,
        "DockerVersion": "",
        "Author": config.author,
        "Config": execution,
        "Architecture": config.architecture,
        **({"Variant": config.variant} if config.variant else {}),
        "Os": config.os,
        "Size": image.bytes,
        "VirtualSize": image.bytes,
        "GraphDriver": {"Data": None, "Name": "overlay2"},
        "RootFS": {"Type": "layers", "Layers": list(config.diff_ids)},
        "Metadata": {"LastTagTime": rfc3339(image.since_ns)},
    }


def _container_config(config: ImageConfig) -> JsonObject:
    """What the container was that the image was made of, if it was made so."""
    told = config.extra.get("container_config")
    return {**ALWAYS, **told} if isinstance(told, dict) and told else {}


def listed(image: Image, containers: int = -1) -> JsonObject:
    """One of ``GET /images/json``."""
    names = names_of(image)
    return {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": names or [NONE],
        "RepoDigests": [] if names else ["<none>@<none>"],
        "Created": max(image.created_ns // NANOSECONDS_PER_SECOND, 0),
        "Size": image.bytes,
        "SharedSize": -1,
        "VirtualSize": image.bytes,
        "Labels": dict(image.config.config.labels) or None,
        "Containers": containers,
    }


def history_step(step: HistoryEntry) -> JsonObject:
    """One of ``GET /images/{name}/history``."""
    return {
        "Id": step.id or MISSING,
        "Created": step.created_ns // NANOSECONDS_PER_SECOND,
        "CreatedBy": step.created_by,
        "Tags": list(step.names) or None,
        "Size": step.bytes,
        "Comment": step.comment,
    }

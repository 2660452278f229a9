"""Whatever another's things can be referred to in: routes, bodies that stand on them, filters; and what answers must not tell.

The routes are the daemon's own table, so that none can be forgotten; what they are sent is put together here.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from urllib.parse import quote

from supervisor.api.routes import ROUTES
from tests.support.asking import Answer
from tests.support.operations import BUSYBOX

KINDS = {
    "/containers/{id}": "container",
    "/exec/{id}": "exec",
    "/images/{name*}": "image",
    "/bakehouse/v1/images/{name*}": "image",
    "/distribution/{name*}": "image",
    "/networks/{id}": "network",
    "/volumes/{name}": "volume",
}
"""What a placeholder stands for, by what is before and in it."""
NOBODYS = ("/plugins", "/swarm", "/nodes", "/services", "/tasks", "/secrets", "/configs")
"""Answered alike to all, whatever follows."""
ADMINISTRATORS = ("/bakehouse/v1/owners",)
"""Refused to users before anything is looked up."""

QUERIES = {
    "/containers/{id}/rename": "name=taken-over",
    "/containers/{id}/archive": "path=/etc",
    "/containers/{id}/resize": "h=10&w=10",
    "/exec/{id}/resize": "h=10&w=10",
    "/containers/{id}/logs": "stdout=1",
    "/containers/{id}/attach": "logs=1&stream=1&stdout=1",
    "/containers/{id}/stats": "stream=0",
    "/images/{name*}/tag": "repo=mine&tag=latest",
}
BODIES: Mapping[str, object] = {
    "/containers/{id}/exec": {"Cmd": ["true"], "AttachStdout": True},
    "/containers/{id}/update": {"Memory": 67_108_864},
    "/exec/{id}/start": {"Detach": True},
    "/networks/{id}/connect": {"Container": "own"},
    "/networks/{id}/disconnect": {"Container": "own"},
}


def kind_of(path: str) -> str | None:
    """What the placeholder of a route stands for; None where there is none, or it stands for nothing of anybody's."""
    if "{" not in path or path.startswith((*NOBODYS, *ADMINISTRATORS)):
        return None
    return KINDS[path[: path.index("}") + 1]]


ASKING = [(method, path) for method, path, _, _ in ROUTES if kind_of(path)]


def absent(reference: str) -> str:
    """What looks like it and is nobody's."""
    if reference.startswith("sha256:"):
        return "sha256:" + absent(reference.removeprefix("sha256:"))
    if set(reference) <= set("0123456789abcdef"):
        return secrets.token_hex(32)[: len(reference)]
    return reference.replace("secret", "absent")


def told(answer: Answer, reference: str) -> tuple[int, str]:
    """Status and text, without what was asked for."""
    text = answer.body.decode(errors="replace")
    for part in sorted({reference, reference.partition(":")[0], quote(reference)}, key=len)[::-1]:
        text = text.replace(part, "X")
    return answer.status, text


def create(**more: object) -> dict[str, object]:
    return {"Image": BUSYBOX, "Cmd": ["true"], **more}


def host(**more: object) -> dict[str, object]:
    return create(HostConfig=more)


REFERRING: Mapping[str, Callable[[str], tuple[str, dict[str, object]]]] = {
    "network": lambda ref: ("container", host(NetworkMode=f"container:{ref}")),
    "pid": lambda ref: ("container", host(PidMode=f"container:{ref}")),
    "ipc": lambda ref: ("container", host(IpcMode=f"container:{ref}")),
    "volumes": lambda ref: ("container", host(VolumesFrom=[ref])),
    "links": lambda ref: ("container", host(Links=[f"{ref}:db"])),
    "named network": lambda ref: ("network", host(NetworkMode=ref)),
    "endpoint": lambda ref: (
        "network",
        create(HostConfig={"NetworkMode": ref}, NetworkingConfig={"EndpointsConfig": {ref: {}}}),
    ),
    "image": lambda ref: ("image", create(Image=ref)),
}
"""Containers that are to stand on another's: for each what it refers to, and the body."""


FILTERS = {
    "/containers/json?all=1": {
        "id": "container",
        "name": "container",
        "before": "container",
        "since": "container",
        "ancestor": "image",
        "volume": "volume",
        "network": "network",
    },
    "/images/json": {"before": "image", "since": "image", "reference": "image"},
    "/volumes": {"name": "volume"},
    "/networks": {"id": "network", "name": "network"},
    "/events?since=0&until={now}": {
        "container": "container",
        "image": "image",
        "volume": "volume",
        "network": "network",
    },
}

"""Every way in, on one screen: method, path, who may, and what serves it.

Rules: what is not here does not exist; a path may be preceded by an API version (``/v1.41``), which changes nothing but
is held to the range we speak; our own API lives below ``/bakehouse/v1`` and has no such prefix. Access here is the
first gate; what a handler changes goes before the policy as well.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Awaitable, Mapping

import attrs

from supervisor.access import suspension
from supervisor.access.identity import Identity
from supervisor.api.call import Call, Handler
from supervisor.api.connection import Connection
from supervisor.api.docker import (
    archive,
    attach,
    builds,
    commit,
    container_list,
    containers,
    execs,
    images,
    logs,
    networks,
    observe,
    refused,
    system,
    volumes,
)
from supervisor.api.docker.view_system import API_VERSION, API_VERSION_MIN, dotted
from supervisor.api.http import Head, HttpRefusedError, Response
from supervisor.api.native import base_image, host, own_view, people, session
from supervisor.api.native.hub import Hub
from supervisor.api.refusal import refusal
from supervisor.api.services import Services
from supervisor.errors import InvalidArgument, PermissionDenied

API_FIELDS = (
    ("Api-Version", dotted(API_VERSION)),
    ("Docker-Experimental", "false"),
    ("Ostype", "linux"),
    ("Server", "Bakehouse"),
)
"""Header fields of every answer."""


class Access(enum.Enum):
    """Who may use a route; strangers may use none."""

    USER = "user"
    WORK = "user, unless suspended"
    FILL = "user, unless suspended, or their disk is full"
    ADMIN = "admin"


USER, WORK, FILL, ADMIN = Access.USER, Access.WORK, Access.FILL, Access.ADMIN
ADMIN_RULE = "administrators-only"
_later = refused.refuse
_NO_PLUGINS = "volumes and networks are the daemon's own"
_ONE_HOST = "this daemon serves one host"

ROUTES: tuple[tuple[str, str, Access, Handler], ...] = (
    ("GET", "/_ping", USER, system.ping),
    ("HEAD", "/_ping", USER, system.ping),
    ("GET", "/version", USER, system.version_of),
    ("GET", "/info", USER, system.info_of),
    ("GET", "/events", USER, system.events),
    ("GET", "/system/df", USER, system.disk_usage),
    ("POST", "/auth", USER, system.login),
    ("GET", "/containers/json", USER, container_list.list_all),
    ("POST", "/containers/create", FILL, containers.create),
    ("POST", "/containers/prune", USER, container_list.prune),
    ("GET", "/containers/{id}/json", USER, container_list.inspect_one),
    ("GET", "/containers/{id}/top", USER, observe.top),
    ("GET", "/containers/{id}/logs", USER, logs.logs),
    ("GET", "/containers/{id}/stats", USER, observe.stats_of),
    ("GET", "/containers/{id}/changes", USER, commit.changes),
    ("GET", "/containers/{id}/export", USER, archive.export),
    ("GET", "/containers/{id}/attach/ws", USER, attach.attach_by_websocket),
    ("HEAD", "/containers/{id}/archive", USER, archive.look),
    ("GET", "/containers/{id}/archive", USER, archive.copy_out),
    ("PUT", "/containers/{id}/archive", FILL, archive.copy_in),
    ("POST", "/containers/{id}/start", FILL, containers.start),
    ("POST", "/containers/{id}/stop", USER, containers.stop),
    ("POST", "/containers/{id}/restart", FILL, containers.restart),
    ("POST", "/containers/{id}/kill", USER, containers.kill),
    ("POST", "/containers/{id}/pause", USER, containers.pause),
    ("POST", "/containers/{id}/unpause", WORK, containers.unpause),
    ("POST", "/containers/{id}/rename", USER, containers.rename),
    ("POST", "/containers/{id}/resize", USER, containers.resize),
    ("POST", "/containers/{id}/wait", USER, containers.wait),
    ("POST", "/containers/{id}/attach", USER, attach.attach),
    ("POST", "/containers/{id}/exec", FILL, execs.exec_create),
    ("POST", "/containers/{id}/update", WORK, containers.update),
    ("DELETE", "/containers/{id}", USER, containers.remove),
    ("DELETE", "/containers/{id}/{alias}", USER, containers.remove_link),
    ("POST", "/commit", FILL, commit.commit),
    ("POST", "/exec/{id}/start", WORK, execs.exec_start),
    ("POST", "/exec/{id}/resize", USER, execs.exec_resize),
    ("GET", "/exec/{id}/json", USER, execs.exec_inspect_one),
    ("GET", "/images/json", USER, images.list_all),
    ("GET", "/images/search", USER, images.search),
    ("GET", "/images/get", USER, images.save_many),
    ("POST", "/images/create", FILL, images.create),
    ("POST", "/images/load", FILL, images.load),
    ("POST", "/images/prune", USER, images.prune),
    ("GET", "/images/{name*}/json", USER, images.inspect_one),
    ("GET", "/images/{name*}/history", USER, images.history_of),
    ("GET", "/images/{name*}/get", USER, images.save_one),
    ("POST", "/images/{name*}/tag", WORK, images.tag),
    ("POST", "/images/{name*}/push", WORK, images.push),
    ("DELETE", "/images/{name*}", USER, images.remove),
    (
        "GET",
        "/distribution/{name*}/json",
        USER,
        _later("ask a registry", "there is no registry yet"),
    ),
    ("POST", "/build", FILL, builds.build),
    ("POST", "/build/prune", USER, builds.prune),
    (
        "POST",
        "/build/cancel",
        USER,
        _later("cancel the build by its id", "close the build's connection"),
    ),
    ("POST", "/session", USER, refused.buildkit),
    ("POST", "/grpc", USER, refused.buildkit),
    ("GET", "/networks", USER, networks.list_all),
    ("GET", "/networks/{id}", USER, networks.inspect_one),
    ("POST", "/networks/create", WORK, networks.create),
    ("POST", "/networks/prune", USER, networks.prune),
    ("POST", "/networks/{id}/connect", WORK, networks.connect),
    ("POST", "/networks/{id}/disconnect", USER, networks.disconnect),
    ("DELETE", "/networks/{id}", USER, networks.remove),
    ("GET", "/volumes", USER, volumes.list_all),
    ("POST", "/volumes/create", FILL, volumes.create),
    ("POST", "/volumes/prune", USER, volumes.prune),
    ("GET", "/volumes/{name}", USER, volumes.inspect_one),
    ("DELETE", "/volumes/{name}", USER, volumes.remove),
    ("GET", "/plugins", USER, refused.no_plugins),
    ("GET", "/plugins/privileges", USER, _later("ask for the plugin's privileges", _NO_PLUGINS)),
    ("POST", "/plugins/pull", USER, _later("install the plugin", _NO_PLUGINS)),
    ("POST", "/plugins/create", USER, _later("make a plugin", _NO_PLUGINS)),
    ("GET", "/plugins/{name*}/json", USER, refused.no_plugin),
    *(
        ("POST", f"/plugins/{{name*}}/{verb}", USER, refused.no_plugin)
        for verb in ("enable", "disable", "push", "upgrade", "set")
    ),
    ("DELETE", "/plugins/{name*}", USER, refused.no_plugin),
    ("POST", "/swarm/init", USER, _later("make a swarm", _ONE_HOST)),
    ("POST", "/swarm/join", USER, _later("join the swarm", _ONE_HOST)),
    ("POST", "/swarm/leave", USER, refused.no_swarm),
    *(
        (method, f"/{noun}{rest}", USER, refused.swarm)
        for noun in ("swarm", "nodes", "services", "tasks", "secrets", "configs")
        for method in ("GET", "POST", "DELETE")
        for rest in ("", "/{rest*}")
    ),
    ("GET", "/bakehouse/v1/stream", USER, session.stream),
    ("GET", "/bakehouse/v1/whoami", USER, people.whoami),
    ("GET", "/bakehouse/v1/monitor", USER, host.monitor),
    ("GET", "/bakehouse/v1/queue", USER, host.queue),
    ("GET", "/bakehouse/v1/health", USER, host.health),
    ("POST", "/bakehouse/v1/reload", ADMIN, host.reload),
    ("GET", "/bakehouse/v1/doctor", USER, own_view.doctor),
    ("GET", "/bakehouse/v1/quota", USER, people.quota),
    ("GET", "/bakehouse/v1/owners", ADMIN, people.list_all),
    ("GET", "/bakehouse/v1/owners/{uid}", ADMIN, people.show),
    ("POST", "/bakehouse/v1/owners/{uid}", ADMIN, people.change),
    ("POST", "/bakehouse/v1/owners/{uid}/suspend", ADMIN, people.suspend),
    ("POST", "/bakehouse/v1/owners/{uid}/resume", ADMIN, people.resume),
    ("POST", "/bakehouse/v1/images/bootstrap", FILL, base_image.bootstrap),
    ("POST", "/bakehouse/v1/images/{name*}/publish", ADMIN, base_image.publish),
)
"""The first that matches is taken."""

_VERSIONED = re.compile(r"/v([0-9]{1,3})\.([0-9]{1,3})(/.*)")
_NATIVE = "/bakehouse/"


@attrs.frozen
class Route:
    """A row of the table, ready to match."""

    method: str
    pattern: re.Pattern[str]
    access: Access
    handler: Handler


def _compiled(pattern: str) -> re.Pattern[str]:
    """``{x}`` is one segment of a path, ``{x*}`` one or more."""
    words = re.split(r"\{([a-z]+\*?)\}", pattern)
    parts = [
        re.escape(word)
        if index % 2 == 0
        else f"(?P<{word.removesuffix('*')}>{'.+' if word.endswith('*') else '[^/]+'})"
        for index, word in enumerate(words)
    ]
    return re.compile("".join(parts), re.DOTALL)


_TABLE = tuple(
    Route(method, _compiled(pattern), access, handler)
    for method, pattern, access, handler in ROUTES
)


def match(method: str, path: str) -> tuple[Route, Mapping[str, str]]:
    """The route for a request, and what its pattern names in the path.

    Raises:
        HttpRefusedError: 404 if nothing is there, 405 if it takes other methods.
    """
    methods: set[str] = set()
    for route in _TABLE:
        found = route.pattern.fullmatch(path)
        if found and route.method == method:
            return route, found.groupdict()
        if found:
            methods.add(route.method)
    if methods:
        raise HttpRefusedError(405, f"method not allowed; allowed: {', '.join(sorted(methods))}")
    raise HttpRefusedError(404, "page not found")


def split_version(path: str) -> tuple[tuple[int, int], str]:
    """The API version a path begins with, or ours, and the rest.

    Raises:
        InvalidArgument: We do not speak that version; dockerd's wording.
    """
    found = _VERSIONED.fullmatch(path)
    if found is None or found[3].startswith(_NATIVE):
        return API_VERSION, path
    version = int(found[1]), int(found[2])
    if version > API_VERSION:
        raise InvalidArgument(
            f"client version {dotted(version)} is too new. Maximum supported API version is {dotted(API_VERSION)}"
        )
    if version < API_VERSION_MIN:
        raise InvalidArgument(
            f"client version {dotted(version)} is too old. Minimum supported API version is {dotted(API_VERSION_MIN)}, "
            "please upgrade your client to a newer version"
        )
    return version, found[3]


@attrs.frozen
class Caller:
    """Who is served on a connection, and by what."""

    identity: Identity
    services: Services
    hub: Hub


async def _admit(route: Route, asked: str, caller: Caller) -> None:
    """The first gate, by the route alone.

    Raises:
        PermissionDenied: It is not for this caller; it is an event.
        ResourceExhausted: Their things take as much of the disk as they may.
    """
    identity, audit = caller.identity, caller.services.audit
    if route.access is Access.ADMIN and not identity.admin:
        message = f"cannot use {asked}: refused by the rule {ADMIN_RULE}: it is for administrators"
        await audit.refused(identity.owner, asked, ADMIN_RULE, message)
        raise PermissionDenied(message)
    if route.access in {Access.WORK, Access.FILL}:
        try:
            caller.services.suspensions.check(identity)
        except PermissionDenied as error:
            await audit.refused(identity.owner, asked, suspension.RULE, error.message)
            raise
    if route.access is Access.FILL:
        await caller.services.disk.admit(identity.owner)


async def dispatch(connection: Connection, head: Head, caller: Caller) -> Response | None:
    """Serve one request; None when the handler has answered itself."""
    version, path = split_version(head.path)
    try:
        route, parameters = match(head.method, path)
    except HttpRefusedError as error:
        return refusal(error)  # the connection may go on
    await _admit(route, f"{head.method} {path}", caller)
    call = Call(head, caller.identity, parameters, version, connection, caller.services, caller.hub)
    answer = route.handler(call)
    return await answer if isinstance(answer, Awaitable) else answer

"""What is not served: each by its name, with what can be done instead.

Swarm and its friends are answered as a daemon outside a swarm does, which clients know how to take.
"""

from __future__ import annotations

from supervisor.api.call import Call, Handler
from supervisor.api.docker.shape_build import BUILDKIT_HINT
from supervisor.api.http import Response, json_response
from supervisor.errors import NotFound, Unavailable

NO_SWARM = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


def buildkit(call: Call) -> Response:
    """``POST /session`` and ``/grpc``."""
    raise Unavailable(
        f"cannot open {call.head.path}: this daemon does not speak BuildKit's protocol",
        BUILDKIT_HINT,
    )


def swarm(_call: Call) -> Response:
    """Everything about swarms, nodes, services, tasks, secrets and configs."""
    raise Unavailable(NO_SWARM)


def no_swarm(_call: Call) -> Response:
    """Leaving a swarm."""
    raise Unavailable("This node is not part of a swarm")


def no_plugins(_call: Call) -> Response:
    """``GET /plugins``."""
    return json_response([])


def no_plugin(call: Call) -> Response:
    """Everything about one plugin."""
    raise NotFound(f'plugin "{call["name"]}" not found')


def refuse(what: str, hint: str = "") -> Handler:
    """A handler that refuses to ``what``, a verb and its object."""

    def handler(_call: Call) -> Response:
        raise Unavailable(f"cannot {what}: not supported by this daemon", hint)

    return handler

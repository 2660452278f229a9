"""One request on its way through a handler.

Rules: a handler returns the answer, or None when it has answered itself through the connection (a stream, a hijack);
whatever changes something is put before the policy as the very object that is then used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import attrs

from supervisor.access.identity import Identity
from supervisor.access.policy import Action, Request
from supervisor.api.connection import Connection
from supervisor.api.http import Head, JsonObject, Query, Response
from supervisor.api.json_body import parse_object
from supervisor.api.native.hub import Hub
from supervisor.api.services import Services


@attrs.frozen
class Call:
    """A routed request.

    Attributes:
        parameters: What the route's pattern named in the path.
        version: The API version the path asks for.
        hub: Where event streams meet.
    """

    head: Head
    identity: Identity
    parameters: Mapping[str, str]
    version: tuple[int, int]
    connection: Connection
    services: Services
    hub: Hub

    @property
    def query(self) -> Query:
        """The request's query."""
        return self.head.query

    def __getitem__(self, name: str) -> str:
        """A parameter of the path."""
        return self.parameters[name]

    async def json(self) -> JsonObject:
        """The request's body, a JSON object.

        Raises:
            InvalidArgument: It is too long, or is not such a thing.
        """
        return parse_object(
            await self.connection.whole_body(self.services.config.api.json_body_bytes_max)
        )

    async def allow(self, action: Action, request: Request, subject: str = "") -> None:
        """Put ``request``, the object that will be acted on, before the policy.

        Raises:
            InvalidArgument: It asks for what nobody is served.
            PermissionDenied: Policy refuses it; every rule that does is told.
        """
        await self.services.audit.enforce(self.identity, action, request, subject)


Handler = Callable[[Call], Awaitable[Response | None] | Response]
"""Those that only look need not be asynchronous."""

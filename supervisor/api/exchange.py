"""The exchanges of one connection, one after the other, until it ends.

Rules: a failure we expect is told to the client and ends with its request; a bug is told as such, then let through, as
nobody knows what it has left behind: it takes the daemon down, and the next start recovers.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from supervisor.api.connection import Connection
from supervisor.api.http import ClientGoneError, Head, HttpRefusedError, Response
from supervisor.api.refusal import bug, expected, refusal
from supervisor.errors import BakehouseError

LOG = logging.getLogger(__name__)

Answer = Callable[[Connection, Head], Awaitable[Response | None]]


async def serve_exchanges(connection: Connection, answer: Answer) -> None:
    """Answer requests with ``answer`` until the client leaves, or may not go on."""
    while await _exchange(connection, answer):
        if connection.finished():
            await connection.linger()
            return


async def turn_away(connection: Connection, error: BakehouseError) -> None:
    """Answer the first request with ``error``, whatever it is, and end the connection."""

    async def refuse(_connection: Connection, _head: Head) -> Response:  # noqa: RUF029  # an Answer
        raise error

    if await _exchange(connection, refuse):
        await connection.linger()


async def _exchange(connection: Connection, answer: Answer) -> bool:
    """One request and its answer; False when there is nobody to go on with."""
    try:
        head = await connection.next_head()
        if head is None:
            return False
        response = await answer(connection, head)
        if response is not None:
            await connection.reply(response)
    except Exception as error:  # noqa: BLE001  # what is no expected failure is raised again
        return await _failed(connection, error)
    return True


async def _failed(connection: Connection, error: Exception) -> bool:
    """Tell the client what became of its request, and let a bug through."""
    told = expected(error)
    if told is None:
        await _tell(connection, bug())
        raise error
    if isinstance(told, ClientGoneError):
        return False
    return await _refuse(connection, told)


async def _refuse(connection: Connection, error: BakehouseError | HttpRefusedError) -> bool:
    """Tell the client, unless an answer is already under way: then only the log is left."""
    if connection.answered:
        LOG.info("an answer was cut short: %s", error)
        return False
    return await _tell(connection, refusal(error), final=isinstance(error, HttpRefusedError))


async def _tell(connection: Connection, response: Response, *, final: bool = True) -> bool:
    try:
        if not final:
            await connection.reply(response)
        else:
            await connection.refuse(response)
            await connection.linger()
    except ClientGoneError:
        return False
    return not final

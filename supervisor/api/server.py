"""The socket, and a task for every connection to it.

Rules: whose a connection is, is asked once, when it is accepted; everybody may hold so many connections and no more;
a stale socket file is replaced only when nobody answers on it.
"""

from __future__ import annotations

import collections
import grp
import logging
import os
import secrets
import socket
import stat
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

import attrs
import trio

from supervisor.access.audit import STRANGERS
from supervisor.api.connection import Connection
from supervisor.api.ending import Ending
from supervisor.api.exchange import serve_exchanges, turn_away
from supervisor.api.http import Head, Response
from supervisor.api.native.hub import Hub, open_hub
from supervisor.api.routes import API_FIELDS, Caller, dispatch
from supervisor.api.services import Services
from supervisor.config import Config
from supervisor.errors import BakehouseError, Conflict, ResourceExhausted, Unavailable
from supervisor.linux.peer import Peer, peer_of
from supervisor.tasks import in_thread

BACKLOG = 1_024
SOCKET_MODE = 0o660
STRANGERS_CONNECTIONS_MAX = 64
IDENTIFY_SECONDS_MAX = 10.0
LAST_WORDS_SECONDS = 20.0

LOG = logging.getLogger(__name__)


@attrs.frozen
class Api:
    """The API as it is served.

    Attributes:
        places: The paths of its sockets.
        server: Answers there.
    """

    places: Sequence[str]
    server: Server

    async def beat(self) -> None:
        """Return when all sockets are accepted at; see :meth:`Server.beat`."""
        for place in self.places:
            await self.server.beat(place)


@asynccontextmanager
async def open_api(
    services: Services, activated: Sequence[socket.socket] = ()
) -> AsyncIterator[Api]:
    """Serve the API until the block is left.

    Args:
        services: What it stands on.
        activated: Sockets the service manager listens on already; without any, one is made at the configured path.

    Raises:
        Conflict: Another daemon answers on that socket.
        Unavailable: The socket cannot be made.
    """
    async with open_listeners(services.config, activated) as listeners:
        async with open_hub(services.events) as hub, trio.open_nursery() as nursery:
            server = Server(services, hub)
            nursery.start_soon(server.serve, listeners, nursery)
            yield Api([str(each.socket.getsockname()) for each in listeners], server)
            with trio.move_on_after(LAST_WORDS_SECONDS):
                await server.ending.begin()
            nursery.cancel_scope.cancel()


class Server:
    """Accepts connections, and serves each in a task of its own."""

    def __init__(self, services: Services, hub: Hub) -> None:
        self._services = services
        self._hub = hub
        self._open: collections.Counter[int] = collections.Counter()
        self.ending = Ending()
        self._heart = f"\0bakehouse-{secrets.token_hex(16)}".encode()

    async def beat(self, path: str) -> None:
        """Return when a connection of our own to ``path`` was accepted, and ended.

        Raises:
            OSError: None can be made. That the path is gone is somebody's doing, and no fault of ours.
        """
        with trio.socket.socket(socket.AF_UNIX) as asking:
            await asking.bind(self._heart)
            try:
                await asking.connect(path)
            except FileNotFoundError:
                LOG.warning("nobody can reach this daemon: %s is gone", path)
                return
            await asking.recv(1)

    async def serve(self, listeners: Sequence[trio.SocketListener], nursery: trio.Nursery) -> None:
        """Accept until cancelled."""
        await trio.serve_listeners(self.serve_socket, list(listeners), handler_nursery=nursery)

    async def serve_socket(self, stream: trio.SocketStream) -> None:
        """One connection, from accept to close."""
        config = self._services.config.api
        connection = Connection(stream, config, API_FIELDS, stream.socket.fileno(), self.ending)
        try:
            peer = _peer(stream)
        except OSError:  # from another user namespace, or gone already: nobody we could answer to
            return
        if stream.socket.getpeername() == self._heart:  # see beat()
            await stream.aclose()
            return
        with self._counted(peer.uid) as open_now:
            try:
                with trio.fail_after(IDENTIFY_SECONDS_MAX):
                    identity = await self._services.owners.identify(peer)
            except trio.TooSlowError:
                await turn_away(connection, _no_directory())
                return
            except BakehouseError as error:
                await self._services.audit.refused(STRANGERS, "connect", "stranger", error.message)
                if open_now <= STRANGERS_CONNECTIONS_MAX:
                    await turn_away(connection, error)
                return
            if open_now > config.connections_per_owner_max:
                await turn_away(
                    connection, _too_many(identity.user, config.connections_per_owner_max)
                )
                return

            async def answer(connection: Connection, head: Head) -> Response | None:
                return await dispatch(connection, head, Caller(identity, self._services, self._hub))

            await serve_exchanges(connection, answer)

    @contextmanager
    def _counted(self, uid: int) -> Iterator[int]:
        self._open[uid] += 1
        try:
            yield self._open[uid]
        finally:
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]


def _peer(stream: trio.SocketStream) -> Peer:
    """Who is at the other end; the connection's own end is theirs alone, so a copy of the fd is asked."""
    with socket.fromfd(stream.socket.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as copy:
        peer = peer_of(copy)
    if peer.pidfd is not None:
        os.close(peer.pidfd)
    return attrs.evolve(peer, pidfd=None)


def _no_directory() -> Unavailable:
    return Unavailable(
        "cannot tell who you are: the account directory does not answer", "try again in a moment"
    )


def _too_many(user: str, most: int) -> ResourceExhausted:
    return ResourceExhausted(
        f"cannot serve {user}: {most} connections are already open", "close some of them"
    )


@asynccontextmanager
async def open_listeners(
    config: Config, activated: Sequence[socket.socket] = ()
) -> AsyncIterator[Sequence[trio.SocketListener]]:
    """The sockets the service manager handed over, else one made at the configured path and removed at the end."""
    async with AsyncExitStack() as stack:
        listening = list(activated)
        if not listening:
            path = config.socket_path
            listening.append(await in_thread(lambda: _bind(path, config.access.user_group)))
            stack.callback(_unlink_if_same, path, path.stat())
        yield [
            await stack.enter_async_context(
                trio.SocketListener(trio.socket.from_stdlib_socket(each))
            )
            for each in listening
        ]


def _bind(path: Path, group: str) -> socket.socket:
    """A listening socket at ``path``, for root and ``group`` where that exists.

    It listens only after it has its owner and mode: until then nobody can connect.
    """
    _check_unused(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        listening.bind(str(path))
        path.chmod(SOCKET_MODE)
        gid = _group_id(group)
        if gid is not None:
            os.chown(path, -1, gid)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise Unavailable(f"cannot listen on {path}: {error.strerror or error}") from error
    return listening


def _check_unused(path: Path) -> None:
    """Refuse to take the place of a daemon that answers, or of something that is no socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise Conflict(f"cannot listen on {path}: there is something else than a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return
        except OSError as error:
            raise Unavailable(f"cannot listen on {path}: {error.strerror}") from error
    raise Conflict(
        f"cannot listen on {path}: another daemon answers there",
        "stop it, or choose another --socket",
    )


def _group_id(name: str) -> int | None:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None


def _unlink_if_same(path: Path, made: os.stat_result) -> None:
    """Leave the socket of a daemon that has taken over the path since."""
    try:
        there = path.lstat()
    except FileNotFoundError:
        return
    if (there.st_dev, there.st_ino) == (made.st_dev, made.st_ino):
        path.unlink(missing_ok=True)

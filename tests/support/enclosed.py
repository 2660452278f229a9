"""A host of its own for the network: a daemon in a network namespace, with a wire to a machine outside.

What is done here to firewalls, routes and ports is done to nobody else on this machine.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import attrs

from tests.support.accounts import User
from tests.support.daemon import Daemon, new_daemon

HOST, OUTSIDE = "198.18.0.1", "198.18.0.2"
ENCLOSE = ("unshare", "--net", "sh", "-ec", 'ip link set lo up; exec "$@"', "sh")
ANSWER_SECONDS = "0.5"

SERVE = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
sock = socket.socket(family, kind)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind((sys.argv[2], int(sys.argv[3])))
if kind == socket.SOCK_STREAM:
    sock.listen()
print("ready", flush=True)
while True:
    if kind == socket.SOCK_STREAM:
        client, _ = sock.accept()
        client.sendall(sys.argv[4].encode())
        client.close()
    else:
        data, peer = sock.recvfrom(100)
        sock.sendto(sys.argv[4].encode(), peer)
"""
ASK = """
import socket, sys
kind = socket.SOCK_DGRAM if sys.argv[1] == "udp" else socket.SOCK_STREAM
target = socket.getaddrinfo(sys.argv[2], int(sys.argv[3]))[0][4]
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET, kind)
sock.settimeout(float(sys.argv[4]))
try:
    sock.connect(target)
    if kind == socket.SOCK_DGRAM:
        sock.send(b"?")
    print(sock.recv(100).decode(), end="")
except OSError as error:
    print(error, file=sys.stderr)
"""


@attrs.frozen
class Place:
    """A network namespace, by a process in it."""

    pid: int

    def run(self, *argv: str, user: User | None = None) -> subprocess.CompletedProcess[str]:
        """A command there, as root or as ``user``."""
        who = (
            ("setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--clear-groups", "--")
            if user
            else ()
        )
        return subprocess.run(
            ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *who, *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            cwd="/",
        )

    def sh(self, script: str) -> str:
        """A script of root's there, that must succeed."""
        done = self.run("sh", "-ec", script)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, address: str, port: int, protocol: str = "tcp", user: User | None = None) -> str:
        """What a server says to who asks from there; empty when it is not reached."""
        argv = (sys.executable, "-I", "-S", "-c", ASK, protocol, address, str(port))
        return self.run(*argv, ANSWER_SECONDS, user=user).stdout

    @contextmanager
    def serving(self, says: str, address: str, port: int, protocol: str = "tcp") -> Iterator[None]:
        """A server there that says one thing."""
        argv = [sys.executable, "-I", "-S", "-c", SERVE, protocol, address, str(port), says]
        enter = ["nsenter", f"--net=/proc/{self.pid}/ns/net", "--"]
        with subprocess.Popen([*enter, *argv], stdout=subprocess.PIPE, cwd="/") as server:
            try:
                assert server.stdout is not None
                assert server.stdout.readline() == b"ready\n"
                yield
            finally:
                server.kill()


@attrs.frozen
class Enclosed:
    """The daemon, its host and the machine outside."""

    daemon: Daemon
    host: Place
    outside: Place

    def container(self, name: str, user: User | None = None) -> Place:
        """A container's network namespace, entered with root's means: an owner who got hold of more than we gave."""
        asked = self.daemon.docker("inspect", "--format", "{{.State.Pid}}", name, user=user)
        return Place(int(asked.stdout))


@contextmanager
def enclosed(user_group: str) -> Iterator[Enclosed]:
    """A started daemon on a host of its own; afterwards nothing of it is there."""
    daemon = new_daemon(user_group)
    daemon.before = ENCLOSE
    with _machine() as outside:
        try:
            daemon.start()
            assert daemon.process is not None
            host = Place(daemon.process.pid)
            _wire(host, outside)
            yield Enclosed(daemon, host, outside)
            left = daemon.close()
            assert not left, f"the daemon left behind: {left}"
        finally:
            daemon.clear()


@contextmanager
def _machine() -> Iterator[Place]:
    """A network namespace with nothing but a process that keeps it."""
    with subprocess.Popen([*ENCLOSE, "sleep", "infinity"]) as keeper:
        try:
            here = Place(keeper.pid)
            while Place(keeper.pid).run("ip", "-o", "addr").stdout.count("127.0.0.1/8") != 1:
                time.sleep(0.01)
            yield here
        finally:
            keeper.kill()


def _wire(host: Place, outside: Place) -> None:
    host.sh(
        f"ip link add wire type veth peer name wire netns {outside.pid};"
        f"ip addr add {HOST}/30 dev wire; ip link set wire up; ip route add default via {OUTSIDE}"
    )
    outside.sh(
        f"ip addr add {OUTSIDE}/30 dev wire; ip link set wire up; ip route add default via {HOST}"
    )

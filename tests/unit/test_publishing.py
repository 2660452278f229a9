"""network/publishing.py: held ports, on the real kernel's loopback and sockets."""

import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from supervisor.access.requests import PortRequest
from supervisor.errors import Conflict, InvalidArgument, ResourceExhausted
from supervisor.network.publishing import Chooser, Hold, hold_all


def nobody(_protocol: str, _address: str, _port: int) -> str:
    return "on this host"


@contextmanager
def held(*requests: PortRequest, chooser: Chooser | None = None) -> Iterator[list[Hold]]:
    holds = hold_all(requests, chooser or Chooser(52_000, 52_100), nobody)
    try:
        yield holds
    finally:
        for hold in holds:
            hold.release()


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.mark.parametrize("reuse_address", [0, 1])
@pytest.mark.parametrize("reuse_port", [0, 1])
@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0"])
def test_nobody_can_bind_a_held_port(address: str, reuse_address: int, reuse_port: int) -> None:
    port = free_port()
    with held(PortRequest(80, host_port=port)), closing(socket.socket()) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse_address)
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
        with pytest.raises(OSError, match="in use"):
            other.bind((address, port))


def test_who_reaches_a_held_port_is_refused_not_left_hanging() -> None:
    port = free_port()
    with held(PortRequest(80, host_port=port)), pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=2)


def test_a_port_whose_old_connections_linger_can_be_held() -> None:
    with closing(socket.socket()) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted, _ = server.accept()
        accepted.close()  # first to close: TIME_WAIT is on our side
        client.close()
    with held(PortRequest(80, host_port=port)):
        pass


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_anothers_service_is_never_taken_over(protocol: str) -> None:
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with closing(socket.socket(type=kind)) as service:
        service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        service.bind(("127.0.0.1", 0))
        if protocol == "tcp":
            service.listen()
        port = service.getsockname()[1]
        with pytest.raises(
            Conflict, match=f"cannot publish port {port}/{protocol}: it is taken on this host"
        ):
            hold_all([PortRequest(80, protocol, "", port)], Chooser(52_000, 52_100), nobody)


def test_one_of_a_range_is_taken_until_none_is_left() -> None:
    wanted = PortRequest(80, host_port=52_200, host_port_last=52_201)
    with held(wanted) as (one,), held(wanted) as (other,):
        assert {one.port.host_port, other.port.host_port} == {52_200, 52_201}
        with pytest.raises(ResourceExhausted, match="52200 to 52201"):
            hold_all([wanted], Chooser(52_000, 52_100), nobody)


def test_all_ports_are_held_or_none() -> None:
    first, second = free_port(), free_port()
    with held(PortRequest(80, host_port=second)):
        with pytest.raises(Conflict):
            hold_all(
                [PortRequest(80, host_port=first), PortRequest(81, host_port=second)],
                Chooser(52_000, 52_100),
                nobody,
            )
        with held(PortRequest(80, host_port=first)):
            pass


def test_ports_are_chosen_around_what_is_taken_until_none_is_left() -> None:
    chooser = Chooser(52_000, 52_002)
    with held(PortRequest(80), chooser=chooser) as (one,), held(PortRequest(80), chooser=chooser):
        assert 52_000 <= one.port.host_port <= 52_002
        with (
            held(PortRequest(80), chooser=chooser),
            pytest.raises(ResourceExhausted, match="52000 to 52002"),
        ):
            hold_all([PortRequest(80)], chooser, nobody)


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (PortRequest(80, "sctp", "", 0), "only tcp and udp"),
        (PortRequest(80, "tcp", "203.0.113.7", 8080), "not an address of this host"),
        (PortRequest(80, "tcp", "example", 8080), "not an IP address"),
        (PortRequest(0, "tcp", "", 8080), "1 to 65535"),
    ],
)
def test_what_makes_no_sense_is_refused(request_: PortRequest, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        hold_all([request_], Chooser(52_000, 52_100), nobody)

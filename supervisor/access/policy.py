"""What a person may ask for: an allow-list with a line for every field of every request. Pure.

Words: a *line* says who may set a field: *allowed* to all, *bounded* (users within bounds that a check knows), *admin*,
or *parts* (a value with a table of its own). A *rule* is the name a refusal goes by. A *verdict* is all that is refused
about one request.

Rules: the judged object is the one the handler acts on. A field at its default says nothing and is not judged. A field
that is neither at its default nor in the table is refused to users: what nobody thought about is not given away. Admins
may do everything. Bind mounts are judged here only by their looks; what counts is that their source is opened with the
caller's own credentials.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network

import attrs

from protocol.errors import Fault
from supervisor.access.identity import Identity
from supervisor.config import Config
from supervisor.errors import PermissionDenied

Request = attrs.AttrsInstance

UNLISTED = "unlisted-field"

TOLD_MAX = 50
"""Refusals told one by one; a request can hold a million."""

SHOWN_LENGTH_MAX = 80


class Action(enum.Enum):
    """What is asked for, in words that follow ``cannot``."""

    CONTAINER_CREATE = "create container"
    CONTAINER_UPDATE = "update container"
    EXEC_CREATE = "exec in container"
    BUILD = "build"
    COMMIT = "commit"
    VOLUME_CREATE = "create volume"
    NETWORK_CREATE = "create network"
    NETWORK_CONNECT = "connect to network"


class Access(enum.Enum):
    """Who may set a field."""

    ALLOWED = "everybody"
    BOUNDED = "everybody, within bounds"
    ADMIN = "admins"
    PARTS = "by its parts"


@attrs.frozen
class Bounds:
    """What the checks need to know of this host.

    Attributes:
        port_first: First host port users may publish.
        hard_limits: Hard resource limit by ulimit name (``nofile``); one that is missing is unlimited.
        log_bytes_max: What may be kept of one container's output; ``log_bytes_default`` is a file's, if none is asked for.
        pools: Where the subnets that users name may lie, if they leave room for others'.
        subnets: Where they may lie, of any size.
    """

    port_first: int = 1_024
    hard_limits: Mapping[str, int] = attrs.field(factory=dict)
    log_bytes_max: int = 1_073_741_824
    log_bytes_default: int = 10_485_760
    pools: tuple[IPv4Network | IPv6Network, ...] = ()
    subnets: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def of(cls, config: Config, hard_limits: Mapping[str, int]) -> Bounds:
        """The bounds the settings and the host give."""
        network = config.network
        return cls(
            port_first=network.port_first,
            hard_limits=hard_limits,
            log_bytes_max=config.runtime.log_bytes_asked_max,
            log_bytes_default=config.runtime.log_bytes_max,
            pools=(ip_network(network.pool), ip_network(network.pool_ipv6)),
            subnets=tuple(map(ip_network, network.user_subnets)),
        )


@attrs.frozen
class Objection:
    """What a check has against a value: the rule by name, and what it saw."""

    rule: str
    seen: str


Check = Callable[[object, Bounds], Iterable[Objection]]


@attrs.frozen
class Line:
    """Who may set one field.

    Attributes:
        access: Who.
        rule: The rule that refuses it to users; of a check the one it mostly names.
        allowed: What users may do instead, as words that follow ``allowed:``.
        check: For bounded fields, what is wrong with a value.
    """

    access: Access
    rule: str = ""
    allowed: str = ""
    check: Check | None = None


Table = Mapping[type[Request], Mapping[str, Line]]


@attrs.frozen
class Refusal:
    """One rule that refuses one thing.

    Attributes:
        rule: The rule's name.
        field: Which field, with its place: ``mounts[0].propagation``.
        message: What it is that is refused.
        allowed: What would be allowed.
    """

    rule: str
    field: str
    message: str
    allowed: str

    def fault(self) -> Fault:
        """As a person reads it."""
        return Fault(
            f"refused by the rule {self.rule}: {self.message}", hint=f"allowed: {self.allowed}"
        )


@attrs.frozen
class Verdict:
    """All that is refused about one request; nothing when it is allowed."""

    refusals: tuple[Refusal, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether nothing is refused."""
        return not self.refusals


def decide(identity: Identity, request: Request, bounds: Bounds, table: Table) -> Verdict:
    """Judge ``request`` for ``identity`` by ``table``."""
    if identity.admin:
        return Verdict()
    return Verdict(tuple(_judge(request, bounds, table, "")))


def check(verdict: Verdict, action: Action, subject: str = "") -> None:
    """Let an allowed request pass.

    Args:
        verdict: Of :func:`decide`.
        action: What was asked for.
        subject: The name of the thing, if it has one.

    Raises:
        PermissionDenied: It is not allowed; every rule that refuses is told.
    """
    if verdict.allowed:
        return
    rules = sorted({refusal.rule for refusal in verdict.refusals})
    faults = [refusal.fault() for refusal in verdict.refusals[:TOLD_MAX]]
    if len(verdict.refusals) > TOLD_MAX:
        faults.append(Fault(f"and {len(verdict.refusals) - TOLD_MAX} more"))
    raise PermissionDenied(
        f"cannot {action.value}{subject and ' '}{subject}: policy does not allow it to users ({', '.join(rules)})",
        faults=faults,
    )


def _judge(request: Request, bounds: Bounds, table: Table, place: str) -> Iterator[Refusal]:
    """All that is refused about ``request``, which stands at ``place``."""
    lines = table.get(type(request), {})
    for field in attrs.fields(type(request)):
        value: object = getattr(request, field.name)
        if value == default_of(field):
            continue
        path = f"{place}{field.name}"
        line = lines.get(field.name)
        if line is None:
            yield Refusal(UNLISTED, path, f"{path} is set", f"{path} left out")
        else:
            yield from _judge_field(line, value, bounds, table, path)


def _judge_field(
    line: Line, value: object, bounds: Bounds, table: Table, path: str
) -> Iterator[Refusal]:
    match line.access:
        case Access.ALLOWED:
            return
        case Access.ADMIN:
            yield Refusal(line.rule, path, f"{path} is {shown(value)}", line.allowed)
        case Access.BOUNDED:
            assert line.check is not None
            for objection in line.check(value, bounds):
                yield Refusal(objection.rule, path, objection.seen, line.allowed)
        case Access.PARTS:
            for part_path, part in parts_of(path, value):
                yield from _judge(part, bounds, table, f"{part_path}.")


def parts_of(path: str, value: object) -> Iterator[tuple[str, Request]]:
    """The requests inside a value, each with its place: itself, or those in a tuple; nothing inside a plain value."""
    if isinstance(value, tuple):
        for index, part in enumerate(value):
            yield from parts_of(f"{path}[{index}]", part)
    elif attrs.has(type(value)):
        yield path, value  # type: ignore[misc]  # as just checked


def default_of(field: attrs.Attribute[object]) -> object:
    """What a request that does not name the field means by it; ``attrs.NOTHING`` when it must."""
    default: object = field.default
    make: object = getattr(
        default, "factory", None
    )  # of attrs.Factory, whose type its stubs do not show
    return make() if callable(make) else default


def shown(value: object) -> str:
    """A value in a message: short, and on one line."""
    text = repr(value).replace("\n", " ")
    return text if len(text) <= SHOWN_LENGTH_MAX else f"{text[:SHOWN_LENGTH_MAX]}…"

"""Docker's requests for builds, volumes and filters, as our requests. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from protocol.errors import Fault
from supervisor.access.requests import BuildRequest, Resources, VolumeRequest
from supervisor.api import json_body
from supervisor.api.docker.fields import Fields, check, is_default
from supervisor.api.http import JsonObject, Query
from supervisor.errors import InvalidArgument, Unavailable

T = TypeVar("T")

BUILDKIT_HINT = (
    "set DOCKER_BUILDKIT=0 to build with the classic builder, or use bakehouse image build"
)
BUILDKIT_VERSION = "2"
Filters = Mapping[str, tuple[str, ...]]


def buildkit_refused(what: str) -> Unavailable:
    """The refusal BuildKit's clients get."""
    return Unavailable(
        f"cannot {what}: this daemon does not speak BuildKit's protocol", BUILDKIT_HINT
    )


def build_request(query: Query) -> BuildRequest:
    """The query of ``POST /build``.

    Raises:
        InvalidArgument: Everything that is wrong with it.
        Unavailable: It is meant for BuildKit.
    """
    if query.text("version") == BUILDKIT_VERSION or query.text("remote") == "client-session":
        raise buildkit_refused("build")
    reader = _QueryReader(query)
    for name in ("remote", "outputs"):
        if query.text(name):
            reader.faults.append(
                Fault(f"{name} is not supported", hint="send the context as the request's body")
            )
    if not is_default(reader.json("ulimits")):
        reader.faults.append(Fault("ulimits is not supported", hint="leave it out"))
    if query.text("isolation") not in {"", "default"}:
        reader.faults.append(Fault("isolation is not supported", hint="leave it out"))
    request = BuildRequest(
        dockerfile=query.first("dockerfile") or "Dockerfile",
        tags=tuple(dict.fromkeys(filter(None, query.all("t")))),
        build_args=reader.nullable("buildargs"),
        labels=reader.mapping("labels"),
        target=query.text("target"),
        no_cache=query.flag("nocache"),
        pull=query.flag("pull"),
        platform=query.text("platform"),
        network_mode=query.text("networkmode") or "default",
        quiet=query.flag("q"),
        remove_intermediate=query.flag("rm", default=True),
        cache_from=reader.texts("cachefrom"),
        extra_hosts=tuple(
            host for value in query.all("extrahosts") for host in value.split(",") if host
        ),
        shm_bytes=reader.number("shmsize"),
        resources=_resources(reader),
        cgroup_parent=query.text("cgroupparent"),
        security_opt=reader.texts("securityopt"),
        squash=query.flag("squash"),
    )
    check(reader.faults, "build")
    return request


def _resources(reader: _QueryReader) -> Resources:
    return Resources(
        memory_bytes=reader.number("memory"),
        memory_swap_bytes=reader.number("memswap", -1) or None,
        cpu_quota_microseconds=max(reader.number("cpuquota", -1), 0),
        cpu_period_microseconds=reader.number("cpuperiod"),
        cpu_shares=reader.number("cpushares"),
        cpuset_cpus=reader.query.text("cpusetcpus"),
        cpuset_mems=reader.query.text("cpusetmems"),
    )


class _QueryReader:
    """Parameters of a query that hold JSON or numbers, with every fault told at once."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self.faults: list[Fault] = []

    def _try(self, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except InvalidArgument as error:
            self.faults.append(Fault(error.message))
            return otherwise

    def number(self, name: str, low: int = 0) -> int:
        """A number that is not below ``low``."""
        value = self._try(lambda: self.query.number(name), 0)
        if value < low:
            self.faults.append(Fault(f"{name} is {value}, which is less than {low}"))
        return value

    def json(self, name: str) -> object:
        """The JSON in a parameter; None when missing."""
        text = self.query.text(name)
        return self._try(lambda: json_body.parse(text), None) if text else None

    def texts(self, name: str) -> tuple[str, ...]:
        """A JSON list of texts."""
        return Fields({name: self.json(name)}, "", self.faults).texts(name)

    def mapping(self, name: str) -> Mapping[str, str]:
        """A JSON object of texts."""
        return Fields({name: self.json(name)}, "", self.faults).mapping(name)

    def nullable(self, name: str) -> Mapping[str, str | None]:
        """A JSON object of texts and nulls."""
        table = Fields({name: self.json(name)}, "", self.faults).table(name)
        empty = {key: None for key, value in table.items() if value is None}
        given = {key: value for key, value in table.items() if value is not None}
        return {**Fields({name: given}, "", self.faults).mapping(name), **empty}


def volume_request(body: JsonObject) -> VolumeRequest:
    """The body of ``POST /volumes/create``.

    Raises:
        InvalidArgument: Everything that is wrong with it.
    """
    faults: list[Fault] = []
    top = Fields(body, "", faults)
    top.refuse({"ClusterVolumeSpec": ()})
    name = top.text("Name")
    request = VolumeRequest(
        name=name,
        driver=top.text("Driver") or "local",
        options=top.mapping("DriverOpts"),
        labels=top.mapping("Labels"),
    )
    check(faults, f"create volume{name and ' '}{name[:80]}")
    return request


def filters(query: Query, *known: str) -> Filters:
    """The ``filters`` parameter: values by name; both of Docker's forms, ``{"a": ["x"]}`` and ``{"a": {"x": true}}``.

    Args:
        query: The request's.
        known: The filters there are; without any, all are taken.

    Raises:
        InvalidArgument: It is neither, or names a filter that does not exist.
    """
    text = query.text("filters")
    if not text:
        return {}
    table = json_body.parse(text, "the filters")
    if not isinstance(table, dict):
        raise InvalidArgument("cannot read the filters: they are no JSON object")
    found: dict[str, tuple[str, ...]] = {}
    for name, values in table.items():
        if known and name not in known:
            raise InvalidArgument(f"invalid filter '{name}'", f"filters are {', '.join(known)}")
        if isinstance(values, dict):
            found[name] = tuple(value for value, wanted in values.items() if wanted)
        elif isinstance(values, list) and all(isinstance(value, str) for value in values):
            found[name] = tuple(values)
        else:
            raise InvalidArgument(f"cannot read the filters: {name} is no list of texts")
    return found


def flag_filter(chosen: Filters, name: str) -> bool | None:
    """A filter that is true or false; None when it is not given.

    Raises:
        InvalidArgument: It is something else.
    """
    words = {"1": True, "true": True, "t": True, "0": False, "false": False, "f": False}
    read = {words.get(value.lower()) for value in chosen.get(name, ())}
    if None in read or len(read) > 1:
        raise InvalidArgument(
            f"invalid filter '{name}={','.join(chosen[name])[:80]}'", "true or false"
        )
    return read.pop() if read else None

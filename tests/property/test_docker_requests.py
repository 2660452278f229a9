"""Any JSON becomes a request or an InvalidArgument, never anything else."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.api.docker.shape_build import build_request, filters, volume_request
from supervisor.api.docker.shape_container import container_request, exec_request
from supervisor.api.docker.shape_host import parse_port
from supervisor.api.docker.shape_mounts import parse_bind, parse_tmpfs
from supervisor.api.http import Query
from supervisor.errors import InvalidArgument

TOP = [
    "Image",
    "Cmd",
    "Entrypoint",
    "Env",
    "Labels",
    "ExposedPorts",
    "Volumes",
    "Healthcheck",
    "HostConfig",
    "NetworkingConfig",
    "StopTimeout",
    "Hostname",
    "WorkingDir",
    "User",
    "Tty",
    "NetworkDisabled",
    "MacAddress",
    "StopSignal",
    "Name",
    "Driver",
    "DriverOpts",
]
HOST = [
    "Binds",
    "Mounts",
    "Tmpfs",
    "PortBindings",
    "RestartPolicy",
    "LogConfig",
    "Memory",
    "MemorySwap",
    "NanoCpus",
    "CpuQuota",
    "PidsLimit",
    "Devices",
    "Ulimits",
    "CapAdd",
    "Sysctls",
    "NetworkMode",
    "Init",
    "OomKillDisable",
    "BlkioDeviceReadBps",
    "Isolation",
    "CpusetCpus",
    "MaskedPaths",
    "Nobody",
]
WORDS = st.sampled_from(
    ["", "a", "/", "/a", "a:/b", "/a:/b:ro", "80/tcp", "80", "99999", "bind", "volume", "-1", "0-1"]
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | WORDS
    | st.text(max_size=10)
)
KEYS = st.sampled_from(
    [
        *HOST,
        *TOP,
        "Type",
        "Source",
        "Target",
        "HostPort",
        "HostIp",
        "Name",
        "BindOptions",
        "EndpointsConfig",
        "default",
    ]
) | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
HOSTS = st.dictionaries(st.sampled_from(HOST), VALUES, max_size=6)
BODIES = st.dictionaries(st.sampled_from(TOP), VALUES, max_size=6)


@given(BODIES, HOSTS | VALUES)
@settings(max_examples=300, deadline=None)
def test_container(body: dict[str, object], host: object) -> None:
    try:
        container_request({"Image": "a", **body, "HostConfig": host}, Query())
    except InvalidArgument:
        return


@given(BODIES)
@settings(deadline=None)
def test_exec_and_volume(body: dict[str, object]) -> None:
    for parse in (exec_request, volume_request):
        try:
            parse(body)
        except InvalidArgument:
            continue


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["t", "buildargs", "labels", "memory", "ulimits", "filters", "q"]),
            st.text(),
        )
    )
)
@settings(deadline=None)
def test_build_and_filters(pairs: list[tuple[str, str]]) -> None:
    for parse in (build_request, filters):
        try:
            parse(Query(tuple(pairs)))
        except InvalidArgument:
            continue


@given(st.text(alphabet="ab/:.,-0kmg=", max_size=20))
@settings(deadline=None)
def test_words(text: str) -> None:
    for parse in (parse_bind, parse_port, lambda word: parse_tmpfs("/t", word)):
        try:
            parse(text)
        except InvalidArgument:
            continue

"""What the docker CLI and docker-py send, and what it becomes."""

from __future__ import annotations

import attrs
import pytest

from supervisor.access.requests import (
    ContainerRequest,
    MountForm,
    MountKind,
    MountRequest,
    PortRequest,
)
from supervisor.api.docker.shape_build import (
    build_request,
    filters,
    flag_filter,
    volume_request,
)
from supervisor.api.docker.shape_container import container_request, exec_request
from supervisor.api.docker.shape_mounts import parse_bind
from supervisor.api.http import JsonObject, Query
from supervisor.errors import InvalidArgument, Unavailable

CLI_RUN: JsonObject = {
    "Hostname": "", "Domainname": "", "User": "", "AttachStdin": False, "AttachStdout": True, "AttachStderr": True,
    "Tty": False, "OpenStdin": False, "StdinOnce": False, "Env": None, "Cmd": None, "Image": "busybox", "Volumes": {},
    "WorkingDir": "", "Entrypoint": None, "OnBuild": None, "Labels": {},
    "HostConfig": {
        "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
        "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": True,
        "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [24, 80], "CapAdd": None, "CapDrop": None,
        "CgroupnsMode": "", "Dns": None, "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None, "GroupAdd": None,
        "IpcMode": "", "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False,
        "PublishAllPorts": False, "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "",
        "ShmSize": 0, "Isolation": "", "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "",
        "BlkioWeight": 0, "BlkioWeightDevice": [], "BlkioDeviceReadBps": [], "BlkioDeviceWriteBps": [],
        "BlkioDeviceReadIOps": [], "BlkioDeviceWriteIOps": [], "CpuPeriod": 0, "CpuQuota": 0,
        "CpuRealtimePeriod": 0, "CpuRealtimeRuntime": 0, "CpusetCpus": "", "CpusetMems": "", "Devices": [],
        "DeviceCgroupRules": None, "DeviceRequests": None, "MemoryReservation": 0, "MemorySwap": 0,
        "MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0, "Ulimits": [], "CpuCount": 0,
        "CpuPercent": 0, "IOMaximumIOps": 0, "IOMaximumBandwidth": 0, "MaskedPaths": None, "ReadonlyPaths": None,
    },
    "NetworkingConfig": {
        "EndpointsConfig": {
            "default": {
                "IPAMConfig": None, "Links": None, "Aliases": None, "DriverOpts": None, "GwPriority": 0,
                "NetworkID": "", "EndpointID": "", "Gateway": "", "IPAddress": "", "MacAddress": "",
                "IPPrefixLen": 0, "IPv6Gateway": "", "GlobalIPv6Address": "", "GlobalIPv6PrefixLen": 0, "DNSNames": None,
            }
        }
    },
}  # fmt: skip


def container(**host: object) -> ContainerRequest:
    return container_request({"Image": "busybox", "HostConfig": host}, Query())


def test_docker_run_without_options_asks_for_the_defaults() -> None:
    request = container_request(CLI_RUN, Query((("name", "web"),)))
    assert request == ContainerRequest(
        image="busybox", name="web", attach_stdout=True, attach_stderr=True, auto_remove=True
    )


def test_command_and_entrypoint() -> None:
    read = container_request({"Image": "a", "Cmd": ["x", "y"], "Entrypoint": [""]}, Query())
    assert (read.command, read.entrypoint) == (("x", "y"), ())
    read = container_request({"Image": "a", "Cmd": "x", "Entrypoint": "sh"}, Query())
    assert (read.command, read.entrypoint) == (("x",), ("sh",))
    read = container_request({"Image": "a", "Cmd": []}, Query())
    assert (read.command, read.entrypoint) == (None, None)


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data", MountRequest(MountKind.VOLUME, "/data")),
        ("web:/data", MountRequest(MountKind.VOLUME, "/data", "web")),
        (
            "web:/data:ro,nocopy",
            MountRequest(MountKind.VOLUME, "/data", "web", read_only=True, copy_up=False),
        ),
        ("/src:/data:z", MountRequest(MountKind.BIND, "/data", "/src", create_source=True)),
        (
            "/src:/data/../x//y:rslave",
            MountRequest(MountKind.BIND, "/x/y", "/src", create_source=True, propagation="rslave"),
        ),
    ],
)
def test_binds(text: str, mount: MountRequest) -> None:
    assert parse_bind(text) == attrs.evolve(mount, form=MountForm.BIND, spelt=text)


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:b", "../x:/y", "web:/", "/a:/b:ro:rw", "/a:/b:ro,rw", "/a:/b:exec", "x/y:/z"],
)
def test_no_binds(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_bind(text)


def test_ports() -> None:
    bindings = {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostPort": ""}],
        "53/udp": [{}],
        "9": None,
    }
    assert set(container(PortBindings=bindings).ports) == {
        PortRequest(80, "tcp", "127.0.0.1", 8080),
        PortRequest(80, "tcp"),
        PortRequest(53, "udp"),
    }


def volume(**options: object) -> JsonObject:
    return {"Type": "volume", "Source": "v", "Target": "/v", "VolumeOptions": options}


def test_mounts_of_all_kinds() -> None:
    read = container(
        Mounts=[
            {
                "Type": "bind",
                "Source": "/src",
                "Target": "/a",
                "ReadOnly": True,
                "BindOptions": {"NonRecursive": True},
            },
            {
                "Type": "volume",
                "Source": "web",
                "Target": "/b",
                "VolumeOptions": {"NoCopy": True, "Labels": {"k": "v"}, "Subpath": "a/b"},
            },
            {"Type": "tmpfs", "Target": "/c", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 448}},
        ],
        Tmpfs={"/d": "rw,size=64k,mode=1777,noexec"},
    )
    assert read.mounts == (
        MountRequest(MountKind.BIND, "/a", "/src", read_only=True, recursive=False),
        MountRequest(
            MountKind.VOLUME, "/b", "web", copy_up=False, labels={"k": "v"}, subpath="a/b"
        ),
        MountRequest(MountKind.TMPFS, "/c", size_bytes=4096, mode=0o700),
        MountRequest(
            MountKind.TMPFS,
            "/d",
            size_bytes=65_536,
            mode=0o1777,
            options=("noexec",),
            form=MountForm.TMPFS,
            spelt="rw,size=64k,mode=1777,noexec",
        ),
    )


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"VolumesFrom": ["web:rslave"]}, "invalid mode: rslave"),
        ({"VolumesFrom": ["web:ro,rw"]}, "invalid mode: ro,rw"),
        ({"VolumesFrom": [":ro"]}, "empty string"),
        ({"Binds": ["a:/b:z,Z"]}, "invalid mode: z,Z"),
        ({"Mounts": [volume(Subpath="../x")]}, "relative path within the volume"),
        ({"Mounts": [volume(Subpath="/x")]}, "relative path within the volume"),
        ({"Mounts": [{**volume(Subpath="x"), "Source": ""}]}, "anonymous volumes"),
    ],
)
def test_mounts_that_make_no_sense(host: JsonObject, words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        container(**host)
    assert words in caught.value.text()


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(InvalidArgument) as caught:
        container_request(
            {
                "Env": ["=x", 3],
                "HostConfig": {
                    "Memory": "lots",
                    "DeviceRequests": [{"Count": -1}],
                    "PortBindings": {"x/tcp": [{"HostPort": "99999"}]},
                    "Binds": ["a:b"],
                    "RestartPolicy": {"Name": "sometimes"},
                },
                "NetworkingConfig": {"EndpointsConfig": {"other": {"GwPriority": 5}}},
            },
            Query((("name", "-bad"),)),
        )
    text = caught.value.text()
    for place in (
        "Invalid container name", "Env", "HostConfig.Memory", "HostConfig.DeviceRequests", "PortBindings.x/tcp",
        "PortBindings.x/tcp[0].HostPort", "Binds[0]", "invalid restart policy", "EndpointsConfig.other", "Image",
    ):  # fmt: skip
        assert place in text, text


def test_unknown_fields_are_named_when_they_say_something() -> None:
    read = container_request(
        {
            "Image": "a",
            "Futuristic": True,
            "Empty": "",
            "privileged": True,
            "HostConfig": {"Warp": 9, "Zero": 0},
        },
        Query(),
    )
    assert read.unknown_fields == ("Futuristic", "privileged", "HostConfig.Warp")


def test_capabilities_have_one_spelling() -> None:
    assert container(CapAdd=["CAP_NET_ADMIN", "sys_admin", "ALL"]).cap_add == (
        "CAP_NET_ADMIN",
        "CAP_SYS_ADMIN",
        "ALL",
    )
    assert container(CapDrop=["net_raw"]).cap_drop == ("CAP_NET_RAW",)
    options = ["no-new-privileges=true", "seccomp:unconfined", "no-new-privileges:false"]
    assert container(SecurityOpt=options).security_opt == (
        "no-new-privileges",
        "seccomp=unconfined",
    )


def test_exec() -> None:
    read = exec_request(
        {"Cmd": ["sh"], "Tty": True, "AttachStdin": True, "Detach": False, "ConsoleSize": [1, 2]}
    )
    assert (read.command, read.tty, read.attach_stdin) == (("sh",), True, True)
    with pytest.raises(InvalidArgument, match="exec"):
        exec_request({})


def test_build() -> None:
    read = build_request(
        Query((
            ("t", "web:1"), ("t", "web"), ("buildargs", '{"A":"b","C":null}'), ("labels", '{"k":"v"}'), ("rm", "1"),
            ("cachefrom", "[]"), ("ulimits", "null"), ("version", "1"), ("memory", "0"), ("networkmode", "default"),
        ))
    )  # fmt: skip
    assert read.tags == ("web:1", "web")
    assert read.build_args == {"A": "b", "C": None}
    assert read.labels == {"k": "v"}


@pytest.mark.parametrize("pairs", [(("version", "2"),), (("remote", "client-session"),)])
def test_buildkit_is_sent_to_the_classic_builder(pairs: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(Unavailable, match="BuildKit") as caught:
        build_request(Query(pairs))
    assert "DOCKER_BUILDKIT=0" in caught.value.text()


def test_build_faults() -> None:
    with pytest.raises(InvalidArgument) as caught:
        build_request(
            Query(
                (("buildargs", "{"), ("labels", '{"a":1}'), ("memory", "x"), ("remote", "http://x"))
            )
        )
    assert len(caught.value.faults) == 4


def test_volumes_and_filters() -> None:
    assert volume_request({"Name": "data", "Driver": ""}).driver == "local"
    both = filters(
        Query((("filters", '{"label":["a=b"],"dangling":{"true":true,"false":false}}'),))
    )
    assert both == {"label": ("a=b",), "dangling": ("true",)}
    assert flag_filter(both, "dangling") is True
    assert flag_filter(both, "missing") is None
    with pytest.raises(InvalidArgument, match="invalid filter"):
        filters(Query((("filters", '{"x":["y"]}'),)), "label")


def words(text: str) -> list[str]:
    return text.split()


HOST_FIELDS = words("""
    AutoRemove Binds BlkioDeviceReadBps BlkioDeviceReadIOps BlkioDeviceWriteBps BlkioDeviceWriteIOps BlkioWeight
    BlkioWeightDevice CapAdd CapDrop Capabilities Cgroup CgroupParent CgroupnsMode ConsoleSize ContainerIDFile CpuCount
    CpuPercent CpuPeriod CpuQuota CpuRealtimePeriod CpuRealtimeRuntime CpuShares CpusetCpus CpusetMems DeviceCgroupRules
    DeviceRequests Devices Dns DnsOptions DnsSearch ExtraHosts GroupAdd IOMaximumBandwidth IOMaximumIOps Init IpcMode
    Isolation KernelMemory KernelMemoryTCP Links LogConfig MaskedPaths Memory MemoryReservation MemorySwap
    MemorySwappiness Mounts NanoCpus NetworkMode OomKillDisable OomScoreAdj PidMode PidsLimit PortBindings Privileged
    PublishAllPorts ReadonlyPaths ReadonlyRootfs RestartPolicy Runtime SecurityOpt ShmSize StorageOpt Sysctls Tmpfs UTSMode
    Ulimits UsernsMode VolumeDriver VolumesFrom
""")
CONFIG_FIELDS = words("""
    ArgsEscaped AttachStderr AttachStdin AttachStdout Cmd Domainname Entrypoint Env ExposedPorts Healthcheck Hostname
    Labels MacAddress NetworkDisabled OnBuild OpenStdin Shell StdinOnce StopSignal StopTimeout Tty User Volumes WorkingDir
""")


@pytest.mark.parametrize("name", [*HOST_FIELDS, *CONFIG_FIELDS])
def test_every_field_of_the_api_is_known(name: str) -> None:
    """Read, refused by name, or without meaning on Linux: none is passed over."""
    odd: JsonObject = {name: [["odd"]]}
    body: JsonObject = {"Image": "i", **({"HostConfig": odd} if name in HOST_FIELDS else odd)}
    try:
        request = container_request(body, Query())
    except InvalidArgument:
        return
    assert request.unknown_fields == ()

"""Docker's JSON for a new container or exec, as our requests. Pure.

Fields that would change what happens and are not supported are refused by name; fields nobody knows are named in
``unknown_fields``, which policy lets admins set (dockerd ignores them) and refuses to users.
"""

from __future__ import annotations

import re

import attrs

from protocol.errors import Fault
from supervisor.access.requests import (
    ContainerRequest,
    EndpointRequest,
    ExecRequest,
    HealthRequest,
    UpdateRequest,
)
from supervisor.api.docker import shape_host as host_shape
from supervisor.api.docker import shape_mounts as mount_shape
from supervisor.api.docker.fields import Fields, check
from supervisor.api.docker.shape_network import endpoint_request
from supervisor.api.http import JsonObject, Query
from supervisor.errors import InvalidArgument

CONTAINER_NAME = re.compile(r"/?([a-zA-Z0-9][a-zA-Z0-9_.-]+)")
NAME_LENGTH_MAX = 255
HEALTH_TESTS = ("NONE", "CMD", "CMD-SHELL")
HEALTH_NS_MIN = 1_000_000
BUILT_IN = frozenset({"default", "bridge", "host", "none"})
SHARED_MODE = "container:"
PLATFORM = re.compile(r"linux(/[a-z0-9_-]{1,32}){0,2}")


def container_request(body: JsonObject, query: Query) -> ContainerRequest:
    """The body and query of ``POST /containers/create``.

    Raises:
        InvalidArgument: Everything that is wrong with it.
    """
    faults: list[Fault] = []
    top = Fields(body, "", faults)
    host = top.child("HostConfig")
    network_mode = _network_mode(top, host)
    host.refuse(host_shape.REFUSED)
    host.known(*host_shape.WITHOUT_MEANING)
    top.known("ArgsEscaped", "OnBuild", "Shell")
    own = ContainerRequest(
        image=_image(top),
        name=_name(query, faults),
        command=top.texts_or_none("Cmd", one=True) or None,
        entrypoint=_entrypoint(top),
        env=_env(top),
        working_dir=_working_dir(top),
        user=top.text("User"),
        labels=top.mapping("Labels"),
        hostname=_hostname(top),
        domainname=top.text("Domainname"),
        tty=top.flag("Tty"),
        open_stdin=top.flag("OpenStdin"),
        stdin_once=top.flag("StdinOnce"),
        attach_stdin=top.flag("AttachStdin"),
        attach_stdout=top.flag("AttachStdout"),
        attach_stderr=top.flag("AttachStderr"),
        stop_signal=top.text("StopSignal"),
        stop_seconds=top.number_or_none("StopTimeout", -1, 1 << 31),
        exposed_ports=host_shape.exposed_ports(top.keys("ExposedPorts"), top),
        anonymous_volumes=_volumes(top),
        health=_health(top),
        network_mode=network_mode,
        endpoints=_endpoints(top, network_mode),
        platform=_platform(query, faults),
    )
    request = _with_limits(_with_host(own, host), host)
    request = attrs.evolve(request, unknown_fields=(*top.unread(), *host.unread()))
    if request.auto_remove and request.restart.name != "no":
        host.fault("AutoRemove", "cannot be combined with a restart policy")
    check(faults, f"create container{request.name and ' '}{request.name}")
    return request


def _with_host(request: ContainerRequest, host: Fields) -> ContainerRequest:
    """What it has of the host."""
    return attrs.evolve(
        request,
        mounts=mount_shape.mounts(host),
        read_only_rootfs=host.flag("ReadonlyRootfs"),
        ports=host_shape.ports(host),
        publish_all=host.flag("PublishAllPorts"),
        auto_remove=host.flag("AutoRemove"),
        log=host_shape.log(host),
        restart=host_shape.restart(host),
        dns=host_shape.addresses(host, "Dns"),
        dns_search=host_shape.words(host, "DnsSearch"),
        dns_options=host_shape.words(host, "DnsOptions"),
        extra_hosts=host_shape.extra_hosts(host),
        volumes_from=mount_shape.volumes_from(host),
        links=_links(host, request.network_mode),
        init=host.flag("Init"),
        annotations=host.mapping("Annotations"),
    )


def _with_limits(request: ContainerRequest, host: Fields) -> ContainerRequest:
    """What it is limited to, and what it is let out of."""
    return attrs.evolve(
        request,
        resources=host_shape.resources(host),
        privileged=host.flag("Privileged"),
        pid_mode=host.text("PidMode"),
        ipc_mode=host.text("IpcMode"),
        uts_mode=host.text("UTSMode"),
        userns_mode=host.text("UsernsMode"),
        cgroupns_mode=host.text("CgroupnsMode"),
        cgroup_parent=host.text("CgroupParent"),
        cap_add=host_shape.capabilities(host, "CapAdd"),
        cap_drop=host_shape.capabilities(host, "CapDrop"),
        security_opt=host_shape.security_options(host),
        devices=host_shape.devices(host),
        device_rules=host_shape.device_rules(host),
        group_add=host_shape.words(host, "GroupAdd"),
        sysctls=host.mapping("Sysctls"),
        ulimits=host_shape.ulimits(host),
        shm_bytes=host.number("ShmSize", 0),
        oom_score_adj=host.number("OomScoreAdj", -1_000, 1_000),
        runtime=host.text("Runtime"),
        isolation=host_shape.isolation(host),
        masked_paths=host_shape.container_paths(host, "MaskedPaths"),
        readonly_paths=host_shape.container_paths(host, "ReadonlyPaths"),
    )


def _image(top: Fields) -> str:
    image = top.text("Image")
    if not image:
        top.fault("Image", "is missing: a container needs an image")
    return image


def container_name(text: str) -> str:
    """A container's name without the slash Docker puts before it; empty stays empty.

    Raises:
        InvalidArgument: It is no name.
    """
    match = CONTAINER_NAME.fullmatch(text)
    if text and (match is None or len(text) > NAME_LENGTH_MAX):
        raise InvalidArgument(
            f"Invalid container name ({text[:80]}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )
    return match[1] if match else ""


def _name(query: Query, faults: list[Fault]) -> str:
    try:
        return container_name(query.text("name"))
    except InvalidArgument as error:
        faults.append(Fault(error.message))
        return ""


def _platform(query: Query, faults: list[Fault]) -> str:
    platform = query.text("platform").lower()
    if platform and not PLATFORM.fullmatch(platform):
        faults.append(
            Fault(f"platform {platform[:40]!r} is not supported", hint="linux, or linux/amd64")
        )
        return ""
    return platform


def _entrypoint(top: Fields) -> tuple[str, ...] | None:
    """Clients clear the image's entry point with one empty word."""
    entrypoint = top.texts_or_none("Entrypoint", one=True)
    return () if entrypoint == ("",) else entrypoint


def _env(fields: Fields) -> tuple[str, ...]:
    env = fields.texts("Env")
    for index, entry in enumerate(env):
        if not entry.partition("=")[0]:
            fields.fault(f"Env[{index}]", f"is {entry[:80]!r}, which has no name")
    return env


def _working_dir(fields: Fields) -> str:
    path = fields.text("WorkingDir")
    if path and not path.startswith("/"):
        fields.fault("WorkingDir", f"is {path[:200]!r}, which is not an absolute path")
    return path


def _hostname(top: Fields) -> str:
    name = top.text("Hostname")
    if name and not re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}", name):
        top.fault("Hostname", f"is {name[:80]!r}, which is no host name")
    return name


def _volumes(top: Fields) -> tuple[str, ...]:
    read = [top.read(f"Volumes.{path}", mount_shape.target, path) for path in top.keys("Volumes")]
    return tuple(path for path in read if path is not None)


def _health(top: Fields) -> HealthRequest | None:
    health = top.child_or_none("Healthcheck")
    if health is None:
        return None
    health.known("StartInterval")
    test = health.texts("Test")
    if test and (test[0] not in HEALTH_TESTS or (len(test) > 1) == (test[0] == "NONE")):
        health.fault(
            "Test", f"is {list(test)[:3]!r}", "NONE, CMD with words, CMD-SHELL with a line"
        )
    return HealthRequest(
        test=test,
        interval_ns=_health_time(health, "Interval"),
        timeout_ns=_health_time(health, "Timeout"),
        start_period_ns=_health_time(health, "StartPeriod"),
        retries=health.number("Retries", 0),
    )


def _health_time(health: Fields, name: str) -> int:
    time_ns = health.number(name, 0)
    if 0 < time_ns < HEALTH_NS_MIN:
        health.fault(name, "in Healthcheck cannot be less than 1ms")
    return time_ns


def _network_mode(top: Fields, host: Fields) -> str:
    mode = host.text("NetworkMode") or "default"
    if not top.flag("NetworkDisabled"):
        return mode
    if mode not in {"default", "none"}:
        top.fault("NetworkDisabled", "cannot be combined with HostConfig.NetworkMode")
    return "none"


def _links(host: Fields, network_mode: str) -> tuple[str, ...]:
    """Links on the default bridge. On a network somebody made those of the endpoint count, as in Docker."""
    links = host.texts("Links")
    by_name = network_mode not in BUILT_IN and not network_mode.startswith(SHARED_MODE)
    return () if by_name else links


def _endpoints(top: Fields, network_mode: str) -> tuple[EndpointRequest, ...]:
    """The places it wishes for on networks; a hardware address of the container itself is for the one of its mode."""
    endpoints = top.child("NetworkingConfig").child("EndpointsConfig")
    named = top.child("NetworkingConfig").table("EndpointsConfig")
    found = {name: endpoint_request(endpoints.child(name), name) for name in sorted(named)}
    mac = top.text("MacAddress")
    if mac:
        wished = found.get(network_mode, EndpointRequest(network_mode))
        found[network_mode] = attrs.evolve(wished, mac_address=wished.mac_address or mac)
    if found.keys() <= {network_mode} and not any(map(_wishes, found.values())):
        return ()  # the docker command names the network of the mode, and wishes for nothing there
    return tuple(found.values())


def _wishes(endpoint: EndpointRequest) -> bool:
    return endpoint != EndpointRequest(endpoint.network)


def update_request(body: JsonObject) -> UpdateRequest:
    """The body of ``POST /containers/{id}/update``.

    Raises:
        InvalidArgument: Everything that is wrong with it.
    """
    faults: list[Fault] = []
    top = Fields(body, "", faults)
    top.refuse(host_shape.REFUSED)
    policy = top.child("RestartPolicy")
    request = UpdateRequest(
        resources=host_shape.limits(top),
        restart=host_shape.restart(top) if policy.text("Name") else None,
    )
    check(faults, "update the container")
    return attrs.evolve(request, unknown_fields=top.unread())


def exec_request(body: JsonObject) -> ExecRequest:
    """The body of ``POST /containers/{id}/exec``.

    Raises:
        InvalidArgument: Everything that is wrong with it.
    """
    faults: list[Fault] = []
    top = Fields(body, "", faults)
    command = top.texts_or_none("Cmd", one=True) or ()
    request = ExecRequest(
        command=command,
        env=_env(top),
        working_dir=_working_dir(top),
        user=top.text("User"),
        tty=top.flag("Tty"),
        attach_stdin=top.flag("AttachStdin"),
        attach_stdout=top.flag("AttachStdout"),
        attach_stderr=top.flag("AttachStderr"),
        privileged=top.flag("Privileged"),
        detach_keys=top.text("DetachKeys") or top.text("detachKeys"),  # docker-py writes it so
    )
    check(faults, "create the exec")
    if not command:
        raise InvalidArgument("No exec command specified")
    return request

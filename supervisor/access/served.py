"""What nobody is served yet, whoever asks: told by name, never ignored. Pure.

A field that would change what a container does, and that the daemon does not act on, is refused. A line is taken out
with the work that serves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs

from protocol.errors import Fault
from supervisor.access.checks import NETWORK_OPTIONS, NO_MODULES
from supervisor.access.policy import TOLD_MAX, Action, Request, default_of, parts_of, shown
from supervisor.access.requests import (
    BuildRequest,
    ContainerRequest,
    EndpointRequest,
    MountRequest,
    NetworkRequest,
)
from supervisor.errors import faulty

Served = Callable[[object], bool]


def _never(_: object) -> bool:
    return False


def _one_of(*values: object) -> Served:
    return lambda value: value in values


def _other_than(value: object) -> Served:
    return lambda given: given != value


def _joinable(*values: object) -> Served:
    return lambda value: value in values or str(value).startswith("container:")


def _always(_: object) -> bool:
    return True


def _security_options(value: object) -> bool:
    """No security module confines a container here, so that to be without one is what happens anyway."""
    return isinstance(value, tuple) and all(
        option in {"no-new-privileges", "seccomp=unconfined", "seccomp=builtin", *NO_MODULES}
        or option.startswith("seccomp={")
        for option in value
    )


def _network_options(value: object) -> bool:
    """Docker's own are acted on, or refused; dockerd ignores all others."""
    names = value if isinstance(value, Mapping) else {}
    return all(name in NETWORK_OPTIONS for name in names if name.startswith("com.docker.network."))


def _no_docker_options(value: object) -> bool:
    names = value if isinstance(value, Mapping) else {}
    return not any(name.startswith("com.docker.network.") for name in names)


_SERVED: tuple[Served, str] = (_always, "")

UNSERVED: Mapping[type[Request], Mapping[str, tuple[Served, str]]] = {
    ContainerRequest: {
        "pid_mode": (_joinable("private", "host"), "only private, host and container: are"),
        "ipc_mode": (
            _joinable("private", "shareable", "none", "host"),
            "only private, shareable, none, host and container: are",
        ),
        "uts_mode": (_one_of("private", "host"), "only private and host are"),
        "userns_mode": (_one_of("remap", "host"), "only remap and host are"),
        "cgroupns_mode": (_one_of("private", "host"), "only private and host are"),
        "security_opt": (
            _security_options,
            "only no-new-privileges, seccomp=unconfined, and seccomp= with a profile are",
        ),
        "cgroup_parent": (_other_than("caller"), "a name, or nothing"),
    },
    MountRequest: {
        "propagation": (
            _one_of("private", "rprivate", "slave", "rslave"),
            "only private and slave are: what a container mounts stays its own",
        )
    },
    BuildRequest: {
        "network_mode": (
            lambda value: ":" not in str(value),
            "only none, host, bridge and networks by their names are",
        ),
        "cgroup_parent": (_never, "builds are in their owner's cgroup"),
        "security_opt": (_never, "steps run with the default seccomp profile"),
        "squash": (_never, "use stages and COPY --from"),
    },
    NetworkRequest: {
        "ingress": (_never, "there is no swarm"),
        "ipam_driver": (_never, "the only driver is default"),
        "ipam_options": (_never, "the default driver has none"),
        "options": (_network_options, "of the bridge driver's those that the policy lists are"),
    },
    EndpointRequest: {
        "driver_options": (_no_docker_options, "the bridge driver has none for one container")
    },
}


def check_served(request: Request, action: Action, subject: str = "") -> None:
    """Let a request pass that asks only for what is served.

    Raises:
        InvalidArgument: It asks for more; everything that is not served is told.
    """
    faults = list(_unserved(request, ""))
    if faults:
        what = f"cannot {action.value}{subject and ' '}{subject}"
        raise faulty(what, faults[:TOLD_MAX], "not served yet")


def _unserved(request: Request, place: str) -> Iterator[Fault]:
    lines = UNSERVED.get(type(request), {})
    for field in attrs.fields(type(request)):
        value: object = getattr(request, field.name)
        if value == default_of(field):
            continue
        path = f"{place}{field.name}"
        served, hint = lines.get(field.name, _SERVED)
        if not served(value):
            yield Fault(f"{path} {shown(value)} is not served yet", hint=hint)
        for part_path, part in parts_of(path, value):
            yield from _unserved(part, f"{part_path}.")

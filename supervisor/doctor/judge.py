"""How bad it is: facts in, findings out; pure.

Rules: *broken* is what keeps containers from running, *degraded* what makes them less than they could be. What is asked of
a host is asked for a reason, and the reason is told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from supervisor.doctor.facts import (
    CgroupMounts,
    Forwarding,
    Ids,
    Kernel,
    Program,
    Tried,
    Units,
)
from supervisor.doctor.findings import Finding, broken, degraded, ok, unseen

KERNEL_NEEDED, KERNEL_GOOD = (5, 19), (6, 1)
NEEDED_CAPABILITIES = (
    "SYS_ADMIN",
    "NET_ADMIN",
    "SETUID",
    "SETGID",
    "CHOWN",
    "DAC_OVERRIDE",
    "SYS_CHROOT",
    "KILL",
)
CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")
V1_NAMES = {"io": "blkio"}
NEEDED_CONTROLLERS = frozenset({"memory", "pids", "cpu"})
RANGE_IDS = 65_536
RANGES_FEW_PERCENT = 10
UNITS = ("bakehouse.socket", "bakehouse.service", "bakehouse-containers.service")


def kernel(seen: Kernel) -> Iterator[Finding]:
    """Old kernels cannot show one layer to people with different ids."""
    said = f"Linux {seen.release} on {seen.architecture}"
    version = tuple(map(int, re.findall(r"\d+", seen.release)[:2]))
    if version < KERNEL_NEEDED:
        yield broken(
            "kernel",
            f"{said}: overlays over idmapped layers came with Linux 5.19",
            "install a kernel of 6.1 or newer",
        )
    elif version < KERNEL_GOOD:
        yield degraded("kernel", f"{said}: nobody tries one older than 6.1", "install a newer one")
    else:
        yield ok("kernel", said)
    if seen.capabilities is None:
        return
    lacking = [name for name in NEEDED_CAPABILITIES if name not in seen.capabilities]
    if lacking:
        yield broken(
            "privileges",
            f"root here lacks CAP_{', CAP_'.join(lacking)}",
            "run on the host itself, not in a container",
        )
    elif "SYS_RESOURCE" not in seen.capabilities:
        yield degraded(
            "privileges",
            "root here lacks CAP_SYS_RESOURCE: containers' ulimits and oom scores cannot go beyond the daemon's own",
        )


def cgroups(seen: CgroupMounts) -> Iterator[Finding]:
    """Limits need controllers."""
    if not seen.v1 and not seen.v2:
        yield broken("cgroups", "none are mounted", "mount -t cgroup2 none /sys/fs/cgroup")
        return
    kind = "v2" if not seen.v1 else "hybrid" if seen.v2 else "v1"
    has = seen.controllers | {name for name in CONTROLLERS if V1_NAMES.get(name, name) in seen.v1}
    lacking = [name for name in CONTROLLERS if name not in has]
    said = (
        f"{kind}, with {', '.join(name for name in CONTROLLERS if name in has) or 'no controller'}"
    )
    if seen.made is False:
        yield broken(
            "cgroups",
            f"{said}: a group of our own cannot be made",
            "the daemon needs cgroups mounted writable, and a place in them that is delegated to it",
        )
    elif NEEDED_CONTROLLERS & set(lacking):
        yield broken(
            "cgroups",
            f"{said}; lacking: {', '.join(lacking)}",
            "enable them in the kernel's configuration or on its command line (cgroup_enable=memory)",
        )
    elif lacking:
        yield degraded(
            "cgroups", f"{said}; lacking: {', '.join(lacking)}", "enable them in the kernel"
        )
    elif kind != "v2":
        yield degraded(
            "cgroups",
            f"{said}: no memory.high, and one process dies where all of a container should",
            "boot with systemd.unified_cgroup_hierarchy=1 for cgroup v2 alone",
        )
    else:
        yield ok("cgroups", said)


def pressure(told: frozenset[str]) -> Iterator[Finding]:
    """The monitor holds work back by it."""
    lacking = sorted({"cpu", "memory", "io"} - told)
    if lacking:
        yield degraded(
            "pressure",
            f"the kernel does not tell of {', '.join(lacking)}: work is not held back when the host is short of it",
            "boot with psi=1 on a kernel that has CONFIG_PSI",
        )
    else:
        yield ok("pressure", "told for processors, memory and disks")


def runtimes(seen: tuple[Program, ...]) -> Iterator[Finding]:
    """One that works is enough."""
    works = [one for one in seen if one.worked]
    found = [one for one in seen if one.path]
    if not found:
        yield broken(
            "runtime",
            f"neither {' nor '.join(one.name for one in seen)} is installed",
            "apt install crun",
        )
    elif not works and any(one.worked is False for one in found):
        told = "; ".join(f"{one.name} {one.version}: {one.complaint}" for one in found)
        yield broken(
            "runtime",
            f"none runs a container: {told}",
            "install another version, or a kernel that suits it",
        )
    elif not works:
        yield unseen("runtime", f"{_named(found[0])} is installed", "only root can try it")
    else:
        yield ok("runtime", f"{_named(works[0])} runs a container")
        for one in found:
            if one.worked is False:
                yield degraded("runtime", f"{_named(one)} does not: {one.complaint}")


def conmon(seen: Program) -> Iterator[Finding]:
    """It holds a container's output and exit code while the daemon is away."""
    if not seen.path:
        yield broken("conmon", "it is not installed", "apt install conmon")
    elif seen.worked is False:
        yield broken("conmon", f"{seen.path} does not start: {seen.complaint}", "install it again")
    else:
        yield ok("conmon", _named(seen))


def helpers(
    seen: tuple[Program, ...], *, seccomp_profile: str, profile_there: bool
) -> Iterator[Finding]:
    """What single commands need, and the filter every container gets."""
    if not profile_there:
        yield broken(
            "seccomp",
            f"there is no default profile at {seccomp_profile}",
            "apt install golang-github-containers-common (or containers-common), or set runtime.seccomp_profile",
        )
    missing = [one.name for one in seen if not one.path]
    for name in missing:
        package, loses = HELPERS[name]
        yield degraded(
            "programs",
            f"{name} is not installed: {loses} will be refused",
            f"apt install {package}",
        )
    if profile_there and not missing:
        yield ok(
            "programs", f"{', '.join(one.name for one in seen)} and the seccomp profile are there"
        )


HELPERS = {
    "tar": ("tar", "unpacking images"),
    "ps": ("procps", "docker top"),
    "mmdebstrap": ("mmdebstrap", "making base images"),
    "tini-static": ("tini", "docker run --init"),
}
"""Programs that single commands need: the package they are in, and what is lost without."""


def user_namespaces(tried: Tried | None, seen: Ids) -> Iterator[Finding]:
    """Every user's containers run in one."""
    if seen.ours < 2**32 - 1:
        yield broken(
            "ids",
            f"this process has only {seen.ours} ids: it is in a user namespace itself",
            "run the daemon on the host itself",
        )
    elif seen.namespaces_max == 0:
        yield broken(
            "ids", "the kernel gives no user namespaces", "sysctl user.max_user_namespaces=65536"
        )
    elif tried is not None and not tried.worked:
        yield broken(
            "ids",
            f"no user namespace can be made: {tried.said}",
            "look at user.max_user_namespaces",
        )
    elif tried is None:
        yield unseen("ids", "user namespaces are there", "only root can try one")
    else:
        yield ok("ids", tried.said)
    yield from _pool(seen)


def _pool(seen: Ids) -> Iterator[Finding]:
    pool = range(seen.pool_first_id, seen.pool_first_id + seen.pool_owners * RANGE_IDS)
    taken = {(number - pool.start) // RANGE_IDS for number in seen.accounts if number in pool}
    for first, count in seen.subordinate:
        begin, end = max(first, pool.start), min(first + count, pool.stop)
        if begin < end:
            taken |= set(
                range((begin - pool.start) // RANGE_IDS, (end - 1 - pool.start) // RANGE_IDS + 1)
            )
    free = seen.pool_owners - len(taken)
    said = f"{free} of {seen.pool_owners} ranges of the pool from {pool.start} on are nobody's account or subordinate ids"
    advice = "move access.range_pool_first_id, before anybody has a range, or enlarge access.range_pool_owners_max"
    if free <= 0:
        yield broken("id ranges", said, advice)
    elif free * 100 < seen.pool_owners * RANGES_FEW_PERCENT:
        yield degraded("id ranges", said, advice)
    else:
        yield ok("id ranges", said)


def firewall(filtering: Tried | None, links: Tried | None) -> Iterator[Finding]:
    """Networks and ports."""
    if filtering is None or links is None:
        yield unseen("firewall", "not tried", "only root can")
        return
    if not filtering.worked:
        missing = "cannot open shared object" in filtering.said
        yield broken(
            "firewall",
            f"nftables does not work: {filtering.said}",
            "apt install libnftables1"
            if missing
            else "load nf_tables, nft_nat, nft_masq and nft_ct",
        )
    if not links.worked:
        yield broken(
            "firewall", f"no link can be made: {links.said}", "load the modules bridge and veth"
        )
    if filtering.worked and links.worked:
        yield ok("firewall", f"{filtering.said}; {links.said}")


def forwarding(seen: Forwarding) -> Iterator[Finding]:
    """Others' rules hold beside ours: an accept of ours overrules no drop of theirs."""
    if not seen.ipv4 and not seen.changeable:
        yield broken(
            "forwarding",
            "net.ipv4.ip_forward is off and cannot be switched on from here",
            "sysctl net.ipv4.ip_forward=1",
        )
    elif not seen.ipv4:
        yield ok("forwarding", "off; the daemon switches it on when it starts")
    else:
        yield ok("forwarding", "on")
    if seen.dropping is None:
        yield unseen(
            "filtering", "whether other chains drop what is forwarded", "only root can look"
        )
    elif seen.dropping and not seen.docker_user:
        yield degraded(
            "filtering",
            f"{', '.join(seen.dropping)} drops what it does not know: containers reach nobody beyond their bridge",
            "accept there what comes from and goes to the bridges whose names begin with bh",
        )
    elif seen.dropping:
        yield ok(
            "filtering",
            f"{', '.join(seen.dropping)} drops; our bridges are let through DOCKER-USER",
        )
    else:
        yield ok("filtering", "no other chain drops what is forwarded")
    if seen.bridges_filtered and seen.dropping and not seen.docker_user:
        yield degraded(
            "filtering",
            "net.bridge.bridge-nf-call-iptables is on: containers of one bridge do not reach one another either",
            "sysctl net.bridge.bridge-nf-call-iptables=0, unless somebody needs it",
        )


def engines(running: tuple[str, ...]) -> Iterator[Finding]:
    """Other engines are good neighbours, mostly."""
    if running:
        yield ok("engines", f"{', '.join(running)} runs beside us; what it sets up is left alone")
    else:
        yield ok("engines", "no other container engine runs")


def groups(seen: tuple[tuple[str, bool], ...]) -> Iterator[Finding]:
    """Who may use the daemon is who is in them."""
    missing = [name for name, there in seen if not there]
    for name in missing:
        yield degraded("groups", f"there is no group {name}", f"groupadd --system {name}")
    if not missing:
        yield ok("groups", " and ".join(name for name, _ in seen))


def units(seen: Units) -> Iterator[Finding]:
    """Only what is installed is held to run."""
    if not seen.running:
        yield ok("systemd", "it is not this host's init; bakehoused is started by hand")
        return
    if not seen.states:
        yield ok("systemd", "no unit of ours is installed")
        return
    failed = [name for name, state in seen.states.items() if state == "failed"]
    idle = [name for name in UNITS if seen.states.get(name) == "inactive"]
    missing = [name for name in UNITS if name not in seen.states]
    said = ", ".join(f"{name} {state}" for name, state in seen.states.items())
    if failed:
        yield broken("systemd", said, f"systemctl status {failed[0]}; journalctl -u {failed[0]}")
    elif missing:
        yield broken(
            "systemd", f"{said}; missing: {', '.join(missing)}", "run deploy/install again"
        )
    elif "bakehouse.socket" in idle:
        yield degraded("systemd", said, "systemctl enable --now bakehouse.socket")
    else:
        yield ok("systemd", said)


def settings(fault: str) -> Iterator[Finding]:
    """Only that the file is TOML; whether it makes sense is the daemon's to say."""
    if fault:
        yield broken(
            "settings", fault, "mend the file; bakehoused says where it does not make sense"
        )


def _named(one: Program) -> str:
    return f"{one.name} {one.version}".rstrip() + f" ({one.path})"

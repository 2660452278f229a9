"""Living beside others who forward packets: the kernel's switch for it, and dockerd.

Words: **DOCKER-USER** is the chain that dockerd leaves to the administrator; its FORWARD chain drops what no rule
accepts, and no accept in a table of ours overrules that.

Rules:

* We touch nobody's policy, and no rule that does not carry our mark.
* Where DOCKER-USER exists our bridges are let through there, behind the administrator's own rules and before its final
  RETURN. What goes to dockerd's own bridges is left to dockerd.
* It may come later, or be flushed: :meth:`Neighbours.enter` is called again whenever the packet filter changes there.
"""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

from supervisor.errors import Internal
from supervisor.linux.spawner import Command, Spawner
from supervisor.tasks import in_thread

CHAIN = "DOCKER-USER"
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")
FORWARDING_IPV6 = Path("/proc/sys/net/ipv6/conf")

_WAIT_SECONDS = "5"
_DOCKER_BRIDGES = ("docker0", "br-+")


def rules(prefix: str, mark: str) -> list[str]:
    """Our rules, as iptables words them, in order. Pure.

    Args:
        prefix: What the names of our bridges, and no others, begin with.
        mark: The comment that makes them ours.
    """
    comment = f"-m comment --comment {mark}"
    left = [f"-i {prefix}+ -o {other} {comment} -j RETURN" for other in _DOCKER_BRIDGES]
    return [*left, f"-i {prefix}+ {comment} -j ACCEPT", f"-o {prefix}+ {comment} -j ACCEPT"]


def entering(listing: str, prefix: str, mark: str) -> str:
    """What to feed ``iptables-restore --noflush`` so that our rules stand where they should; empty when they do. Pure.

    Args:
        listing: What ``iptables -S DOCKER-USER`` shows.
        prefix: See :func:`rules`.
        mark: See :func:`rules`.
    """
    standing = [line for line in listing.splitlines() if line.startswith(f"-A {CHAIN} ")]
    if len([line for line in standing if _marked(line, mark)]) == len(rules(prefix, mark)):
        return ""
    others = [line for line in standing if not _marked(line, mark)]
    last = len(others) if others and others[-1] == f"-A {CHAIN} -j RETURN" else len(others) + 1
    added = [
        f"-I {CHAIN} {last + offset} {rule}" for offset, rule in enumerate(rules(prefix, mark))
    ]
    return _restore([*_deletions(standing, mark), *added])


def leaving(listing: str, mark: str) -> str:
    """The same for taking our rules out; empty when there are none. Pure."""
    return _restore(_deletions(listing.splitlines(), mark))


def _deletions(lines: list[str], mark: str) -> list[str]:
    return [line.replace("-A ", "-D ", 1) for line in lines if _marked(line, mark)]


def _marked(line: str, mark: str) -> bool:
    words = shlex.split(line)
    return any(pair == ("--comment", mark) for pair in itertools.pairwise(words))


def _restore(lines: list[str]) -> str:
    return "\n".join(["*filter", *lines, "COMMIT", ""]) if lines else ""


class Neighbours:
    """This host's other forwarders.

    Args:
        spawner: Starts iptables.
        prefix: What the names of our bridges, and no others, begin with.
        mark: The comment that makes a rule ours.
    """

    def __init__(self, spawner: Spawner, prefix: str, mark: str) -> None:
        self._spawner = spawner
        self._prefix = prefix
        self._mark = mark

    async def enter(self) -> None:
        """Our bridges are let through DOCKER-USER, if there is one."""
        listing = await self._listing()
        if listing is not None:
            await self._change(entering(listing, self._prefix, self._mark))

    async def leave(self) -> None:
        """None of our rules is there."""
        listing = await self._listing()
        if listing is not None:
            await self._change(leaving(listing, self._mark))

    async def _listing(self) -> str | None:
        """The chain's rules; None where there is no chain, or no iptables."""
        try:
            done = await self._spawner.run(
                Command(("iptables", "-w", _WAIT_SECONDS, "-S", CHAIN), env=_ENVIRONMENT)
            )
        except OSError:
            return None
        return done.stdout.decode(errors="replace") if done.returncode == 0 else None

    async def _change(self, script: str) -> None:
        if not script:
            return
        argv = ("iptables-restore", "-w", _WAIT_SECONDS, "--noflush")
        done = await self._spawner.run(Command(argv, env=_ENVIRONMENT), input=script.encode())
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()
            message = f"cannot let containers through {CHAIN}: {said}"
            raise Internal(message)


_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}


async def allow_forwarding() -> bool:
    """The kernel forwards IPv4. Whether it took us to switch it on; it is left on, others may have come to need it."""

    def switch() -> bool:
        if FORWARDING.read_text().strip() == "1":
            return False
        FORWARDING.write_text("1")
        return True

    return await in_thread(switch)


async def allow_forwarding_ipv6() -> bool:
    """The kernel forwards IPv6; whether it took us to switch it on.

    A host that forwards takes no router's word any more, and would lose its own way out: the links that did are told to
    go on doing so (``accept_ra`` 2, Documentation/networking/ip-sysctl.rst).
    """

    def switch() -> bool:
        everywhere = FORWARDING_IPV6 / "all" / "forwarding"
        if everywhere.read_text().strip() == "1":
            return False
        for link in FORWARDING_IPV6.iterdir():
            accepts = link / "accept_ra"
            if link.name != "all" and accepts.read_text().strip() == "1":
                accepts.write_text("2")
        everywhere.write_text("1")
        return True

    return await in_thread(switch)


async def set_up_interface(name: str, *, ipv6: bool = False) -> None:
    """Let packets from 127.0.0.1 be mapped to what is behind a bridge of ours; keep IPv6 off it, or containers' routers."""

    def write() -> None:
        for setting, value in (
            (f"ipv4/conf/{name}/route_localnet", "1"),
            (f"ipv6/conf/{name}/accept_ra", "0"),
            (f"ipv6/conf/{name}/accept_redirects", "0"),
            (f"ipv6/conf/{name}/disable_ipv6", str(int(not ipv6))),
        ):
            path = Path("/proc/sys/net", setting)
            if path.exists():  # no IPv6 in this kernel: none to keep off
                path.write_text(value)

    await in_thread(write)

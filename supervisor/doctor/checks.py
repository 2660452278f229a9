"""The doctor's table: what is looked at, in order, and who judges it. Standard library only.

Rules: a check that cannot look says so, and the others go on; what root alone can see is *unseen* for everybody else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from supervisor.doctor import judge, judge_store, look
from supervisor.doctor.findings import Finding, Findings, unseen
from supervisor.doctor.place import Place


@dataclass(frozen=True)
class Check:
    """One row.

    Attributes:
        name: What is looked at.
        look: Looks and judges.
        before: It makes sense before anything is installed.
    """

    name: str
    look: Callable[[Place], Iterable[Finding]]
    before: bool = True


def _runtimes(place: Place) -> Iterable[Finding]:
    return judge.runtimes(look.runtimes(place))


def _helpers(place: Place) -> Iterable[Finding]:
    there = place.seccomp_profile.exists()
    profile = str(place.seccomp_profile)
    return judge.helpers(look.helpers(place), seccomp_profile=profile, profile_there=there)


def _ids(place: Place) -> Iterable[Finding]:
    tried = look.tried("user_namespace", str(place.pool_first_id), place=place)
    return judge.user_namespaces(tried, look.ids(place))


def _firewall(place: Place) -> Iterable[Finding]:
    return judge.firewall(
        look.tried("packet_filter", place=place), look.tried("links", place=place)
    )


CHECKS = (
    Check("settings", lambda place: judge.settings(place.settings_fault)),
    Check("kernel", lambda place: judge.kernel(look.kernel(place))),
    Check("cgroups", lambda place: judge.cgroups(look.cgroups(place))),
    Check("pressure", lambda place: judge.pressure(look.pressure(place))),
    Check("runtime", _runtimes),
    Check("conmon", lambda place: judge.conmon(look.conmon(place))),
    Check("programs", _helpers),
    Check("storage", lambda place: judge_store.storage(look.disk(place), look.overlay(place))),
    Check("disk", lambda place: judge_store.room(look.disk(place))),
    Check("ids", _ids),
    Check("firewall", _firewall),
    Check("forwarding", lambda place: judge.forwarding(look.forwarding(place))),
    Check("engines", lambda place: judge.engines(look.engines(place))),
    Check("groups", lambda place: judge.groups(look.groups(place)), before=False),
    Check("systemd", lambda place: judge.units(look.units(place)), before=False),
)


def examine(place: Place, *, before: bool = False) -> Iterator[tuple[str, Findings]]:
    """Look at everything, one check after the other; its name and what was found.

    Args:
        place: What is to be served.
        before: Only what makes sense before Bakehouse is installed.
    """
    for check in CHECKS:
        if check.before or not before:
            yield check.name, _looked(check, place)


def _looked(check: Check, place: Place) -> Findings:
    try:
        return tuple(check.look(place))
    except PermissionError as error:
        return (unseen(check.name, f"cannot look: {error}", "only root can"),)
    except OSError as error:
        return (unseen(check.name, f"cannot look: {error}"),)

"""The daemon's own part of ``bakehouse doctor``: what it took, what it lacks, and how it is; for every caller alike."""

from __future__ import annotations

from collections.abc import Iterator

from supervisor.api.call import Call
from supervisor.api.http import Response, json_response
from supervisor.api.services import HostFacts
from supervisor.config import Config
from supervisor.doctor import judge_store, look
from supervisor.doctor.facts import Disk
from supervisor.doctor.findings import Finding, as_table, degraded, ok
from supervisor.doctor.place import Place
from supervisor.monitor.detect import Level, Verdict
from supervisor.tasks import in_thread


async def doctor(call: Call) -> Response:
    """``GET /bakehouse/v1/doctor``: the daemon's version, and findings as ``bakehouse doctor --json`` has them."""
    services = call.services
    disk = await in_thread(lambda: look.disk(Place(data_root=services.config.data_root)))
    findings = own_findings(services.facts, services.monitor.verdict(), disk)
    allotted = len(await services.owners.allotted())
    told = (*findings, ranges(services.config, allotted))
    return json_response({"version": services.facts.version, **as_table(told)})


def own_findings(facts: HostFacts, verdict: Verdict, disk: Disk) -> Iterator[Finding]:
    """What a running daemon knows of its host; pure."""
    yield ok("runtime", f"{facts.runtime} {facts.runtime_version} ({facts.runtime_path})")
    if facts.lacks:
        yield degraded("limits", f"cgroups {facts.cgroups}: {'; '.join(facts.lacks)}")
    else:
        yield ok("limits", f"cgroups {facts.cgroups}, with everything")
    if verdict.level is Level.CALM:
        yield ok("verdict", "the host is calm")
    else:
        said = f"the host is {verdict.level.word}: {verdict.reason}"
        yield degraded("verdict", said, "bakehouse top shows who uses what")
    yield from judge_store.room(disk)


def ranges(config: Config, allotted: int) -> Finding:
    """How much of the pool of ids is left; pure."""
    owners_max = config.access.range_pool_owners_max
    said = f"{allotted} of {owners_max} ranges of ids are allotted"
    if allotted * 10 < owners_max * 9:
        return ok("ranges", said)
    return degraded("ranges", said, "enlarge access.range_pool_owners_max")

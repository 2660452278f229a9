"""The people of this host: who am I, what may I use, and for administrators everybody's limits and use.

An owner is named by uid: names are the account database's, and every client on this host can ask it.
"""

from __future__ import annotations

from supervisor.access.quota import Quota, Use, quotas
from supervisor.api.call import Call
from supervisor.api.docker.system import look_quickly
from supervisor.api.http import JsonObject, Response, json_response
from supervisor.errors import InvalidArgument, NotFound
from supervisor.linux.cgroup_model import CgroupSample
from supervisor.runtime.cgroup_tree import owner_group
from supervisor.runtime.owner_groups import set_owner_limits, unheld

UID_MAX = 2**32 - 2
DISK = "disk"


async def whoami(call: Call) -> Response:
    """``GET /bakehouse/v1/whoami``: the caller, as the daemon knows them; their range of ids, limits and use."""
    identity = call.identity
    owner = await call.services.owners.owner_of(identity)
    return json_response(
        {
            "uid": identity.uid,
            "user": identity.user,
            "role": identity.role.value,
            "groups": list(identity.groups),
            "remapped": owner.remapped,
            "range_first": owner.range_first,
            **await _standing(call, identity.owner),
        }
    )


async def quota(call: Call) -> Response:
    """``GET /bakehouse/v1/quota``: used of allowed, of the caller's own."""
    await look_quickly(call.services.disk)
    return json_response(await _quotas(call, call.identity.owner))


async def list_all(call: Call) -> Response:
    """``GET /bakehouse/v1/owners``: everybody who has or had something here, or for whom something is set."""
    uids = sorted(await _known(call))
    return json_response([await _told(call, uid) for uid in uids])


async def show(call: Call) -> Response:
    """``GET /bakehouse/v1/owners/{uid}``."""
    return json_response(await _shown(call, _uid(call)))


async def change(call: Call) -> Response:
    """``POST /bakehouse/v1/owners/{uid}``: other ``limits`` by name, null for the default; they hold at once."""
    uid = _uid(call)
    body = await call.json()
    unknown, limits = sorted(set(body) - {"limits"}), body.get("limits")
    if unknown or not isinstance(limits, dict):
        raise InvalidArgument(
            f"cannot set the owner's limits: there is no {unknown[0][:40]!r}"
            if unknown
            else "cannot set the owner's limits: none are given",
            hint='{"limits": {"containers_max": 10}}',
        )
    await set_owner_limits(call.services.containers.parts, uid, limits, call.identity)
    return json_response(await _shown(call, uid))


async def suspend(call: Call) -> Response:
    """``POST /bakehouse/v1/owners/{uid}/suspend``: nothing new of theirs begins; ``reason`` is told to them."""
    uid, body = _uid(call), await call.json()
    reason = body.get("reason", "")
    if not isinstance(reason, str):
        raise InvalidArgument("cannot suspend the owner: the reason is no text")
    await call.services.suspensions.suspend(uid, reason, call.identity)
    return json_response(await _shown(call, uid))


async def resume(call: Call) -> Response:
    """``POST /bakehouse/v1/owners/{uid}/resume``: they may work again."""
    uid = _uid(call)
    await call.services.suspensions.resume(uid, call.identity)
    return json_response(await _shown(call, uid))


def _uid(call: Call) -> int:
    text = call["uid"]
    if not (text.isascii() and text.isdigit()) or int(text) > UID_MAX:
        raise InvalidArgument(f"cannot find owner {text[:40]}: an owner is named by uid here")
    return int(text)


async def _known(call: Call) -> set[int]:
    services = call.services
    having = {keeper.record.owner for keeper in services.containers.every()}
    return having | set(services.suspensions.every()) | set(await services.owners.known())


async def _shown(call: Call, uid: int) -> JsonObject:
    """One owner; those with nothing here have an account at least.

    Raises:
        NotFound: There is no such account, and nothing of theirs.
    """
    if uid not in await _known(call) and not await call.services.owners.has_account(uid):
        raise NotFound(f"cannot find owner {uid}: no such account")
    return await _told(call, uid)


async def _told(call: Call, uid: int) -> JsonObject:
    return {
        "uid": uid,
        "user": await call.services.owners.name_of(uid),
        **await _standing(call, uid),
    }


async def _standing(call: Call, uid: int) -> JsonObject:
    """Limits, use, and whether they may work."""
    services = call.services
    limits = services.owners.limits(uid)
    held = services.suspensions.of(uid)
    abilities = services.containers.parts.host.abilities
    return {
        "suspended": held and {"reason": held.reason, "by": held.by, "since_ns": held.since_ns},
        "weights": {"cpu": limits.cpu_weight, "io": limits.io_weight},
        "own_limits": dict(services.owners.own_limits(uid)),
        "not_held": list(unheld(services.owners.own_limits(uid), abilities)),
        "quotas": await _quotas(call, uid),
    }


async def _quotas(call: Call, uid: int) -> list[JsonObject]:
    limits, use = call.services.owners.limits(uid), await use_of(call, uid)
    return [
        _line(one) | ({"parts": dict(use.disk)} if one.name == DISK else {})
        for one in quotas(use, limits)
    ]


def _line(one: Quota) -> JsonObject:
    return {"name": one.name, "unit": one.unit.value, "used": one.used, "allowed": one.allowed}


async def use_of(call: Call, uid: int) -> Use:
    """What an owner has and uses now."""
    services = call.services
    group = await _group(call, uid)
    sample = services.monitor.latest()
    owners = sample.owners if sample else ()
    return Use(
        cpu_cores=next((one.usage.cpu_cores for one in owners if one.owner == uid), 0.0),
        memory_bytes=max(group.memory_bytes - group.memory_inactive_file_bytes, 0),
        pids=group.pids,
        containers=services.containers.count(uid),
        builds=services.builds.at_work().get(uid, 0),
        networks=services.networks.made_by(uid),
        ports=services.networks.ports_of(uid),
        volumes=await services.store.volumes.count(uid),
        execs=services.containers.execs_at_work(uid),
        disk=await services.disk.of(uid),
    )


async def _group(call: Call, uid: int) -> CgroupSample:
    """All that they run; nothing where they run nothing."""
    try:
        return (await call.services.monitor.sample(owner_group(uid))).cgroup
    except NotFound:
        return CgroupSample(time_ns=0)

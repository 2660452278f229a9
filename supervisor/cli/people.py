"""``bakehouse whoami``, ``quota`` and ``owner``: people, what they may use and what they use."""

from __future__ import annotations

import grp
import pwd
import sys
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import orjson

from supervisor.cli.connection import Request, ask
from supervisor.cli.tables import human_bytes, print_table
from supervisor.cli.top import printable
from supervisor.errors import InvalidArgument, NotFound

API = "/bakehouse/v1"
UNBOUNDED = "-"
PERCENT = 100
RANGE_IDS = 65_536
SIZES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
OWNER_COLUMNS = ("UID", "USER", "CONTAINERS", "CPU", "MEMORY", "PIDS", "OWN LIMITS", "SUSPENDED")


async def fetch(
    socket: str, method: str, path: str, body: Mapping[str, object] | None = None
) -> object:
    """The daemon's answer to one request of our own API."""
    data = orjson.dumps(body) if body is not None else b""
    async with ask(socket, Request(method, f"{API}{path}", body=data)) as answer:
        return await answer.json()


async def show_whoami(socket: str, *, as_json: bool) -> None:
    """Who the caller is to the daemon."""
    told = _table(await fetch(socket, "GET", "/whoami"))
    if as_json:
        _print_json(told)
        return
    first = told.get("range_first")
    lines = {
        "user": f"{told.get('user')} (uid {told.get('uid')})",
        "role": str(told.get("role")),
        "groups": ", ".join(_group(number) for number in _list(told.get("groups"))),
        "ids": f"container root is you; 1 to 65535 are {first + 1} to {first + RANGE_IDS - 1}"
        if isinstance(first, int)
        else "not remapped: container root is the host's",
    }
    _print_pairs({**lines, **_standing(told)})
    sys.stdout.write("\n")
    _print_quotas(told.get("quotas"))


async def show_quota(socket: str, *, as_json: bool) -> None:
    """Used of allowed."""
    told = await fetch(socket, "GET", "/quota")
    if as_json:
        _print_json(told)
    else:
        _print_quotas(told)


async def list_owners(socket: str, *, as_json: bool) -> None:
    """Everybody, one a line."""
    told = await fetch(socket, "GET", "/owners")
    if as_json:
        _print_json(told)
    else:
        print_table(OWNER_COLUMNS, [_owner_row(_table(one)) for one in _list(told)])


async def show_owner(socket: str, owner: str, *, as_json: bool) -> None:
    """One of them."""
    _print_owner(await fetch(socket, "GET", f"/owners/{uid_of(owner)}"), as_json=as_json)


async def set_owner(socket: str, owner: str, words: Iterable[str], *, as_json: bool) -> None:
    """Other limits for one of them."""
    body = {"limits": limits_of(words)}
    _print_owner(await fetch(socket, "POST", f"/owners/{uid_of(owner)}", body), as_json=as_json)


async def suspend_owner(socket: str, owner: str, reason: str) -> None:
    """Nothing new of theirs begins."""
    await fetch(socket, "POST", f"/owners/{uid_of(owner)}/suspend", {"reason": reason})
    sys.stdout.write(f"{owner}\n")


async def resume_owner(socket: str, owner: str) -> None:
    """They may work again."""
    await fetch(socket, "POST", f"/owners/{uid_of(owner)}/resume")
    sys.stdout.write(f"{owner}\n")


def uid_of(owner: str) -> str:
    """The uid of an account, by its name or as it is.

    Raises:
        NotFound: There is no such account.
    """
    if owner.isascii() and owner.isdigit():
        return owner
    try:
        return quote(str(pwd.getpwnam(owner).pw_uid))
    except (KeyError, ValueError):
        raise NotFound(f"cannot find owner {printable(owner)}: no such account") from None


def limits_of(words: Iterable[str]) -> dict[str, int | float | None]:
    """``containers_max=10``, ``memory_bytes_max=4g``, ``cpus_max=1.5``, ``pids_max=default``.

    Raises:
        InvalidArgument: One says nothing of the kind.
    """
    return {name: _value(name, text) for name, text in map(_pair, words)}


def _pair(word: str) -> tuple[str, str]:
    name, equals, text = word.partition("=")
    if not (name and equals and text):
        hint = "LIMIT=VALUE, e.g. containers_max=10, memory_bytes_max=4g, cpus_max=1.5, or pids_max=default"
        raise InvalidArgument(f"cannot set {printable(word)!r}: it is no limit", hint=hint)
    return name.replace("-", "_"), text


def _value(name: str, text: str) -> int | float | None:
    if text == "default":
        return None
    number, factor = text.lower(), 1
    if number[-1:] in SIZES:
        number, factor = number[:-1], SIZES[number[-1]]
    try:
        return int(number) * factor
    except ValueError:
        pass
    try:
        value = float(number) * factor
    except ValueError:
        raise InvalidArgument(f"cannot set {name}: {printable(text)!r} is no number") from None
    return int(value) if factor > 1 else value


def _print_owner(told: object, *, as_json: bool) -> None:
    if as_json:
        _print_json(told)
        return
    owner = _table(told)
    own = _table(owner.get("own_limits"))
    lines = {
        "user": f"{owner.get('user')} (uid {owner.get('uid')})",
        **_standing(owner),
        "own limits": ", ".join(f"{name}={value}" for name, value in own.items()) or "none",
    }
    if not_held := _list(owner.get("not_held")):
        lines["not held"] = (
            f"{', '.join(map(str, not_held))}: this host's kernel does not see to it"
        )
    _print_pairs(lines)
    sys.stdout.write("\n")
    _print_quotas(owner.get("quotas"))


def _standing(told: Mapping[str, object]) -> dict[str, str]:
    weights, held = _table(told.get("weights")), _table(told.get("suspended"))
    because = f": {held.get('reason')}" if held.get("reason") else ""
    return {
        "weights": f"cpu {weights.get('cpu')}, io {weights.get('io')} (100 is normal)",
        **({"suspended": f"by {held.get('by')}{because}"} if held else {}),
    }


def _print_pairs(lines: Mapping[str, str]) -> None:
    width = max(map(len, lines)) + 1
    for name, text in lines.items():
        sys.stdout.write(f"{name + ':':<{width}} {printable(text)}\n")


def _print_quotas(told: object) -> None:
    print_table(("", "USED", "ALLOWED", "PERCENT"), [quota_row(_table(one)) for one in _list(told)])
    if parts := _parts(told):
        sys.stdout.write(f"on the disk, when it was last looked at: {parts}\n")


def _parts(told: object) -> str:
    """What the disk's use is made of, the largest first."""
    parts = [_table(_table(line).get("parts")) for line in _list(told)]
    sizes = {name: size for part in parts for name, size in part.items() if isinstance(size, int)}
    ordered = sorted(sizes.items(), key=lambda part: (-part[1], part[0]))
    return ", ".join(f"{name} {human_bytes(size)}" for name, size in ordered if size)


def quota_row(one: Mapping[str, object]) -> tuple[str, ...]:
    """Name, used, allowed, percentage."""
    used, allowed, unit = one.get("used"), one.get("allowed"), str(one.get("unit"))
    share = UNBOUNDED
    if isinstance(allowed, int | float) and isinstance(used, int | float):
        share = f"{used * PERCENT / allowed:.0f}%"
    return str(one.get("name")), _amount(used, unit), _amount(allowed, unit), share


def _amount(value: object, unit: str) -> str:
    if not isinstance(value, int | float):
        return UNBOUNDED
    if unit == "bytes":
        return human_bytes(int(value))
    return f"{value:.2f}" if unit == "cores" else f"{value:.0f}"


def _owner_row(one: Mapping[str, object]) -> tuple[str, ...]:
    rows = {
        str(_table(line).get("name")): quota_row(_table(line)) for line in _list(one.get("quotas"))
    }
    figures = (
        rows[name][1] if name in rows else UNBOUNDED
        for name in ("containers", "cpu", "memory", "pids")
    )
    own = ", ".join(f"{name}={value}" for name, value in _table(one.get("own_limits")).items())
    held = _table(one.get("suspended"))
    why = str(held.get("reason") or "yes") if held else ""
    return (str(one.get("uid")), printable(str(one.get("user"))), *figures, own, printable(why))


def _group(number: object) -> str:
    if not isinstance(number, int):
        return str(number)
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return str(number)


def _print_json(value: object) -> None:
    sys.stdout.write(f"{orjson.dumps(value).decode()}\n")


def _table(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []

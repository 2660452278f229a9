"""Seccomp profiles, the packaged default and people's own, put into the form a runtime takes; pure.

The default profile (containers-common's, the same as Docker's) has rules that hold only with certain capabilities,
architectures or kernels; a runtime wants them decided. An administrator's own profile takes its place. A user's can only
take away from it: what both allow is allowed, and nobody has to judge whether it is the stricter one.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import cattrs
import orjson
from attrs import asdict, field, frozen, validators

from supervisor.access.requests import ContainerRequest
from supervisor.errors import InvalidArgument, Unavailable

ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
}
"""``uname -m`` to the profile's word and libseccomp's."""

ALLOW = "SCMP_ACT_ALLOW"
ACTIONS = frozenset(
    f"SCMP_ACT_{name}"
    for name in ("ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP")
)
"""Of seccomp(2), without the one that asks another process."""
OPERATORS = frozenset(
    f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)
ARGUMENT_LAST = 5
VALUE_MAX = 2**64 - 1
ERRNO_MAX = 4_095
OPTION = "seccomp="
PROFILE_CHARACTERS_MAX = 262_144
FAULTS_TOLD_MAX = 5

_WORD = validators.in_(ACTIONS)
_ERRNO = validators.optional(validators.and_(validators.ge(0), validators.le(ERRNO_MAX)))
_VALUE = validators.and_(validators.ge(0), validators.le(VALUE_MAX))


@frozen
class _Condition:
    caps: tuple[str, ...] = ()
    arches: tuple[str, ...] = ()
    minKernel: str = ""  # noqa: N815  # the profile's own key

    def holds(self, capabilities: Collection[str], arch: str, kernel: tuple[int, ...]) -> bool:
        return (
            all(cap in capabilities for cap in self.caps)
            and (not self.arches or arch in self.arches)
            and (not self.minKernel or kernel >= _version(self.minKernel))
        )

    @property
    def empty(self) -> bool:
        return not (self.caps or self.arches or self.minKernel)


@frozen
class _Argument:
    index: int = field(validator=validators.and_(validators.ge(0), validators.le(ARGUMENT_LAST)))
    value: int = field(validator=_VALUE)
    op: str = field(validator=validators.in_(OPERATORS))
    valueTwo: int = field(default=0, validator=_VALUE)  # noqa: N815


@frozen
class _Rule:
    action: str = field(validator=_WORD)
    names: tuple[str, ...] = ()
    name: str = ""  # the form before names
    errnoRet: int | None = field(default=None, validator=_ERRNO)  # noqa: N815
    args: tuple[_Argument, ...] | None = None
    includes: _Condition = _Condition()
    excludes: _Condition = _Condition()


@frozen
class _ArchMap:
    architecture: str
    subArchitectures: tuple[str, ...] | None = None  # noqa: N815


@frozen
class Profile:
    """A profile as packaged, with its conditions."""

    defaultAction: str = field(validator=_WORD)  # noqa: N815
    syscalls: tuple[_Rule, ...] = ()
    defaultErrnoRet: int | None = field(default=None, validator=_ERRNO)  # noqa: N815
    archMap: tuple[_ArchMap, ...] | None = ()  # noqa: N815
    architectures: tuple[str, ...] | None = None


def parse_profile(text: bytes) -> Profile:
    """The profile in ``text`` (JSON)."""
    return cattrs.structure(orjson.loads(text), Profile)


def read_profile(path: Path) -> Profile:
    """The packaged profile.

    Raises:
        Unavailable: It is not on this host.
    """
    try:
        return parse_profile(path.read_bytes())
    except OSError as error:
        raise Unavailable(
            f"cannot run containers: the seccomp profile {path} cannot be read: {error.strerror}",
            hint="install the package that ships it (golang-github-containers-common)",
        ) from error


def profile_text(options: Sequence[str]) -> str | None:
    """The profile that the options of ``--security-opt`` hold as JSON; None when they name none."""
    given = [one.removeprefix(OPTION) for one in options if one.startswith(OPTION)]
    return given[-1] if given and given[-1] not in {"unconfined", "builtin"} else None


@functools.lru_cache(maxsize=16)
def custom_profile(text: str) -> Profile:
    """Somebody's own profile.

    Raises:
        InvalidArgument: It is none.
    """
    if len(text) > PROFILE_CHARACTERS_MAX:
        raise InvalidArgument(
            f"Decoding seccomp profile failed: it is longer than {PROFILE_CHARACTERS_MAX} characters"
        )
    try:
        return parse_profile(text.encode())
    except (orjson.JSONDecodeError, UnicodeEncodeError) as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from error
    except (cattrs.BaseValidationError, TypeError) as error:
        why = "; ".join(cattrs.transform_error(error)[:FAULTS_TOLD_MAX])
        raise InvalidArgument(f"Decoding seccomp profile failed: {why}") from error


def container_seccomp(
    default: Profile, request: ContainerRequest, capabilities: frozenset[str], *, narrowed: bool
) -> Mapping[str, object] | None:
    """``linux.seccomp`` of a container; None for none at all.

    Args:
        default: The packaged profile.
        request: What was asked.
        capabilities: Of its bounding set.
        narrowed: Its own profile, if it has one, only takes away from the default.
    """
    text = profile_text(request.security_opt)
    if text is None:
        unconfined = request.privileged or f"{OPTION}unconfined" in request.security_opt
        return None if unconfined else runtime_seccomp(default, capabilities)
    own = custom_profile(text)
    return _both(default, own, capabilities) if narrowed else runtime_seccomp(own, capabilities)


@functools.lru_cache(maxsize=64)
def _both(default: Profile, own: Profile, capabilities: frozenset[str]) -> Mapping[str, object]:
    """What either profile forbids is forbidden, in the default's way.

    Where one has a condition on the arguments, and the other none or the same, it holds; two different ones cannot be
    put into one rule, and then neither call is allowed.
    """
    whole = dict(runtime_seccomp(default, capabilities))
    arch, _ = ARCHITECTURES.get(platform.machine(), (platform.machine(), ""))
    kernel = _version(platform.release())
    ours = _holding(own, capabilities, arch, kernel)
    allowed: dict[str, list[tuple[_Argument, ...]]] = {}
    named: set[str] = set()
    for rule in ours:
        for name in rule.names or (rule.name,):
            named.add(name)
            if rule.action == ALLOW:
                allowed.setdefault(name, []).append(rule.args or ())
    open_ended = own.defaultAction == ALLOW
    syscalls: list[dict[str, object]] = []
    for rule in _holding(default, capabilities, arch, kernel):
        if rule.action != ALLOW:
            syscalls.append(_plain(rule))
            continue
        for name in rule.names:
            conditions = [()] if open_ended and name not in named else allowed.get(name, [])
            syscalls.extend(_allowed(name, rule.args or (), conditions))
    return {**whole, "syscalls": syscalls}


def _allowed(
    name: str, condition: tuple[_Argument, ...], others: Sequence[tuple[_Argument, ...]]
) -> Iterator[dict[str, object]]:
    for other in others:
        if not condition or not other or condition == other:
            yield _plain(_Rule(ALLOW, (name,), args=condition or other))


def _holding(
    profile: Profile, capabilities: frozenset[str], arch: str, kernel: tuple[int, ...]
) -> list[_Rule]:
    return [
        rule
        for rule in profile.syscalls
        if rule.includes.holds(capabilities, arch, kernel)
        and (rule.excludes.empty or not rule.excludes.holds(capabilities, arch, kernel))
    ]


@functools.lru_cache(maxsize=64)
def runtime_seccomp(profile: Profile, capabilities: frozenset[str]) -> Mapping[str, object]:
    """``linux.seccomp`` of the runtime spec for a process that has ``capabilities`` in its bounding set.

    The result is shared between callers and must not be changed.
    """
    arch, native = ARCHITECTURES.get(platform.machine(), (platform.machine(), ""))
    kernel = _version(platform.release())
    result: dict[str, object] = {
        "defaultAction": profile.defaultAction,
        "architectures": _architectures(profile, native),
        "syscalls": [_plain(rule) for rule in _holding(profile, capabilities, arch, kernel)],
    }
    if profile.defaultErrnoRet is not None:
        result["defaultErrnoRet"] = profile.defaultErrnoRet
    return result


def _architectures(profile: Profile, native: str) -> list[str]:
    if profile.architectures:
        return list(profile.architectures)
    for entry in profile.archMap or ():
        if entry.architecture == native:
            return [native, *(entry.subArchitectures or ())]
    return [native] if native else []


def _plain(rule: _Rule) -> dict[str, object]:
    plain: dict[str, object] = {"names": list(rule.names or (rule.name,)), "action": rule.action}
    if rule.errnoRet is not None:
        plain["errnoRet"] = rule.errnoRet
    if rule.args:
        plain["args"] = [asdict(argument) for argument in rule.args]
    return plain


def _version(text: str) -> tuple[int, ...]:
    numbers = text.split("-", maxsplit=1)[0].split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())

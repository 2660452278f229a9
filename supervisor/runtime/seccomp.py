"""The packaged default seccomp profile, put into the form a runtime takes; pure.

The profile (containers-common's, the same as Docker's) has rules that hold only with certain capabilities,
architectures or kernels; a runtime wants them decided.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Collection, Mapping
from pathlib import Path

import cattrs
import orjson
from attrs import asdict, field, frozen

from supervisor.errors import Unavailable

ARCHITECTURES: Mapping[str, tuple[str, str]] = {
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
}
"""``uname -m`` to the profile's word and libseccomp's."""


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
    index: int
    value: int
    op: str
    valueTwo: int = 0  # noqa: N815


@frozen
class _Rule:
    names: tuple[str, ...]
    action: str
    errnoRet: int | None = None  # noqa: N815
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

    defaultAction: str  # noqa: N815
    syscalls: tuple[_Rule, ...]
    defaultErrnoRet: int | None = None  # noqa: N815
    archMap: tuple[_ArchMap, ...] = field(default=())  # noqa: N815


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
        "syscalls": [
            _plain(rule)
            for rule in profile.syscalls
            if rule.includes.holds(capabilities, arch, kernel)
            and (rule.excludes.empty or not rule.excludes.holds(capabilities, arch, kernel))
        ],
    }
    if profile.defaultErrnoRet is not None:
        result["defaultErrnoRet"] = profile.defaultErrnoRet
    return result


def _architectures(profile: Profile, native: str) -> list[str]:
    for entry in profile.archMap:
        if entry.architecture == native:
            return [native, *(entry.subArchitectures or ())]
    return [native] if native else []


def _plain(rule: _Rule) -> dict[str, object]:
    plain: dict[str, object] = {"names": list(rule.names), "action": rule.action}
    if rule.errnoRet is not None:
        plain["errnoRet"] = rule.errnoRet
    if rule.args:
        plain["args"] = [asdict(argument) for argument in rule.args]
    return plain


def _version(text: str) -> tuple[int, ...]:
    numbers = text.split("-", maxsplit=1)[0].split("+", maxsplit=1)[0].split(".")[:2]
    return tuple(int(number) for number in numbers if number.isdigit())

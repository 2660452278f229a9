"""What the options of a network mean. Pure.

The names are those of Docker's bridge driver; values are read as Go reads them.
"""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from supervisor.errors import InvalidArgument

MTU_MIN, MTU_MAX = 68, 65_535
_MTU = "com.docker.network.driver.mtu"
_ICC = "com.docker.network.bridge.enable_icc"
_MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
_BINDING = "com.docker.network.bridge.host_binding_ipv4"
_TRUTH = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}


@attrs.frozen
class Options:
    """The options of a network.

    Attributes:
        within: Its containers may speak to each other.
        hidden: What they send out gets the host's address.
        host_address: Where ports are published that name no address; empty for everywhere.
        mtu: Largest packet, bytes; 0 for the kernel's default.
    """

    within: bool = True
    hidden: bool = True
    host_address: str = ""
    mtu: int = 0


def read(options: Mapping[str, str]) -> Options:
    """The options by name.

    Raises:
        InvalidArgument: One of them makes no sense.
    """
    return Options(
        within=_truth(options, _ICC),
        hidden=_truth(options, _MASQUERADE),
        host_address=options.get(_BINDING, ""),
        mtu=_mtu(options.get(_MTU, "")),
    )


def _truth(options: Mapping[str, str], name: str) -> bool:
    value = _TRUTH.get(options.get(name, "true"))
    if value is None:
        raise InvalidArgument(f"invalid value for {name}: {options[name][:40]!r}", "true or false")
    return value


def _mtu(text: str) -> int:
    if not text:
        return 0
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len("65535") else 0
    if (number and not MTU_MIN <= number <= MTU_MAX) or (not number and text != "0"):
        raise InvalidArgument(f"invalid value for {_MTU}: {text[:40]!r}", "68 to 65535")
    return number

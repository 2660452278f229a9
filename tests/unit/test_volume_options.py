"""Options of volumes: what they ask for, and what is no option."""

from __future__ import annotations

import pytest

from supervisor.access.volume_options import VolumeSource, volume_source
from supervisor.errors import InvalidArgument


@pytest.mark.parametrize(
    ("options", "source"),
    [
        ({}, None),
        ({"type": "none", "o": "bind", "device": "/a"}, VolumeSource("/a")),
        ({"o": "rbind,ro", "device": "/a"}, VolumeSource("/a", read_only=True)),
        ({"type": "tmpfs", "device": "tmpfs"}, VolumeSource()),
        (
            {"type": "tmpfs", "device": "x", "o": "size=10m,uid=33,noexec,nodev"},
            VolumeSource(options=("size=10m", "uid=33", "noexec")),
        ),
    ],
)
def test_what_they_ask_for(options: dict[str, str], source: VolumeSource | None) -> None:
    assert volume_source(options) == source


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"size": "1g"}, 'invalid option: "size"'),
        ({"type": "tmpfs"}, 'missing required option: "device"'),
        ({"type": "nfs", "o": "addr=10.0.0.1", "device": ":/x"}, "'nfs' is not served"),
        ({"type": "ext4", "device": "/dev/sda"}, "'ext4' is not served"),
        ({"o": "bind", "device": "a"}, "no absolute path"),
        ({"o": "bind,suid", "device": "/a"}, "invalid option: o 'suid'"),
        (
            {"type": "tmpfs", "device": "x", "o": "size=1m,context=x"},
            "invalid option: o 'context=x'",
        ),
        ({"type": "tmpfs", "device": "x", "o": "suid"}, "invalid option: o 'suid'"),
        ({"type": "tmpfs", "o": "bind", "device": "/a"}, "invalid option: o 'bind'"),
    ],
)
def test_what_is_none(options: dict[str, str], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        volume_source(options)
    assert words in caught.value.message

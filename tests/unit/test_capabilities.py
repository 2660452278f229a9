"""Capabilities by number and name."""

from __future__ import annotations

from supervisor.linux.capabilities import NAMES, bounding_set, named
from supervisor.runtime.spec import ALL_CAPABILITIES


def test_the_names_stand_at_their_numbers() -> None:
    assert len(NAMES) == 41
    assert {NAMES.index("SYS_ADMIN"), NAMES.index("MKNOD"), NAMES.index("CHECKPOINT_RESTORE")} == {
        21,
        27,
        40,
    }


def test_a_mask_is_named_bit_by_bit() -> None:
    assert named(0b101) == {"CAP_CHOWN", "CAP_DAC_READ_SEARCH"}
    assert named(1 << 60) == frozenset()


def test_what_can_be_asked_for_is_what_the_kernel_has() -> None:
    assert set(ALL_CAPABILITIES) == {f"CAP_{name}" for name in NAMES}
    assert bounding_set() <= set(ALL_CAPABILITIES)

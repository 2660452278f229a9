"""The program for a cgroup's devices says what the rules say: run by a small reading of its instructions."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from supervisor.linux.device_filter import ACCESSES, KINDS, program

NUMBERS = st.sampled_from([0, 1, 3, 7, 256, 2**31, 2**32 - 1])
RULES = st.lists(
    st.builds(
        lambda kind, major, minor, access: f"{kind} {major}:{minor} {access}",
        st.sampled_from("abc"),
        NUMBERS.map(str) | st.just("*"),
        NUMBERS.map(str) | st.just("*"),
        st.sets(st.sampled_from("rwm"), min_size=1).map(lambda letters: "".join(sorted(letters))),
    ),
    max_size=5,
)


def run(code: bytes, kind: int, access: int, major: int, minor: int) -> int:  # noqa: C901  # a case each
    """The result of the program: loads, moves, and, shift, jump, exit, as bpf(2)'s instruction set has them."""
    context = {0: access << 16 | kind, 4: major, 8: minor}
    registers, at = [0] * 11, 0
    while True:
        name, both, offset, number = struct.unpack_from("=BBhI", code, at * 8)
        target, source, at = both & 15, both >> 4, at + 1
        match name:
            case 0x61:
                registers[target] = context[offset]
            case 0xBC:
                registers[target] = registers[source]
            case 0xB4:
                registers[target] = number
            case 0x54:
                registers[target] &= number
            case 0x74:
                registers[target] >>= number
            case 0x56:
                at += offset if registers[target] != number else 0
            case 0x95:
                return registers[0]
            case other:
                raise AssertionError(other)


def allowed(rules: list[str], kind: str, access: str, major: int, minor: int) -> bool:
    """By the words of the rules: one of them must cover all that is asked."""
    for rule in rules:
        its_kind, numbers, letters = rule.split()
        wanted = zip(numbers.split(":"), (major, minor), strict=True)
        if (
            its_kind in {"a", kind}
            and all(number in {"*", str(given)} for number, given in wanted)
            and set(access) <= set(letters)
        ):
            return True
    return False


@given(
    RULES,
    st.sampled_from("bc"),
    st.sets(st.sampled_from("rwm"), min_size=1).map("".join),
    NUMBERS,
    NUMBERS,
)
def test_the_program_says_what_the_rules_say(
    rules: list[str], kind: str, access: str, major: int, minor: int
) -> None:
    asked = sum(ACCESSES[letter] for letter in access)
    result = run(program(rules), KINDS[kind], asked, major, minor)
    assert result == allowed(rules, kind, access, major, minor)

"""What a cgroup v2's processes may do with devices: the rules of cgroup v1 as a BPF program. Pure.

v2 has no devices controller; the kernel asks a program of the group instead, at every opening and making of a node. It gets
three 32-bit words (access << 16 | kind, major, minor), and allows with 1. Follows bpf(2) and the kernel's instruction set.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

KINDS = {"b": 1, "c": 2}
ACCESSES = {"m": 1, "r": 2, "w": 4}
EVERY_ACCESS = 7

_LOAD_WORD, _MOVE, _MOVE_NUMBER, _AND_NUMBER, _RIGHT_NUMBER = 0x61, 0xBC, 0xB4, 0x54, 0x74
_JUMP_UNLESS, _EXIT = 0x56, 0x95  # of 32 bits: a longer one would extend the number's sign
_ACCESS, _KIND, _MAJOR, _MINOR, _SCRATCH, _CONTEXT, _RESULT = 3, 2, 4, 5, 6, 1, 0


def program(rules: Sequence[str]) -> bytes:
    """The program that allows what any of ``rules`` (``c 1:3 rwm``) allows, and nothing else."""
    code = [
        _instruction(_LOAD_WORD, _KIND, _CONTEXT, 0),
        _instruction(_MOVE, _ACCESS, _KIND),
        _instruction(_AND_NUMBER, _KIND, number=0xFFFF),
        _instruction(_RIGHT_NUMBER, _ACCESS, number=16),
        _instruction(_LOAD_WORD, _MAJOR, _CONTEXT, 4),
        _instruction(_LOAD_WORD, _MINOR, _CONTEXT, 8),
    ]
    for rule in rules:
        code += _allowing(rule)
    return b"".join([*code, *_answer(0)])


def _allowing(rule: str) -> list[bytes]:
    """Allow what the rule is about, else go on behind it."""
    kind, numbers, letters = rule.split(" ")
    major, _, minor = numbers.partition(":")
    access = sum(ACCESSES[letter] for letter in set(letters))
    checks: list[tuple[int, int]] = [(_KIND, KINDS[kind])] if kind in KINDS else []
    checks += [
        (register, int(number))
        for register, number in ((_MAJOR, major), (_MINOR, minor))
        if number != "*"
    ]
    masks = [] if access == EVERY_ACCESS else [EVERY_ACCESS & ~access]
    steps = len(checks) + 3 * len(masks)
    code: list[bytes] = []
    for mask in masks:
        code += [
            _instruction(_MOVE, _SCRATCH, _ACCESS),
            _instruction(_AND_NUMBER, _SCRATCH, number=mask),
            _instruction(_JUMP_UNLESS, _SCRATCH, offset=steps - 3 + 2, number=0),
        ]
    for register, number in checks:
        left = steps - len(code) - 1
        code.append(_instruction(_JUMP_UNLESS, register, offset=left + 2, number=number))
    return [*code, *_answer(1)]


def _answer(value: int) -> list[bytes]:
    return [_instruction(_MOVE_NUMBER, _RESULT, number=value), _instruction(_EXIT)]


def _instruction(
    code: int, target: int = 0, source: int = 0, offset: int = 0, number: int = 0
) -> bytes:
    return struct.pack("=BBhI", code, target | source << 4, offset, number)

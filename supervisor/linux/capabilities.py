"""Capabilities by number and name, and which of them the daemon can hand on at all. See capabilities(7)."""

from __future__ import annotations

from pathlib import Path

NAMES = (
    *("CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID"),
    *("SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW"),
    *("IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT"),
    *("SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD"),
    *("LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG"),
    *("WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE"),
)
"""By number, from 0 on, without ``CAP_``."""


def bounding_set() -> frozenset[str]:
    """The capabilities this process can give to others; fewer than all where it is itself in a container."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("CapBnd:"))
    return named(int(line.split()[1], 16))


def named(mask: int) -> frozenset[str]:
    """The names of a mask's bits; bits nobody knows are left out."""
    return frozenset(f"CAP_{name}" for number, name in enumerate(NAMES) if mask >> number & 1)

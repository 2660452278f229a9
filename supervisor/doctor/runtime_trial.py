"""Trying an OCI runtime: a container of the host's own ``/usr`` that ends with a number we know. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import json
from pathlib import Path

from supervisor.doctor.children import run as run_program

CODE = 42
NAME = "bakehouse-doctor"
SHOWN = ("/usr", "/bin", "/lib", "/lib64")
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")


def run(program: str, bundle: Path) -> None:
    """Run the container and see how it ends.

    Args:
        program: The runtime.
        bundle: An empty directory, the caller's to remove.

    Raises:
        OSError: It does not run it; with the runtime's words.
    """
    places = Path(program).name != "crun"
    (bundle / "rootfs").mkdir(mode=0o755)
    (bundle / "config.json").write_text(
        json.dumps(_spec(f"/{NAME}-{bundle.name}" if places else ""))
    )
    manager = () if places else ("--cgroup-manager=disabled",)
    start = (program, *manager, "--root", str(bundle / "state"))
    try:
        ended = run_program(*start, "run", "--bundle", str(bundle), bundle.name)
    finally:
        run_program(*start, "delete", "--force", bundle.name)
    if ended.status != CODE:
        words = (ended.complained.strip() or f"it ended with {ended.status}").splitlines()[-1]
        raise OSError(errno.EIO, words)


def _spec(cgroups_path: str) -> dict[str, object]:
    """Of the container; see the OCI runtime specification's config.md."""
    mounts: list[dict[str, object]] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "size=64k"],
        },
    ]
    mounts += [
        {"destination": path, "type": "bind", "source": path, "options": ["bind", "ro"]}
        for path in SHOWN
        if Path(path).is_dir()
    ]
    linux: dict[str, object] = {"namespaces": [{"type": kind} for kind in NAMESPACES]}
    if cgroups_path:
        linux["cgroupsPath"] = cgroups_path
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/sh", "-c", f"exit {CODE}"],
            "env": ["PATH=/usr/bin:/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "hostname": "trial",
        "mounts": mounts,
        "linux": linux,
    }


def clear_groups(name: str) -> None:
    """Nothing is left of the groups a runtime makes for a bundle called ``name``."""
    top = Path("/sys/fs/cgroup")
    for group in (*top.glob(f"{NAME}-{name}"), *top.glob(f"*/{NAME}-{name}")):
        with contextlib.suppress(OSError):
            group.rmdir()

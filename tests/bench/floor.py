"""The floor: what conmon and crun alone take from creating a container to its exit code, with no engine around them.

Runs in a mount namespace of its own, where crun is shown a legacy host as our daemon shows it one.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from supervisor.linux.idmap import IdMap
from supervisor.linux.mount_namespace import UNIFIED
from supervisor.runtime import seccomp, spec
from supervisor.runtime.oci_runtime import ENVIRONMENT
from tests.support.daemon import busybox_tar

PROFILE = Path("/usr/share/containers/seccomp.json")
EXIT_SECONDS = 10.0


def bare_life(bundle: Path, number: int) -> float:
    """One container from its creation to its exit code; seconds."""
    name, state = f"floor-{number}", bundle / "state"
    exits = bundle / "exits"
    read_end, write_end = os.pipe()
    runtime = ("--runtime-arg=--cgroup-manager=disabled", f"--runtime-arg=--root={state}")
    began = time.perf_counter()
    subprocess.run(
        [
            *("conmon", "--api-version", "1", "-c", name, "-u", name, "-n", name, "-b", bundle),
            *("-p", bundle / "pid", "--exit-dir", exits, "--full-attach", "--no-sync-log"),
            *("-l", "none", "-r", "/usr/bin/crun"),
            *runtime,
        ],
        env={**ENVIRONMENT, "_OCI_SYNCPIPE": str(write_end)},
        pass_fds=[write_end],
        check=True,
        capture_output=True,
    )
    os.close(write_end)
    with os.fdopen(read_end) as sync:
        said = sync.readline() or "{}"
    assert json.loads(said).get("data", 0) > 0, said
    crun = ["crun", "--cgroup-manager=disabled", f"--root={state}"]
    subprocess.run([*crun, "start", name], check=True, capture_output=True)
    while not (exits / name).exists():
        assert time.perf_counter() - began < EXIT_SECONDS
        time.sleep(0.0005)
    took = time.perf_counter() - began
    subprocess.run([*crun, "delete", "--force", name], check=True, capture_output=True)
    return took


def measure(rounds: int) -> float:
    """The median of so many; seconds."""
    bundle = Path(tempfile.mkdtemp(prefix="bench-floor-", dir="/var/tmp"))
    try:
        rootfs = bundle / "rootfs"
        rootfs.mkdir()
        (bundle / "exits").mkdir()
        archive = bundle / "root.tar"
        archive.write_bytes(busybox_tar())
        with tarfile.open(archive) as tar:
            tar.extractall(rootfs)
        (bundle / "config.json").write_text(json.dumps(_config(rootfs)))
        return statistics.median(bare_life(bundle, number) for number in range(rounds))
    finally:
        shutil.rmtree(bundle)


def _config(rootfs: Path) -> dict[str, object]:
    capabilities = tuple(spec.DEFAULT_CAPABILITIES)
    filtered = seccomp.runtime_seccomp(seccomp.read_profile(PROFILE), frozenset(capabilities))
    process = spec.ProcessInputs(args=("/bin/true",), capabilities=capabilities)
    inputs = spec.SpecInputs(
        process=process,
        rootfs=rootfs,
        id_map=IdMap.IDENTITY,
        hostname="floor",
        seccomp=filtered,
        cgroups_path=None,
    )
    return {**spec.build_spec(inputs), "hostname": "floor"}


def floor_row(rounds: int) -> str:
    """The figure, measured in a mount namespace of its own, as a line of text."""
    words = ["unshare", "--mount", sys.executable, "-m", "tests.bench.floor", str(rounds)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        return f"the floor could not be measured: {done.stderr.strip().splitlines()[-1]}"
    return done.stdout.strip()


if __name__ == "__main__":
    if Path(UNIFIED).is_dir():
        subprocess.run(["mount", "-t", "tmpfs", "none", UNIFIED], check=True)
    milliseconds = measure(int(sys.argv[1])) * 1_000
    sys.stdout.write(f"{'conmon and crun alone, create to exit':36}{milliseconds:>10.1f} ms\n")

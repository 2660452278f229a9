"""Run docker-py's own integration tests against engines, and tell what passes on the first and not on the others.

    python tests/interop/dockerpy_suite.py CHECKOUT unix:///run/docker.sock unix:///run/bakehouse/bakehouse.sock

``CHECKOUT`` is docker-py's source at the tag of the docker-py that runs it; its tests are not ours, and are not kept here.
Needs what these tests need (pytest, pytest-timeout, paramiko), and at each engine the images that they use: busybox,
busybox:buildroot-2014.02, alpine, alpine:3.10 and hello-world, of which one with busybox in it may have all the names.
What concerns swarms, plugins and registries is left out.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

API_VERSION = "1.41"
TEST_SECONDS = "60"
MODULES = (
    "api_build_test", "api_client_test", "api_container_test", "api_exec_test", "api_healthcheck_test", "api_image_test",
    "api_network_test", "api_volume_test", "client_test", "errors_test", "models_containers_test", "models_images_test",
    "models_networks_test", "models_resources_test", "models_volumes_test", "regression_test",
)  # fmt: skip
RESULT = re.compile(r"^(PASSED|FAILED|ERROR|XFAIL|XPASS) (\S+?::\S+)", re.MULTILINE)


def results(checkout: Path, engine: str) -> dict[str, str]:
    """What became of each test at an engine."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", "-rA"),
                *("--tb=no", "--override-ini=addopts=", f"--timeout={TEST_SECONDS}"),
                *(f"tests/integration/{name}.py" for name in MODULES),
            ],
            cwd=checkout,
            env={
                **os.environ,
                "DOCKER_HOST": engine,
                "DOCKER_TEST_API_VERSION": API_VERSION,
                "HOME": home,
            },
            capture_output=True,
            text=True,
            check=False,
        )
    found = {name: result for result, name in RESULT.findall(done.stdout)}
    if not found:
        sys.exit(f"cannot run the tests of {checkout}:\n{done.stdout}{done.stderr}")
    return found


def main() -> None:
    """Compare; the exit code is 1 where something passes on the first engine only."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=Path)
    parser.add_argument("engines", nargs="+", metavar="engine")
    arguments = parser.parse_args()
    told = [results(arguments.checkout, engine) for engine in arguments.engines]
    passed = [{name for name, result in each.items() if result == "PASSED"} for each in told]
    for engine, names in zip(arguments.engines, passed, strict=True):
        print(f"{engine}: {len(names)} pass")
        for name in sorted(passed[0] - names):
            print(f"    not {name}")
    sys.exit(any(passed[0] - names for names in passed))


if __name__ == "__main__":
    main()

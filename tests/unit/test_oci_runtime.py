"""What of a runtime can be told without running it."""

from __future__ import annotations

from pathlib import Path

import pytest

from supervisor.linux import cgroup, cgroup_v1
from supervisor.runtime.oci_runtime import OciRuntime


@pytest.mark.parametrize(
    ("places", "v2", "stays_out"),
    [(True, True, True), (True, False, False), (False, True, False), (False, False, False)],
)
def test_only_a_runtime_that_places_by_itself_stays_out_of_a_pure_v2_group(
    tmp_path: Path, places: bool, v2: bool, stays_out: bool
) -> None:
    groups = (
        cgroup.at_trunk(tmp_path, tmp_path, "bakehouse")
        if v2
        else cgroup_v1.CgroupsV1({"memory": tmp_path}, "bakehouse", ())
    )
    runtime = OciRuntime("any", "/usr/bin/any", "/usr/bin/any", "1", tmp_path, places)
    assert runtime.stays_out(groups) is stays_out

"""``docker import --change``."""

from __future__ import annotations

import pytest

from supervisor.api.docker.changes import execution_of
from supervisor.errors import InvalidArgument
from supervisor.oci.image import Execution


def test_changes_say_how_containers_are_run() -> None:
    execution = execution_of(
        ['CMD ["/bin/sh"]', "ENV A=b C=d", "EXPOSE 80", "WORKDIR /srv", "LABEL k=v"]
    )
    assert execution.cmd == ("/bin/sh",)
    assert {"A=b", "C=d"} <= set(execution.env)
    assert execution.exposed_ports == ("80/tcp",)
    assert (execution.working_dir, execution.labels) == ("/srv", {"k": "v"})
    assert execution_of([]).cmd is Execution().cmd


@pytest.mark.parametrize(
    "change", ["RUN true", "COPY a b", "FROM x", "", "CMD a\nRUN b", "NONSENSE", "ENV", "EXPOSE x"]
)
def test_other_instructions_are_refused(change: str) -> None:
    with pytest.raises(InvalidArgument):
        execution_of([change])

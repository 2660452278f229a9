"""What an image of a container says: the container's own config, what is said over it, and instructions over both."""

from __future__ import annotations

import pytest

from supervisor.api.docker.changes import checked, execution_of
from supervisor.errors import InvalidArgument
from supervisor.oci.image import Execution
from supervisor.runtime.commits import merged

OWN = Execution(
    env=("A=1", "B=1"),
    cmd=("run",),
    entrypoint=("enter",),
    working_dir="/w",
    labels={"x": "1", "y": "1"},
    exposed_ports=("80/tcp",),
    volumes=("/data",),
)


def test_nothing_said_is_the_container_s_own() -> None:
    assert merged(Execution(), OWN) == OWN


def test_what_is_said_wins_and_sets_are_joined() -> None:
    said = Execution(
        env=("B=2",), cmd=("other",), labels={"y": "2"}, exposed_ports=("81/tcp",), user="www"
    )
    made = merged(said, OWN)
    assert set(made.env) == {"A=1", "B=2"}
    assert (made.cmd, made.entrypoint, made.user) == (("other",), ("enter",), "www")
    assert made.labels == {"x": "1", "y": "2"}
    assert made.exposed_ports == ("81/tcp", "80/tcp")


def test_another_entry_point_takes_the_command_away() -> None:
    assert merged(Execution(entrypoint=("new",)), OWN).cmd is None


def test_instructions_come_last() -> None:
    made = execution_of(["ENV C=${A}x", "CMD echo", "LABEL x=3", "VOLUME /more"], OWN)
    assert "C=1x" in made.env
    assert made.cmd == ("/bin/sh", "-c", "echo")
    assert made.labels == {"x": "3", "y": "1"}
    assert made.volumes == ("/data", "/more")
    assert execution_of(['ENTRYPOINT ["new"]'], OWN).cmd is None
    assert execution_of([], OWN) == OWN


def test_several_lines_and_comments() -> None:
    assert checked(["ENV A=1\nENV B=2", "  # nothing", ""]) == ("ENV A=1", "ENV B=2")


@pytest.mark.parametrize(
    "change", ["RUN x", "FROM x", "COPY a b", "ADD a b", "ARG x", "MAINTAINER me"]
)
def test_what_would_do_something_is_no_change(change: str) -> None:
    word = change.split(maxsplit=1)[0].lower()
    with pytest.raises(InvalidArgument, match=f"^{word} is not a valid change command$"):
        execution_of([change])

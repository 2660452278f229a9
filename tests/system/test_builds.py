"""Builds by the real docker command and docker-py, on a real daemon."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
import threading
from pathlib import Path

import docker
import pytest

from tests.support.accounts import People
from tests.support.archives import tar_of
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

THREE_STAGES = """\
# syntax=docker/dockerfile:1
ARG BASE=busybox
FROM $BASE AS one
ENV A=1
WORKDIR /src
COPY --chown=33:44 . .
RUN test -f dir/b && echo "A is $A" && id -u > /one
FROM $BASE AS two
RUN echo two > /two
FROM $BASE AS unneeded
RUN exit 99
FROM $BASE
COPY --from=one /one /src/a /app/
COPY --from=two /two /app/
USER www
CMD ["cat", "/app/one", "/app/two"]
"""


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    daemon.import_busybox()
    for user in (two_users.ada, two_users.bob):
        daemon.import_busybox(user=user)
    return daemon


def build(
    daemon: Daemon, files: dict[str, str | bytes], *arguments: str, check: bool = True
) -> str:
    """Build as root from a context of these files; what docker printed."""
    context = tar_of(
        {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    )
    done = daemon.docker("build", *arguments, "-", input_=context, check=check)
    return done.stdout + done.stderr


def image_id(daemon: Daemon, name: str) -> str:
    return daemon.docker("inspect", "--format", "{{.Id}}", name).stdout.strip()


def test_three_stages_then_all_from_the_cache(ready: Daemon) -> None:
    files: dict[str, str | bytes] = {"Dockerfile": THREE_STAGES, "a": "A", "dir/b": "B"}
    first = build(ready, files, "-t", "three")
    assert "A is 1" in first
    assert "unneeded" not in first
    assert re.search(r"Successfully built [0-9a-f]{12}\nSuccessfully tagged three:latest", first)
    made = image_id(ready, "three")
    again = build(ready, files, "-t", "three")
    steps = len(re.findall(r"^Step ", again, re.MULTILINE))
    assert again.count(" ---> Using cache") == steps - again.count(" : FROM")
    assert image_id(ready, "three") == made
    assert ready.docker("run", "--rm", "three").stdout == "0\ntwo\n"
    assert "Using cache" not in build(ready, files, "--no-cache")
    files["dir/b"] = "changed"
    changed = build(ready, files)
    assert "A is 1" in changed
    assert changed.index("COPY --chown") < changed.index("A is 1")


def test_what_the_image_says(ready: Daemon) -> None:
    text = """\
FROM busybox
ENV A=1 B="two words"
LABEL a=b
EXPOSE 80 53/udp
VOLUME /data
USER www
WORKDIR /srv/deep
HEALTHCHECK --interval=5s CMD true
STOPSIGNAL SIGQUIT
SHELL ["/bin/sh", "-ec"]
ONBUILD RUN echo later
ENTRYPOINT ["echo"]
CMD hello
"""
    build(ready, {"Dockerfile": text}, "-t", "says", "--label", "c=d")
    config = json.loads(ready.docker("inspect", "--format", "{{json .Config}}", "says").stdout)
    assert {"A=1", "B=two words"} <= set(config["Env"])
    assert config["Labels"] == {"a": "b", "c": "d"}
    assert set(config["ExposedPorts"]) == {"80/tcp", "53/udp"}
    assert set(config["Volumes"]) == {"/data"}
    assert (config["User"], config["WorkingDir"], config["StopSignal"]) == (
        "www",
        "/srv/deep",
        "SIGQUIT",
    )
    assert config["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert config["OnBuild"] == ["RUN echo later"]
    assert config["Entrypoint"] == ["echo"]
    assert config["Cmd"] == ["/bin/sh", "-ec", "hello"]
    assert "later" in build(ready, {"Dockerfile": "FROM says\n"}).split("Step 2/2")[1]


def test_files_heredocs_archives_and_owners(ready: Daemon) -> None:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        info = tarfile.TarInfo("inside")
        info.size, info.uid, info.mode = 2, 7, 0o600
        tar.addfile(info, io.BytesIO(b"in"))
    text = """\
FROM busybox
ARG WHO=www
COPY --chown=$WHO:www --chmod=751 a /a
ADD archive.tgz /arc
COPY archive.tgz /whole
COPY <<one <<'two' /made/
$WHO
one
$WHO
two
RUN <<E
set -e
stat -c '%n %u %g %a' /a /arc/inside
test -f /whole
cat /made/one /made/two
E
"""
    told = build(ready, {"Dockerfile": text, "a": "A", "archive.tgz": archive.getvalue()})
    assert "/a 33 33 751\n/arc/inside 7 0 600\nwww\n$WHO\n" in told


def test_build_arguments_and_targets(ready: Daemon) -> None:
    text = (
        "ARG T=busybox\nFROM $T AS first\nARG X=default\nRUN echo x is $X\nFROM nothere\nRUN no\n"
    )
    told = build(
        ready,
        {"Dockerfile": text},
        "--target",
        "first",
        "--build-arg",
        "X=given",
        "--build-arg",
        "Y=1",
    )
    assert "x is given" in told
    assert "[Warning] One or more build-args ['Y'] were not consumed" in told


def test_from_scratch(ready: Daemon) -> None:
    build(ready, {"Dockerfile": "FROM scratch\nCOPY f /f\n", "f": "text"}, "-t", "nothing")
    created = ready.docker("create", "nothing", "/f").stdout.strip()
    ready.docker("rm", created)
    assert "1 B" in ready.docker("image", "inspect", "nothing").stdout or image_id(ready, "nothing")


def test_a_failing_command_says_its_code(ready: Daemon) -> None:
    told = build(ready, {"Dockerfile": "FROM busybox\nRUN echo out; exit 3\n"}, check=False)
    assert "out\n" in told
    assert "The command '/bin/sh -c echo out; exit 3' returned a non-zero code: 3" in told


def test_faults_are_told_at_once_with_their_places(ready: Daemon) -> None:
    told = build(ready, {"Dockerfile": "# no from\nRUN x\nCPOY a b\n"}, check=False)
    assert "Dockerfile:2:1: RUN stands before the first FROM" in told
    assert "Dockerfile:3:1: there is no instruction CPOY" in told
    assert "did you mean COPY?" in told
    assert "Dockerfile:1:6" in build(ready, {"Dockerfile": "FROM ${x\n"}, check=False)
    missing = build(ready, {"Dockerfile": "FROM nothere\nCOPY --from=neither / /\n"}, check=False)
    assert "there is no image nothere" in missing
    assert "there is no image neither" in missing
    assert "cannot locate specified Dockerfile" in build(ready, {"x": ""}, check=False)


def test_the_ignored_recipe_is_not_copied(ready: Daemon, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nCOPY . /c\nRUN find /c | sort\n")
    (tmp_path / ".dockerignore").write_text("Dockerfile\n.dockerignore\n*.log\n")
    (tmp_path / "kept").touch()
    (tmp_path / "x.log").touch()
    told = ready.docker("build", str(tmp_path)).stdout
    assert "\n/c\n/c/kept\n" in told
    assert "x.log" not in told


def test_the_epoch_makes_builds_alike(ready: Daemon) -> None:
    text = "FROM busybox\nARG SOURCE_DATE_EPOCH\nRUN date > /dev/null; echo x > /x\nCOPY a /a\nWORKDIR /w\n"
    ids = []
    for name in ("once", "twice"):
        build(
            ready,
            {"Dockerfile": text, "a": "A"},
            "-t",
            name,
            "--no-cache",
            "--build-arg",
            "SOURCE_DATE_EPOCH=1700000000",
        )
        ids.append(image_id(ready, name))
    assert ids[0] == ids[1]
    assert ready.docker("inspect", "--format", "{{.Created}}", "once").stdout.startswith(
        "2023-11-14T22:13:20"
    )


def test_users_build_as_themselves(ready: Daemon, two_users: People, tmp_path: Path) -> None:
    text = (
        "FROM busybox\nRUN cat /proc/self/uid_map | head -1; id -u; echo mine > /f; chown 33 /f\n"
    )
    context = tar_of({"Dockerfile": text.encode()})
    told = ready.docker("build", "-t", "own", "-", user=two_users.ada, input_=context).stdout
    assert re.search(rf"^\s+0\s+{two_users.ada.uid}\s+1\n0$", told, re.MULTILINE)
    assert (
        ready.docker("run", "--rm", "own", "stat", "-c", "%u", "/f", user=two_users.ada).stdout
        == "33\n"
    )
    other = ready.docker("build", "-", user=two_users.bob, input_=context).stdout
    assert "Using cache" not in other
    assert "uid_map" in other
    refused = ready.docker(
        "build", "-", user=two_users.bob, check=False, input_=tar_of({"Dockerfile": b"FROM own\n"})
    )
    assert "there is no image own" in refused.stderr
    host = tar_of({"Dockerfile": b"FROM busybox\nRUN --network=host true\n"})
    refused = ready.docker("build", "-", user=two_users.bob, check=False, input_=host)
    assert "administrators" in refused.stderr


def test_the_same_step_of_two_builds_is_run_once(ready: Daemon) -> None:
    text = "FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid\n"
    told: list[str] = []
    threads = [
        threading.Thread(target=lambda: told.append(build(ready, {"Dockerfile": text})))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = {match for each in told for match in re.findall(r"[0-9a-f]{8}-[0-9a-f-]{27}", each)}
    assert len(found) == 1
    built = [re.findall(r"Successfully built (\w+)", each) for each in told]
    assert built[0] == built[1], "they made the same image"


def test_docker_py(ready: Daemon) -> None:
    with contextlib.closing(ready.client()) as client:
        context = io.BytesIO(tar_of({"Dockerfile": b"FROM busybox\nRUN echo from docker-py\n"}))
        image, lines = client.images.build(fileobj=context, custom_context=True, tag="py:1")
        assert "py:1" in image.tags
        assert any("from docker-py" in line.get("stream", "") for line in lines)
        failing = io.BytesIO(tar_of({"Dockerfile": b"FROM busybox\nRUN exit 5\n"}))
        with pytest.raises(docker.errors.BuildError, match="non-zero code: 5"):
            client.images.build(fileobj=failing, custom_context=True)

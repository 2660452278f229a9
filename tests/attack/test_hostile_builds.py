"""Contexts, recipes and images made to hurt (attacks.md 2, 6, 9, 10, 11): refused, or harmless."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.accounts import People
from tests.support.archives import tar_of
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]

SIZES = (1, 2 << 20)
"""Small contexts are unpacked by the daemon itself, larger ones in a cell."""

COPY_ALL = b"FROM busybox\nCOPY . /c\nRUN find /c\n"


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    daemon.import_busybox()
    for user in (two_users.ada, two_users.bob):
        daemon.import_busybox(user=user)
    return daemon


Member = tuple[tarfile.TarInfo, bytes]


def context_of(*members: Member, recipe: bytes = COPY_ALL) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for info, content in (member_of("Dockerfile", content=recipe), *members):
            archive.addfile(info, io.BytesIO(content))
    return data.getvalue()


def member_of(
    name: str,
    *,
    content: bytes = b"",
    kind: bytes = tarfile.REGTYPE,
    link: str = "",
    mode: int = 0o644,
) -> Member:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname, info.mode = len(content), kind, link, mode
    info.uid = info.gid = 1_000_000
    return info, content


def build(daemon: Daemon, context: bytes, *arguments: str) -> tuple[int, str]:
    done = daemon.docker("build", *arguments, "-", input_=context, check=False)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    "members",
    [
        (member_of("../../../../../../tmp/bh-escaped", content=b"x"),),
        (
            member_of("l", kind=tarfile.SYMTYPE, link="/tmp"),
            member_of("l/bh-escaped", content=b"x"),
        ),
        (member_of("h", kind=tarfile.LNKTYPE, link="../../../../etc/shadow"),),
        (member_of("h", kind=tarfile.LNKTYPE, link="/etc/shadow"),),
        (member_of(".wh..wh..opq"),),
    ],
    ids=["climbs", "through a link", "hard link up", "hard link to the root", "opaque"],
)
@pytest.mark.parametrize("padding", SIZES)
def test_contexts_that_lead_out_are_refused(
    ready: Daemon, members: tuple[Member, ...], padding: int
) -> None:
    code, told = build(ready, context_of(member_of("padding", content=b"x" * padding), *members))
    assert code
    assert "cannot" in told
    assert not Path("/tmp/bh-escaped").exists()


@pytest.mark.parametrize("padding", SIZES)
def test_odd_members_are_harmless(ready: Daemon, padding: int) -> None:
    code, told = build(
        ready,
        context_of(
            member_of("padding", content=b"x" * padding),
            member_of("fifo", kind=tarfile.FIFOTYPE),
            member_of("device", kind=tarfile.CHRTYPE),
            member_of("loop", kind=tarfile.SYMTYPE, link="loop"),
            member_of("root", kind=tarfile.SYMTYPE, link="/"),
            member_of("/absolute", content=b"x"),
            member_of("setuid", content=b"x", mode=0o4755),
        ),
    )
    assert code == 0, told
    assert "/c/fifo" in told
    assert "/c/absolute" in told
    assert "/c/device" not in told


@pytest.mark.parametrize(
    "source",
    ["root/etc/shadow", "loop", "up/../../etc/shadow", "/etc/shadow", "../../../../etc/shadow"],
)
def test_a_source_never_leads_out_of_the_context(ready: Daemon, source: str) -> None:
    recipe = f"FROM busybox\nCOPY {source} /stolen\nRUN cat /stolen\n".encode()
    links = [("root", "/"), ("loop", "loop"), ("up", "..")]
    members = [member_of(name, kind=tarfile.SYMTYPE, link=link) for name, link in links]
    code, told = build(ready, context_of(*members, recipe=recipe))
    assert code
    assert "COPY failed" in told


def test_a_target_never_leads_out_of_the_image(ready: Daemon) -> None:
    victim = Path("/tmp/bh-target")
    recipe = (
        b"FROM busybox\nRUN ln -s /tmp/bh-target /a; ln -s ../../../../../../tmp /b; ln -s /proc/1/root /c\n"
        b"COPY Dockerfile /a/x\nCOPY Dockerfile /b/bh-target\nCOPY Dockerfile /c/tmp/bh-target\nRUN find /tmp\n"
    )
    build(ready, tar_of({"Dockerfile": recipe}))
    assert not victim.exists()


def test_archives_are_unpacked_within_the_image(ready: Daemon) -> None:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w") as archive:
        archive.addfile(member_of("../../../../tmp/bh-added", content=b"x")[0], io.BytesIO(b"x"))
    code, told = build(
        ready, tar_of({"Dockerfile": b"FROM busybox\nADD a.tar /x/\n", "a.tar": inner.getvalue()})
    )
    assert code
    assert "leads out" in told
    assert not Path("/tmp/bh-added").exists()


@pytest.mark.parametrize(
    "recipe",
    [
        lambda: b"FROM busybox\nENV a=" + b"x" * 1000 + b"\n" + b"ENV a=$a$a$a$a\n" * 40,
        lambda: b"FROM busybox\nENV a=" + b"${a:-" * 100_000 + b"\n",
        lambda: b"FROM busybox\nCMD " + b"[" * 500_000 + b"\nRUN exit 7\n",
        lambda: b"FROM busybox\n" + b"RUN x\n" * 400_000,
        lambda: b"\\\n" * 500_000,
        lambda: (
            b"FROM busybox\nENV v="
            + b"a" * 20_000
            + b"\nENV x="
            + b"${v//*a*a*a*ab/}" * 1_000
            + b"\n"
        ),
        lambda: b"FROM \xff\xfe\x00",
        lambda: (
            b"FROM busybox AS a\n"
            + b"".join(b"FROM a AS a\n" for _ in range(20_000))
            + b"RUN exit 7\n"
        ),
        lambda: b"FROM busybox\nHEALTHCHECK --interval=" + b"9" * 100 + b"h CMD x\nRUN exit 7\n",
    ],
    ids=[
        "bomb",
        "nested",
        "brackets",
        "too large",
        "continued",
        "pattern",
        "no text",
        "stages",
        "duration",
    ],
)
def test_recipes_made_to_hurt(ready: Daemon, recipe: Callable[[], bytes]) -> None:
    start = time.monotonic()
    code, told = build(ready, tar_of({"Dockerfile": recipe()}))
    assert code
    assert told
    assert time.monotonic() - start < 30
    assert not ready.crashed()


def test_working_directories_of_proc(ready: Daemon) -> None:
    for number in range(3, 10):
        recipe = f"FROM busybox\nWORKDIR /proc/self/fd/{number}\nRUN cd ../../../../../../ && cat etc/shadow && ls -la /proc/self/fd\n"
        code, told = build(ready, tar_of({"Dockerfile": recipe.encode()}))
        assert code, told
        assert "root:" not in told


def test_a_history_that_pretends_is_no_cache_hit(ready: Daemon) -> None:
    """An image whose history says it was made by the very step that is asked for."""
    recipe = b"FROM busybox\nRUN echo honest > /f\n"
    build(ready, tar_of({"Dockerfile": recipe}), "-t", "honest")
    forged = b"FROM busybox\nRUN echo evil > /f\n"
    build(ready, tar_of({"Dockerfile": forged}), "-t", "evil")
    code, told = build(
        ready, tar_of({"Dockerfile": recipe}), "--no-cache", "--cache-from", "evil", "-t", "again"
    )
    assert code == 0
    assert "Using cache" not in told
    assert ready.docker("run", "--rm", "again", "cat", "/f").stdout == "honest\n"


def test_one_users_run_is_never_served_to_another(ready: Daemon, two_users: People) -> None:
    recipe = tar_of(
        {
            "Dockerfile": b"FROM busybox\nCOPY Dockerfile /d\nRUN id -u > /who; cat /proc/sys/kernel/random/uuid\n"
        }
    )
    for user in (two_users.ada, two_users.bob):
        told = ready.docker("build", "-", user=user, input_=recipe).stdout
        assert "Running in" in told


def test_a_proxy_is_in_no_record(ready: Daemon) -> None:
    recipe = tar_of({"Dockerfile": b'FROM busybox\nRUN test -n "$HTTP_PROXY"\n'})
    secret = "http://user:hunter2@proxy"
    code, told = build(ready, recipe, "--build-arg", f"HTTP_PROXY={secret}", "-t", "proxied")
    assert code == 0, told
    inspected = json.loads(ready.docker("image", "inspect", "proxied").stdout)
    history = ready.docker("history", "--no-trunc", "proxied").stdout
    events = ready.bakehouse("events", "--from", "oldest").stdout
    assert "hunter2" not in json.dumps(inspected) + history + events + told

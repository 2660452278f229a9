"""The command line's own parts: finding the daemon, asking it, sending a context, showing progress and tables."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
from click.testing import CliRunner

from supervisor.cli import tables
from supervisor.cli.build import BuildWanted, bake
from supervisor.cli.commands import bakehouse
from supervisor.cli.connection import Request, ask, find_socket
from supervisor.cli.context import find_context, tar_pieces
from supervisor.errors import Conflict, Internal, InvalidArgument, NotFound, Unavailable
from tests.support.serving import serving_at


@asynccontextmanager
async def answering(
    folder: Path, answer: bytes, *, early: bool = False
) -> AsyncIterator[list[bytes]]:
    """A daemon that reads a request whole (or only its head, when ``early``), answers and closes."""
    heard: list[bytes] = []

    async def serve(stream: trio.SocketStream) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            data += await stream.receive_some(65_536)
        chunked = b"chunked" in data and not early
        while chunked and not data.endswith(b"\r\n0\r\n\r\n"):
            data += await stream.receive_some(65_536)
        heard.append(data)
        await stream.send_all(answer)
        await stream.aclose()

    async with serving_at(folder / "socket", serve):
        yield heard


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_the_socket_is_found_in_this_order() -> None:
    environment = {"BAKEHOUSE_SOCKET": "/b", "DOCKER_HOST": "unix:///d"}
    assert find_socket("/a", environment) == "/a"
    assert find_socket(None, environment) == "/b"
    assert find_socket(None, {"DOCKER_HOST": "unix:///d"}) == "/d"
    assert find_socket(None, {}) == "/run/bakehouse/bakehouse.sock"
    with pytest.raises(InvalidArgument, match="no unix socket"):
        find_socket(None, {"DOCKER_HOST": "tcp://x:1"})


async def test_an_answer_line_by_line(tmp_path: Path) -> None:
    async with answering(tmp_path, http("200 OK", b'{"a":1}\n{"b":2}')) as heard:
        request = Request("GET", "/x y", (("t", "a&b"), ("t", "c")))
        async with ask(str(tmp_path / "socket"), request) as answer:
            assert [message async for message in answer.messages()] == [{"a": 1}, {"b": 2}]
    assert heard[0].startswith(b"GET /x%20y?t=a%26b&t=c HTTP/1.1\r\n")


async def test_a_refusal_is_of_the_daemons_kind(tmp_path: Path) -> None:
    body = b'{"message":"cannot do it: no\\nhint: do not","kind":"conflict"}'
    async with answering(tmp_path, http("409 Conflict", body)):
        with pytest.RaisesGroup(pytest.RaisesExc(Conflict, match="cannot do it: no\nhint: do not")):
            async with ask(str(tmp_path / "socket"), Request("GET", "/")):
                pass


async def test_a_refusal_in_the_middle_of_the_body_is_heard(tmp_path: Path) -> None:
    body = b'{"message":"too much","kind":"invalid argument"}'
    pieces = (bytes(1 << 20) for _ in range(64))
    async with answering(tmp_path, http("400 Bad", body), early=True):
        with pytest.RaisesGroup(InvalidArgument):
            async with ask(str(tmp_path / "socket"), Request("POST", "/build", body=pieces)):
                pass


async def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot reach the daemon"):
        async with ask(str(tmp_path / "socket"), Request("GET", "/")):
            pass


async def test_an_answer_cut_short(tmp_path: Path) -> None:
    async with answering(tmp_path, b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"):
        with pytest.RaisesGroup(Unavailable):
            async with ask(str(tmp_path / "socket"), Request("GET", "/")) as answer:
                await answer.read()


def make_tree(root: Path, *files: str) -> None:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def sent(root: Path, dockerfile: Path | None = None) -> dict[str, tarfile.TarInfo]:
    data = b"".join(tar_pieces(find_context(root, dockerfile)))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {member.name: member for member in tar.getmembers()}


def test_the_context_is_sent_without_what_is_ignored(tmp_path: Path) -> None:
    make_tree(tmp_path, "Dockerfile", "a/b/keep", "a/b/drop", "gone/x", "empty", ".dockerignore")
    (tmp_path / ".dockerignore").write_text("gone\n**/drop\nDockerfile\n.dockerignore\n")
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    members = sent(tmp_path)
    assert sorted(members) == [
        ".dockerignore",
        "Dockerfile",
        "a",
        "a/b",
        "a/b/keep",
        "empty",
        "fifo",
        "link",
    ]
    assert members["link"].linkname == "/etc/passwd"
    assert {(member.uid, member.gid) for member in members.values()} == {(0, 0)}


def test_what_is_let_back_in_below_an_ignored_directory(tmp_path: Path) -> None:
    make_tree(tmp_path, "Dockerfile", "a/b/c", "a/b/d")
    (tmp_path / ".dockerignore").write_text("a\n!a/b/c\n")
    assert "a/b/c" in sent(tmp_path)
    assert "a/b/d" not in sent(tmp_path)


def test_a_dockerfile_elsewhere_is_sent_too(tmp_path: Path) -> None:
    make_tree(tmp_path, "context/a", "other/My", "context/sub/File")
    names = sent(tmp_path / "context", tmp_path / "other" / "My")
    assert any(name.startswith(".dockerfile.") for name in names)
    assert find_context(tmp_path / "context", Path("sub/File")).dockerfile == "sub/File"


def test_long_and_strange_names_survive(tmp_path: Path) -> None:
    make_tree(tmp_path, "Dockerfile", "x" * 200 + "/" + "y" * 200, "ünï")
    (tmp_path / os.fsdecode(b"\xff")).write_text("not UTF-8")
    assert {"x" * 200 + "/" + "y" * 200, "ünï", "\udcff"} <= set(sent(tmp_path))


def test_there_is_no_dockerfile(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"there is no .*Dockerfile"):
        find_context(tmp_path, None)


async def test_a_build_is_asked_for_and_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_tree(tmp_path, "context/Dockerfile")
    wanted = BuildWanted(
        tmp_path / "context", None, ("a", "b:1"), ("X=1", "NOT_SET"), ("l=v",), "stage", True, False
    )
    body = b'{"stream":"Step 1/1 : "}\n{"stream":"FROM x\\n"}\n{"aux":{"ID":"sha256:1"}}\n{"stream":"end"}\n'
    async with answering(tmp_path, http("200 OK", body)) as heard:
        await bake(str(tmp_path / "socket"), wanted)
    head = heard[0].partition(b"\r\n")[0].decode()
    assert head.startswith("POST /build?dockerfile=Dockerfile&t=a&t=b%3A1&buildargs=")
    assert "&labels=%7B%22l%22%3A%22v%22%7D&target=stage&nocache=1 HTTP" in head
    assert capsys.readouterr().out == "Step 1/1 : FROM x\nend\n"


async def test_a_failed_build_is_an_error(tmp_path: Path) -> None:
    make_tree(tmp_path, "context/Dockerfile")
    wanted = BuildWanted(tmp_path / "context", None, (), (), (), "", False, True)
    body = b'{"errorDetail":{"message":"Dockerfile:1:1: no"},"error":"Dockerfile:1:1: no"}\n'
    async with answering(tmp_path, http("200 OK", body)):
        with pytest.RaisesGroup(pytest.RaisesExc(Internal, match="Dockerfile:1:1: no")):
            await bake(str(tmp_path / "socket"), wanted)


def test_lists() -> None:
    now = datetime(2026, 1, 3, tzinfo=UTC)
    listed = [
        {
            "Id": "sha256:" + "a" * 64,
            "RepoTags": ["h:5000/x:y"],
            "Created": 1767225600,
            "Size": 12_345_678,
        }
    ]
    assert tables.images(listed, now) == [("h:5000/x", "y", "a" * 12, "2 days ago", "12.3MB")]
    assert tables.images([{"Id": "sha256:b", "RepoTags": None}], now)[0][:3] == (
        "<none>",
        "<none>",
        "b",
    )
    port = {"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp", "IP": "127.0.0.1"}
    row = {"Id": "c" * 64, "Image": "x", "Names": ["/web"], "Ports": [port], "Status": "Up"}
    assert tables.containers([row])[0][-3:] == ("Up", "127.0.0.1:8080->80/tcp", "web")


def test_help_tells_of_every_command() -> None:
    text = CliRunner().invoke(bakehouse, ["--help"]).output
    for name in ("events", "image", "ps", "top", "whoami", "version"):
        assert f"  {name} " in text

"""What copies say: paths as Docker splits them, modes as Go has them, ids as the owner's map does, nodes on the wire."""

from __future__ import annotations

import io
import os
import stat
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.api.docker.view_archive import go_mode, path_stat
from supervisor.errors import BakehouseError
from supervisor.linux import tree_wire
from supervisor.linux.tree_view import Found, Place, clean_path
from supervisor.linux.tree_wire import Node
from supervisor.oci.tar import END, Kind, Member, gnu_header
from supervisor.store.tree_archive import Ids, feed
from tests.support.archives import tar_of


@pytest.mark.parametrize(
    ("path", "directory", "base", "name"),
    [
        ("/a/b", "/a", "b", "b"),
        ("a/b", "/a", "b", "b"),
        ("/a/b/", "/a/b", "", "b"),
        ("/a/b/.", "/a/b", ".", "."),
        ("/a//./b/../c", "/a", "c", "c"),
        ("/a", "/", "a", "a"),
        ("/", "/", "", "/"),
        (".", "/", ".", "."),
        ("../../x", "/", "x", "x"),
        ("//x", "/", "x", "x"),
        ("/a/..", "/", "", "/"),
    ],
)
def test_places_are_split_as_docker_does(path: str, directory: str, base: str, name: str) -> None:
    assert Place.of(path) == Place(directory, base, name)


@given(st.text(alphabet="ab./", max_size=20))
def test_a_place_never_climbs(path: str) -> None:
    place = Place.of(path)
    for whole in (place.directory, clean_path(path)):
        assert whole.startswith("/")
        assert ".." not in whole.split("/")
    assert "/" not in place.base
    assert place.base != ".."


@pytest.mark.parametrize(
    ("mode", "wanted"),
    [
        (stat.S_IFREG | 0o644, 420),
        (stat.S_IFDIR | 0o1777, 2148532735),
        (stat.S_IFDIR | 0o755, 2147484141),
        (stat.S_IFLNK | 0o777, 134218239),
        (stat.S_IFREG | 0o6755, 0o755 | 1 << 23 | 1 << 22),
        (stat.S_IFCHR | 0o666, 0o666 | 1 << 26 | 1 << 21),
        (stat.S_IFIFO | 0o600, 0o600 | 1 << 25),
        (stat.S_IFSOCK | 0o600, 0o600 | 1 << 24),
    ],
)
def test_modes_are_go_s(mode: int, wanted: int) -> None:
    """The first figures are dockerd's own, for a file, /tmp, / and /bin/sh."""
    assert go_mode(mode) == wanted


def test_the_stat_of_a_path() -> None:
    found = Found(3, stat.S_IFREG | 0o644, 1_500_000_000, "")
    assert path_stat(Place.of("/a/b"), found) == {
        "name": "b",
        "size": 3,
        "mode": 420,
        "mtime": "1970-01-01T00:00:01.500000000Z",
        "linkTarget": "",
    }


@pytest.mark.parametrize("mtime_ns", [0, -1, -(2**100), 2**100])
def test_files_of_any_age(mtime_ns: int) -> None:
    told = path_stat(Place.of("/a"), Found(0, stat.S_IFREG, mtime_ns, ""))
    assert (told["mtime"] == "1970-01-01T00:00:00.000000000Z") == (mtime_ns == 0)


def test_ids_of_an_archive_in_a_container() -> None:
    ids = Ids(own_uid=1_000, own_gid=100, last=65_535)
    assert [ids.uid(number) for number in (0, 33, 1_000, 65_535, 65_536)] == [0, 33, 0, 65_535, 0]
    assert [ids.gid(number) for number in (0, 100, 1_000, 70_000)] == [0, 0, 1_000, 0]
    plain = Ids()
    assert [plain.uid(number) for number in (0, 1_000, 3_100_000_000)] == [0, 1_000, 3_100_000_000]


names = st.binary(max_size=40)
nodes = st.builds(
    Node,
    path=names,
    kind=st.sampled_from(["file", "directory", "symlink", "hardlink", "fifo"]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32 - 2),
    gid=st.integers(0, 2**32 - 2),
    mtime_ns=st.integers(0, 2**62),
    size=st.just(0),
    link=names,
    xattrs=st.dictionaries(names, names, max_size=2),
)


@given(st.lists(nodes, max_size=4))
def test_nodes_go_over_the_wire_as_they_are(sent: list[Node]) -> None:
    stream = io.BytesIO(b"".join(map(tree_wire.pack, sent)) + tree_wire.END)
    received = []
    while (node := tree_wire.read_node(stream)) is not None:
        received.append(node)
    assert received == sent


def test_a_wire_that_is_cut_is_noticed() -> None:
    whole = tree_wire.pack(Node(b"x", "file", 0o644, 0, 0, 0))
    for length in range(len(whole)):
        with pytest.raises(OSError, match="cut off"):
            tree_wire.read_node(io.BytesIO(whole[:length]))


@given(st.binary(max_size=2_000))
def test_feeding_anything_gives_nodes_or_a_refusal(data: bytes) -> None:
    with io.BytesIO() as pipe:
        try:
            feed_bytes(data, pipe)
        except BakehouseError:
            return


def feed_bytes(data: bytes, pipe: io.BytesIO) -> None:
    descriptor = os.memfd_create("archive")
    with os.fdopen(descriptor, "r+b", buffering=0) as archive:
        archive.write(data)
        archive.seek(0)
        feed(archive, Ids(), pipe)


def test_an_archive_from_the_far_future() -> None:
    pipe = io.BytesIO()
    feed_bytes(gnu_header(Member(b"x", Kind.FILE, mtime=2**90)) + END, pipe)
    pipe.seek(0)
    node = tree_wire.read_node(pipe)
    assert node is not None
    assert node.mtime_ns < 2**63


def test_device_nodes_and_the_root_are_left_out() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        device = tarfile.TarInfo("dev/sda")
        device.type = tarfile.BLKTYPE
        tar.addfile(device)
    for archive in (data.getvalue(), tar_of({"./": None})):
        pipe = io.BytesIO()
        feed_bytes(archive, pipe)
        assert pipe.getvalue() == tree_wire.END

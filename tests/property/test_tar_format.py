"""Tars: what we write, we and Python's tarfile read the same; what is hostile is an InvalidArgument and nothing else."""

from __future__ import annotations

import io
import tarfile

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.errors import InvalidArgument
from supervisor.oci import tar
from supervisor.oci.tar import Kind, Member

NAME = st.binary(min_size=1, max_size=220).map(
    lambda data: data.replace(b"\0", b"_").replace(b"/", b"-")
)
XATTRS = st.dictionaries(
    st.sampled_from([b"user.a", b"security.capability"]), st.binary(max_size=30), max_size=2
)
MEMBER = st.builds(
    Member,
    name=NAME,
    kind=st.sampled_from([Kind.FILE, Kind.DIRECTORY, Kind.FIFO, Kind.SYMBOLIC_LINK]),
    mode=st.integers(0, 0o7777),
    uid=st.integers(0, 2**32),
    gid=st.integers(0, 2**21 + 5),
    mtime=st.integers(-5, 2**34),
    xattrs=XATTRS,
)


def completed(member: Member, content: bytes) -> tuple[Member, bytes]:
    match member.kind:
        case Kind.FILE:
            return attrs.evolve(member, size=len(content)), content
        case Kind.SYMBOLIC_LINK:
            return attrs.evolve(member, link=b"t" + content.replace(b"\0", b"")), b""
        case _:
            return member, b""


def read(data: bytes) -> list[tuple[Member, bytes]]:
    reader = tar.Reader(io.BytesIO(data).read)
    found = []
    while (member := reader.next()) is not None:
        found.append((member, b"".join(reader.content())))
    return found


ENTRIES = st.lists(st.builds(completed, MEMBER, st.binary(max_size=700)), max_size=4)


@given(ENTRIES, st.sampled_from([tar.pax_header, tar.gnu_header]))
def test_what_is_written_is_read(entries: list[tuple[Member, bytes]], header: object) -> None:
    assert callable(header)
    blocks = [header(member) + content + tar.padding(len(content)) for member, content in entries]
    assert read(b"".join(blocks) + tar.END) == entries


@given(ENTRIES)
def test_tarfile_reads_the_same(entries: list[tuple[Member, bytes]]) -> None:
    blocks = [tar.pax_header(m) + c + tar.padding(len(c)) for m, c in entries]
    data = io.BytesIO(b"".join(blocks) + tar.END)
    with tarfile.open(fileobj=data, encoding="utf-8", errors="surrogateescape") as archive:
        infos = archive.getmembers()
        assert [i.size for i in infos] == [m.size for m, _ in entries]
        assert [(i.uid, i.gid, i.mode) for i in infos] == [
            (m.uid, m.gid, m.mode) for m, _ in entries
        ]
        for info, (_, content) in zip(infos, entries, strict=True):
            file = archive.extractfile(info) if info.isreg() else None
            assert (file.read() if file else b"") == content


@settings(max_examples=300)
@given(
    ENTRIES,
    st.lists(st.tuples(st.integers(0, 6000), st.integers(0, 255)), max_size=6),
    st.integers(0, 6000),
)
def test_damage_is_a_value_or_an_invalid_argument(
    entries: list[tuple[Member, bytes]], flips: list[tuple[int, int]], cut: int
) -> None:
    data = bytearray(b"".join(tar.gnu_header(m) + c + tar.padding(len(c)) for m, c in entries))
    for position, value in flips:
        if position < len(data):
            data[position] = value
    try:
        read(bytes(data[: len(data) - cut] if cut < len(data) else data))
    except InvalidArgument:
        return


@pytest.mark.parametrize("format_", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_what_tarfile_writes_is_read(format_: int) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", format=format_) as archive:
        info = tarfile.TarInfo("d" * 60 + "/" + "f" * 80)
        info.size, info.mtime = 3, 5
        archive.addfile(info, io.BytesIO(b"abc"))
        info = tarfile.TarInfo("dir")
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    (member, content), (directory, _) = read(data.getvalue())
    assert (member.name, content) == (b"d" * 60 + b"/" + b"f" * 80, b"abc")
    assert directory.kind is Kind.DIRECTORY


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"not a tar, but long enough for a block".ljust(512, b"!"), "number"),
        (tar.gnu_header(Member(b"x", Kind.FILE, size=10)) + b"1234", "ends within"),
        (tar.gnu_header(Member(b"x", Kind.FILE)).replace(b"x\0", b"y\0"), "checksum"),
        (bytes(512) + b"x" * 512, "lone zero"),
    ],
)
def test_what_is_wrong_is_told(data: bytes, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        read(data)


def test_sparse_members_and_changing_globals_are_refused() -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w", pax_headers={"path": "elsewhere"}) as archive:
        archive.addfile(tarfile.TarInfo("x"))
    with pytest.raises(InvalidArgument, match="global"):
        read(data.getvalue())
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "99999999999"}
        archive.addfile(info)
    with pytest.raises(InvalidArgument, match="sparse"):
        read(data.getvalue())

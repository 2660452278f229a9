"""The scan of a layer: whatever comes, what passes it stays below the root and means one thing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import InvalidArgument, ResourceExhausted
from supervisor.oci.tar import Kind, Member
from supervisor.store.scan import Bounds, Scan, cleaned, kept_xattrs

PART = st.sampled_from([b"a", b"b", b"..", b".", b"", b".wh.a", b".wh..wh..opq", b".wh...", b"c\0"])
PATH = st.lists(PART, max_size=4).map(b"/".join)
MEMBER = st.builds(
    Member,
    name=PATH,
    kind=st.sampled_from(list(Kind)),
    link=PATH,
    uid=st.integers(0, 70_000),
    mtime=st.integers(-5, 5),
    size=st.integers(0, 40),
)


@given(st.lists(MEMBER, max_size=12))
def test_what_passes_stays_below_the_root(members: list[Member]) -> None:
    scan = Scan(Bounds(bytes_max=200, entries_max=40))
    kinds: dict[bytes, Kind] = {}
    try:
        for member in members:
            judged = scan.judge(member)
            if judged is None:
                continue
            assert judged.name == b"./" or cleaned(judged.name) == judged.name
            parents = judged.name.split(b"/")[:-1]
            for end in range(1, len(parents) + 1):
                assert kinds.get(b"/".join(parents[:end]), Kind.DIRECTORY) is Kind.DIRECTORY
            if judged.kind is Kind.HARD_LINK:
                assert kinds[judged.link] is not Kind.DIRECTORY
            kinds[judged.name] = judged.kind
    except (InvalidArgument, ResourceExhausted):
        pass
    for path in (*scan.whiteouts, *scan.opaque):
        assert cleaned(path) == (path or None)


@given(st.dictionaries(st.binary(max_size=25), st.binary(max_size=30), max_size=4))
def test_attributes_that_pass_are_users_own(xattrs: dict[bytes, bytes]) -> None:
    for name in kept_xattrs(xattrs):
        assert name.startswith(b"user.") or name == b"security.capability"

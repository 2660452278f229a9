"""What a request over an image comes to."""

from __future__ import annotations

import attrs
import pytest

from supervisor.access.requests import ContainerRequest, MountKind, MountRequest, Resources
from supervisor.errors import InvalidArgument
from supervisor.oci.image import Execution
from supervisor.runtime.creation import ImageFacts, container_record
from supervisor.runtime.records import ContainerRecord, dump, load_record
from supervisor.runtime.sanity import Host, checked_name

IMAGE = Execution(
    env=("PATH=/bin", "A=image"),
    cmd=("serve",),
    entrypoint=("/entry",),
    labels={"by": "image"},
    volumes=("../../x", "/data"),
    exposed_ports=("80/tcp",),
)


HOST = Host(cpus=2, hard_limits={"nofile": 20_000})


def make(request: ContainerRequest, execution: Execution = IMAGE) -> ContainerRecord:
    return container_record(
        request, ImageFacts("sha256:1", ("l1",), execution), 1000, (), remapped=True, host=HOST
    )


@pytest.mark.parametrize(
    ("entrypoint", "command", "args"),
    [
        (None, None, ("/entry", "serve")),
        (None, ("x",), ("/entry", "x")),
        (("/mine",), None, ("/mine",)),
        (("/mine",), ("x",), ("/mine", "x")),
        (("",), ("x",), ("x",)),
        ((), ("x",), ("x",)),
    ],
)
def test_command_and_entry_point(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...] | None, args: tuple[str, ...]
) -> None:
    assert make(ContainerRequest(image="i", entrypoint=entrypoint, command=command)).args == args


def test_the_request_goes_over_the_image() -> None:
    record = make(ContainerRequest(image="i", env=("A=mine", "B=1"), labels={"by": "me"}))
    assert record.env == ("PATH=/bin", "A=mine", "B=1")
    assert record.labels == {"by": "me"}
    assert record.hostname == record.id[:12]


def test_a_host_name_is_never_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = iter(["492737288937" + "a" * 52, "49273728893a" + "a" * 52])
    monkeypatch.setattr("secrets.token_hex", lambda _: next(ids))
    assert make(ContainerRequest(image="i")).hostname == "49273728893a"


def test_an_images_volumes_stay_inside() -> None:
    targets = {mount.target: mount.anonymous for mount in make(ContainerRequest(image="i")).mounts}
    assert targets == {"/x": True, "/data": True}


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "/sys", "/dev", "/x/../proc/1"])
def test_the_kernels_own_places_are_not_mounted_over(target: str) -> None:
    with pytest.raises(InvalidArgument, match="cannot create") as caught:
        make(ContainerRequest(image="i", mounts=(MountRequest(MountKind.TMPFS, target),)))
    assert "the kernel's own" in caught.value.text()
    image = attrs.evolve(IMAGE, volumes=(target,))
    assert make(ContainerRequest(image="i"), image).mounts == ()


def test_all_faults_are_told_at_once() -> None:
    request = ContainerRequest(
        image="i",
        name="-bad",
        entrypoint=(),
        working_dir="relative",
        env=("=x",),
        mounts=(MountRequest(MountKind.BIND, "relative", "/a"), MountRequest(MountKind.TMPFS, "/")),
    )
    with pytest.raises(InvalidArgument) as caught:
        make(request)
    told = caught.value.text()
    for words in (
        "Invalid container name",
        "no command",
        "working directory",
        "environment",
        "absolute",
        "can't be '/'",
    ):
        assert words in told


@pytest.mark.parametrize(
    ("resources", "told"),
    [
        (Resources(cpu_nanos=2_000_000_001), "Range of CPUs is from 0.01 to 2.00"),
        (Resources(cpuset_cpus="0,1-2"), "requested 0,1-2, available: 0-1"),
        (Resources(cpu_nanos=2_000_000_000, cpuset_cpus="0-1"), ""),
    ],
)
def test_processors_that_this_host_has_not_got(resources: Resources, told: str) -> None:
    request = ContainerRequest(image="i", resources=resources)
    if not told:
        assert make(request).request.resources == resources
        return
    with pytest.raises(InvalidArgument, match=told) as caught:
        make(request)
    assert "\n" not in caught.value.text(), "a single fault is told on one line"


@pytest.mark.parametrize("name", ["", "a", "-x", "a/b", "ä1", "x" * 200, "a b"])
def test_names_nobody_may_have(name: str) -> None:
    with pytest.raises(InvalidArgument):
        checked_name(name)


def test_a_record_survives_the_database() -> None:
    record = make(
        ContainerRequest(image="i", mounts=(MountRequest(MountKind.TMPFS, "/t", size_bytes=5),))
    )
    assert load_record(dump(record)) == record
    assert load_record(dump(attrs.evolve(record, name="other"))).name == "other"

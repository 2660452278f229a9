"""Images over Docker's API: what clients look at in answers, filters, and what is refused how."""

from __future__ import annotations

import contextlib
import io
import json
import tarfile
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, ImageLoadError, ImageNotFound

from tests.support.accounts import People
from tests.support.archives import docker_archive, tar_of
from tests.support.asking import ask
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    daemon.import_busybox("busybox:latest")
    with contextlib.closing(daemon.client()) as made:
        yield made


def built(client: docker.DockerClient, name: str, *lines: str) -> str:
    recipe = "\n".join(("FROM busybox", *lines, "")).encode()
    image, _ = client.images.build(fileobj=io.BytesIO(recipe), tag=name)
    return str(image.id)


def names(client: docker.DockerClient, **filters: object) -> set[str]:
    return {tag for image in client.images.list(filters=filters) for tag in image.tags}


def test_filters_of_lists(client: docker.DockerClient) -> None:
    older = built(client, "lab/older:1", "LABEL stage=old team=a")
    built(client, "lab/newer:2", "LABEL stage=new team=a")
    assert names(client, label="team=a") == {"lab/older:1", "lab/newer:2"}
    assert names(client, label=["team", "stage=new"]) == {"lab/newer:2"}
    assert names(client, reference="lab/*") == {"lab/older:1", "lab/newer:2"}
    assert names(client, reference=["lab/*:1", "busybox"]) == {"lab/older:1", "busybox:latest"}
    assert names(client, since="lab/older:1") == {"lab/newer:2"}
    assert "lab/newer:2" not in names(client, before="lab/newer:2")
    assert names(client, before="lab/newer:2") >= {"lab/older:1"}
    assert client.images.list(filters={"dangling": True}) == []
    client.images.get("lab/newer:2").tag("lab/older", "1")
    assert [image.id for image in client.images.list(filters={"dangling": "true"})] == [older]
    with pytest.raises(APIError, match="invalid filter 'nothing'"):
        client.images.list(filters={"nothing": "x"})
    assert [image.tags for image in client.images.list("lab/newer")] == [
        ["lab/newer:2", "lab/older:1"]
    ]


def test_prunes_leave_what_their_filters_name(client: docker.DockerClient) -> None:
    for number, label in enumerate(("keep", "go")):
        built(client, "lab/moving:1", f"LABEL fate={label} number={number}")
    built(client, "lab/moving:1", "LABEL fate=named")
    pruned = client.images.prune(
        filters={"dangling": True, "label!": ["fate=keep"], "label": "number"}
    )
    assert len(pruned["ImagesDeleted"]) == 1
    assert [image.labels["fate"] for image in client.images.list(filters={"label": "number"})] == [
        "keep"
    ]
    assert client.images.prune(filters={"until": "1h"})["ImagesDeleted"] is None
    client.images.prune()
    assert client.images.list(filters={"label": "number"}) == []
    assert "lab/moving:1" in names(client)


def test_an_archive_that_is_none_is_told_where_clients_look(client: docker.DockerClient) -> None:
    with pytest.raises(ImageLoadError):
        client.images.load(b"abc")
    wrong = docker_archive([tar_of({"a": b"a"})], diff_ids=[f"sha256:{'0' * 64}"])
    with pytest.raises(ImageLoadError, match="has the digest"):
        client.images.load(wrong)


def test_several_images_in_one_archive(daemon: Daemon, client: docker.DockerClient) -> None:
    ids = {built(client, f"lab/many{number}:1", f"LABEL number={number}") for number in range(3)}
    path = "/images/get?names=lab/many0:1&names=lab/many1:1,lab/many2:1"
    saved = ask(daemon, "GET", path).body
    with tarfile.open(fileobj=io.BytesIO(saved)) as tar:
        manifest = json.load(tar.extractfile("manifest.json") or io.BytesIO())
    assert sorted(tag for entry in manifest for tag in entry["RepoTags"]) == [
        "lab/many0:1", "lab/many1:1", "lab/many2:1",
    ]  # fmt: skip
    for number in range(3):
        client.images.remove(f"lab/many{number}:1")
    assert {image.id for image in client.images.load(saved)} == ids
    quiet = ask(daemon, "POST", "/images/load?quiet=1", saved, kind="application/x-tar")
    assert quiet.body.count(b"Loaded image: lab/many") == 3


def test_imports_say_what_they_are_for(daemon: Daemon, client: docker.DockerClient) -> None:
    body = tar_of({"file": b"x"})
    path = "/images/create?fromSrc=-&repo=lab/other&message=why&changes=ENV+A=1&platform=linux/arm64/v8"
    assert ask(daemon, "POST", path, body, kind="application/x-tar").status == 200
    told = client.images.get("lab/other").attrs
    assert (told["Architecture"], told["Variant"], told["Comment"]) == ("arm64", "v8", "why")
    assert "A=1" in told["Config"]["Env"]
    for platform in ("windows/amd64", "linux", "linux/../x"):
        path = f"/images/create?fromSrc=-&platform={platform}"
        assert ask(daemon, "POST", path, body, kind="application/x-tar").status == 400
    refused = ask(daemon, "POST", "/images/create?fromSrc=http://127.0.0.1/x.tar&repo=y")
    assert refused.status == 503
    assert "only a file system's tar in the request's body" in refused.message


def test_pull_and_push_without_a_registry(daemon: Daemon, client: docker.DockerClient) -> None:
    assert client.images.pull("busybox", tag="latest").id == client.images.get("busybox").id
    with pytest.raises(ImageNotFound):
        client.images.pull("nowhere/image", tag="1")
    with pytest.raises(ImageNotFound):
        client.containers.run("nowhere/image", "true")
    missing = ask(daemon, "POST", "/images/nowhere/image/push?tag=1", kind="application/x-tar")
    assert missing.status == 404
    assert missing.message.startswith("An image does not exist locally with the tag: nowhere/image")
    assert ask(daemon, "POST", "/images/busybox/push").status == 503


def test_fields_that_old_clients_read(daemon: Daemon, client: docker.DockerClient) -> None:
    """docker-compose 1 looks into ``ContainerConfig``; skopeo speaks 1.22."""
    for version in ("v1.22", "v1.41"):
        told = ask(daemon, "GET", f"/{version}/images/busybox/json").json
        assert isinstance(told, dict)
        assert {"Volumes", "Cmd", "Env"} <= set(told["ContainerConfig"])
        assert told["VirtualSize"] == told["Size"] > 0
        assert told["RootFS"]["Type"] == "layers"
        assert told["RepoDigests"] == []
        listed = ask(daemon, "GET", f"/{version}/images/json").json
        assert isinstance(listed, list)
        assert {"ParentId", "RepoTags", "VirtualSize", "Labels"} <= set(listed[0])
    older = ask(daemon, "GET", "/v1.24/images/json?filter=busybox").json
    assert isinstance(older, list)
    assert [image["RepoTags"] for image in older] == [["busybox:latest"]]


def test_images_in_use_conflict_in_dockers_words(client: docker.DockerClient) -> None:
    image = built(client, "lab/used:1", "LABEL used=1")
    container = client.containers.run("lab/used:1", ["sleep", "600"], detach=True)
    short = image.removeprefix("sha256:")[:12]
    running = (
        rf"unable to delete {short} \(cannot be forced\) - image is being used by running container"
    )
    with pytest.raises(APIError, match=running):
        client.images.remove(image, force=True)
    with pytest.raises(
        APIError, match=r"must force.* - container .* is using its referenced image"
    ):
        client.images.remove("lab/used:1")
    container.remove(force=True)
    gone = client.api.remove_image("lab/used:1", noprune=True)
    assert gone == [{"Untagged": "lab/used:1"}, {"Deleted": image}]


def test_cache_from_images_that_are_not_here(client: docker.DockerClient) -> None:
    recipe = b"FROM busybox\nRUN date > /when\n"

    def used(**more: object) -> int:
        _, told = client.images.build(fileobj=io.BytesIO(recipe), tag="lab/cached", **more)
        return sum("Using cache" in line.get("stream", "") for line in told)

    assert used() == 0
    assert used(cache_from=["lab/cached"]) == 1
    assert used(cache_from=["nowhere/image"]) == 0


def test_a_recipe_beside_its_context(daemon: Daemon, two_users: People) -> None:
    """docker-py then names the recipe twice in its query; dockerd takes the first."""
    daemon.import_busybox(user=two_users.ada)
    context = tar_of({".named": b"FROM busybox\nLABEL a=b\n"})
    path = "/build?t=beside&dockerfile=.named&dockerfile=FROM+busybox"
    made = ask(daemon, "POST", path, context, user=two_users.ada, kind="application/x-tar")
    assert b"Successfully tagged beside:latest" in made.body


def test_images_that_others_were_built_on(client: docker.DockerClient) -> None:
    """They lose their names, but stay, out of sight, until the last that was built on them is removed."""
    below = built(client, "lab/below:1", "LABEL floor=0")
    above, _ = client.images.build(
        fileobj=io.BytesIO(b"FROM lab/below:1\nLABEL floor=1\n"), tag="lab/above:1"
    )
    short = below.removeprefix("sha256:")[:12]
    dependent = rf"unable to delete {short} \(cannot be forced\) - image has dependent child images"
    with pytest.raises(APIError, match=dependent):
        client.images.remove(below, force=True)
    assert client.api.remove_image("lab/below:1") == [{"Untagged": "lab/below:1"}]
    assert below not in {image.id for image in client.images.list()}
    assert below in {image.id for image in client.images.list(all=True)}
    assert below not in {image.id for image in client.images.list(filters={"dangling": True})}
    client.images.prune()
    assert below in {image.id for image in client.images.list(all=True)}
    gone = client.api.remove_image("lab/above:1")
    assert gone == [{"Untagged": "lab/above:1"}, {"Deleted": above.id}, {"Deleted": below}]
    assert below not in {image.id for image in client.images.list(all=True)}

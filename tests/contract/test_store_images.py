"""Images: loaded, saved, imported, named, removed, seen only by those who may; on a real store."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path

import attrs
import pytest
import zstandard

from supervisor.errors import Conflict, InvalidArgument, NotFound, PermissionDenied
from supervisor.oci import digest as digests
from supervisor.oci import image as oci
from supervisor.oci import reference as references
from supervisor.store.images import ImageFilter, Removed, User
from supervisor.store.spool import in_pieces
from tests.support.archives import docker_archive, oci_archive, tar_of
from tests.support.stores import ADA_IDENTITY, BOB_IDENTITY, ROOT_IDENTITY, World, world_in

pytestmark = pytest.mark.root

BASE = tar_of({"etc/": None, "etc/passwd": b"root:x:0:0::/:/bin/sh\n", "bin/sh": b"#!"})
TOP = tar_of({"app/run": b"go", ".wh.gone": b"", "etc/.wh..wh..opq": b""})


async def load(world: World, data: bytes, who: object = ADA_IDENTITY) -> list[str]:
    loaded = await world.store.transfer.load(who, in_pieces(data))  # type: ignore[arg-type]
    return [one.name or one.image for one in loaded]


async def saved(world: World, *texts: str) -> bytes:
    return b"".join([piece async for piece in await world.store.saving.save(ADA_IDENTITY, texts)])


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstandard.ZstdCompressor().compress])
async def test_what_is_loaded_is_saved_the_same(tmp_path: Path, compress: object) -> None:
    assert callable(compress)
    data = docker_archive([BASE, TOP], tags=["web:1", "lab/web:2"])
    async with world_in(tmp_path) as world:
        assert await load(world, compress(data)) == ["web:1", "lab/web:2"]
        image = await world.store.images.resolve(ADA_IDENTITY, "web:1")
        assert [str(name.familiar) for name in image.names] == ["lab/web:2", "web:1"]
        out = await saved(world, "web:1")
        await world.store.images.remove(ADA_IDENTITY, image.id, force=True)
        assert not await world.store.images.list(ADA_IDENTITY)
        left = [p.name for p in (tmp_path / "data" / "layers").iterdir()]
        assert left == ["init-1"]
        assert not list((tmp_path / "data" / "content" / "sha256").iterdir())
        assert await load(world, out) == ["web:1"]
        assert (await world.store.images.resolve(ADA_IDENTITY, "web:1")).id == image.id
        with tarfile.open(fileobj=io.BytesIO(out)) as archive:
            assert {"manifest.json", "index.json", "oci-layout"} <= set(archive.getnames())


async def test_whiteouts_become_overlays_own(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        await load(world, docker_archive([BASE, TOP], tags=["web"]))
        image = await world.store.images.resolve(ADA_IDENTITY, "web")
        top = world.store.layers.path(image.layers[1])
        assert stat.S_ISCHR((top / "gone").lstat().st_mode)
        assert os.getxattr(top / "etc", "trusted.overlay.opaque") == b"y"
        assert (top / "app/run").read_bytes() == b"go"


async def test_an_oci_layout_is_loaded(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        data = oci_archive(
            [gzip.compress(BASE), zstandard.compress(TOP)], [BASE, TOP], "docker.io/library/web:3"
        )
        assert await load(world, data) == ["web:3"]
        out = await saved(world, "web:3")
        assert await load(world, out) == ["web:3"]


async def test_a_built_image_is_saved_and_loads_as_itself(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        place = world.store.layers.new_place()
        (place / "d").mkdir()
        (place / "d" / "f").write_bytes(b"x" * 70_000)
        os.link(place / "d" / "f", place / "second")
        (place / "l").symlink_to("d/" + "f" * 150)
        os.chown(place / "d" / "f", 33, 70_001)
        os.mknod(place / "gone", stat.S_IFCHR, 0)
        os.chown(place / "gone", 65_536, 65_536)
        os.setxattr(place / "d", "trusted.overlay.opaque", b"y")
        os.setxattr(place / "d" / "f", "user.kept", b"\0\1")
        (place / ("n" * 120)).mkdir()
        layer = await world.store.layers.adopt(place)
        config = oci.ImageConfig(
            config=oci.Execution(cmd=("d/f",)), history=(oci.History(created_by="COPY"),)
        )
        name = references.parse("made")
        image = await world.store.images.create_from(config, [layer.id], ADA_IDENTITY.owner, [name])
        same = await world.store.images.create_from(config, [layer.id], ADA_IDENTITY.owner)
        assert same.id == image.id
        out = await saved(world, "made")
        await world.store.images.remove(ADA_IDENTITY, "made")
        await load(world, out)
        again = await world.store.images.resolve(ADA_IDENTITY, "made:latest")
        assert again.id == image.id
        assert again.layers != image.layers
        tree = world.store.layers.path(again.layers[0])
        assert os.getxattr(tree / "d" / "f", "user.kept") == b"\0\1"
        assert (tree / "second").stat().st_ino == (tree / "d" / "f").stat().st_ino
        assert ((tree / "d" / "f").stat().st_uid, (tree / "d" / "f").stat().st_gid) == (33, 0)
        assert [step.bytes for step in await world.store.images.history(again)] == [70_000]


async def test_names_and_digests_are_private_and_content_is_shared(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        data = docker_archive([BASE], tags=["web"])
        await load(world, data)
        images = world.store.images
        image = await images.resolve(ADA_IDENTITY, "web")
        for text in ("web", image.id, image.id[7:], image.id[7:19], f"web@{image.id}"):
            assert (await images.resolve(ADA_IDENTITY, text)).id == image.id
            with pytest.raises(NotFound, match=r"^No such image: "):
                await images.resolve(BOB_IDENTITY, text)
            with pytest.raises(NotFound):
                await images.remove(BOB_IDENTITY, text)
            with pytest.raises(NotFound):
                await images.tag(BOB_IDENTITY, text, "mine")
        with pytest.raises(NotFound):
            await world.store.saving.save(BOB_IDENTITY, ["web"])
        assert not await images.list(BOB_IDENTITY)
        await load(world, data, BOB_IDENTITY)
        theirs = await images.resolve(BOB_IDENTITY, "web")
        assert (theirs.id, theirs.layers) == (image.id, image.layers)
        assert await images.remove(ADA_IDENTITY, "web") == [
            Removed(untagged="web:latest"),
            Removed(deleted=image.id),
        ]
        assert (await images.resolve(BOB_IDENTITY, "web")).id == image.id
        assert world.store.layers.path(image.layers[0]).exists()


async def test_what_administrators_publish_is_everybodys(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        images = world.store.images
        await load(world, docker_archive([BASE], tags=["base:1"]), ROOT_IDENTITY)
        with pytest.raises(NotFound):
            await images.resolve(ADA_IDENTITY, "base:1")
        shared = await images.publish(ROOT_IDENTITY, "base:1")
        assert (await images.resolve(ADA_IDENTITY, "base:1")).shared
        assert [image.id for image in await images.list(ADA_IDENTITY)] == [shared.id]
        with pytest.raises(PermissionDenied):
            await images.publish(ADA_IDENTITY, "base:1", "other")
        with pytest.raises(PermissionDenied):
            await images.remove(ADA_IDENTITY, "base:1")
        await load(world, docker_archive([TOP], tags=["base:1"]))
        own = await images.resolve(ADA_IDENTITY, "base:1")
        assert own.id != shared.id
        await images.remove(ADA_IDENTITY, "base:1")
        assert (await images.resolve(ADA_IDENTITY, "base:1")).id == shared.id


async def test_removing_as_docker_does(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        images = world.store.images
        await load(world, docker_archive([BASE], tags=["web", "lab/web"]))
        image = await images.resolve(ADA_IDENTITY, "web")
        with pytest.raises(Conflict, match="multiple repositories"):
            await images.remove(ADA_IDENTITY, image.id)
        assert await images.remove(ADA_IDENTITY, "lab/web") == [Removed(untagged="lab/web:latest")]
        users = [User("c" * 64, running=False, owner=ADA_IDENTITY.owner)]
        images.watch_users(lambda _: users)
        with pytest.raises(Conflict, match=r"\(must force\) - container cccccccccccc"):
            await images.remove(ADA_IDENTITY, "web")
        with pytest.raises(Conflict, match="stopped container"):
            await images.remove(ADA_IDENTITY, image.id[7:19])
        users[:] = [attrs.evolve(users[0], running=True)]
        with pytest.raises(Conflict, match="cannot be forced"):
            await images.remove(ADA_IDENTITY, image.id, force=True)
        assert await images.remove(ADA_IDENTITY, "web", force=True) == [
            Removed(untagged="web:latest")
        ]
        assert (await images.prune(ADA_IDENTITY))[0] == []
        users.clear()
        removed, reclaimed = await images.prune(ADA_IDENTITY)
        assert removed == [Removed(deleted=image.id)]
        assert reclaimed > 0


async def test_lists_are_filtered(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        images = world.store.images
        await load(world, docker_archive([BASE], tags=["web:1"], labels={"a": "b"}))
        await load(world, docker_archive([TOP], tags=["lab/db:2"]))

        async def names(**wanted: object) -> list[str]:
            chosen = ImageFilter(**wanted)  # type: ignore[arg-type]
            found = await images.list(ADA_IDENTITY, chosen)
            return sorted(name.familiar for image in found for name in image.names)

        assert await names() == ["lab/db:2", "web:1"]
        assert await names(references=("w*",)) == ["web:1"]
        assert await names(references=("lab/*",)) == ["lab/db:2"]
        assert await names(labels=("a=b",)) == ["web:1"]
        assert await names(labels=("a=c",)) == []
        assert await names(dangling=True) == []
        assert await images.layer_bytes(ADA_IDENTITY) > 0


async def test_a_tar_becomes_an_image(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        execution = oci.Execution(cmd=("sh",))
        image = await world.store.transfer.import_(
            ADA_IDENTITY, in_pieces(gzip.compress(BASE)), "mine:1", execution
        )
        assert image.config.config.cmd == ("sh",)
        assert len(image.config.diff_ids) == 1
        out = await saved(world, "mine:1")
        await world.store.images.remove(ADA_IDENTITY, "mine:1")
        await load(world, out)
        assert (await world.store.images.resolve(ADA_IDENTITY, "mine:1")).id == image.id


async def test_every_change_is_an_event(tmp_path: Path) -> None:
    async with world_in(tmp_path) as world:
        await load(world, docker_archive([BASE], tags=["web"]))
        await world.store.images.tag(ADA_IDENTITY, "web", "other")
        await saved(world, "web")
        await world.store.images.remove(ADA_IDENTITY, "other")
        await world.store.images.remove(ADA_IDENTITY, "web")
        page = await world.events.page(0, visible_to=ADA_IDENTITY.owner, limit=50)
        kinds = [event.type for event in page.events]
        assert kinds == [
            "image.load",
            "image.tag",
            "image.save",
            "image.untag",
            "image.untag",
            "image.delete",
        ]


HOSTILE: Mapping[str, bytes] = {
    "no archive": b"x" * 2000,
    "an empty one": bytes(1024),
    "a config of another digest": docker_archive([BASE], config_name="blobs/sha256/" + "0" * 64),
    "a layer of another digest": docker_archive([BASE], diff_ids=[digests.of(b"other")]),
    "fewer layers than told": docker_archive([BASE], diff_ids=[digests.of(BASE), digests.of(TOP)]),
    "a layer that is not there": docker_archive([BASE], layer_names=["../../etc/passwd"]),
    "a name that is none": docker_archive([BASE], tags=["Web"]),
    "a volume outside": docker_archive([BASE], volumes=["../../x"]),
    "another system's": docker_archive([BASE], system="windows"),
    "a foreign layer": oci_archive([], [BASE], "web", foreign="http://127.0.0.1:1/x"),
    "a blob of another digest": oci_archive([BASE + bytes(512)], [BASE], "web"),
    "cut off": docker_archive([BASE])[:3000],
}


@pytest.mark.parametrize("what", HOSTILE)
async def test_what_is_not_what_it_says_is_refused_and_leaves_nothing(
    tmp_path: Path, what: str
) -> None:
    async with world_in(tmp_path) as world:
        with pytest.raises(InvalidArgument):
            await load(world, HOSTILE[what])
        assert not await world.store.images.list(ADA_IDENTITY)
        assert [p.name for p in (tmp_path / "data" / "layers").iterdir()] == ["init-1"]
        assert not list((tmp_path / "data" / "content" / "sha256").iterdir())
        assert not list((tmp_path / "data" / "content" / "ingest").iterdir())
        assert not list((tmp_path / "data" / "partial").iterdir())

"""Images over HTTP: list, inspect, history, tag, remove, load, save, import, prune; pull where it is here already.

Rule: names are those the caller can reach (their own, then the shared ones); what they cannot reach does not exist.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import attrs

from supervisor.api.call import Call
from supervisor.api.docker.changes import execution_of
from supervisor.api.docker.container_list import prune_until
from supervisor.api.docker.refused import refuse
from supervisor.api.docker.shape_build import filters, flag_filter
from supervisor.api.docker.view_image import history_step, inspect, listed
from supervisor.api.http import JsonObject, Response, json_line, json_response
from supervisor.api.streams import closed_after
from supervisor.errors import InvalidArgument, NotFound, Unavailable
from supervisor.oci import reference as references
from supervisor.store.images import ImageFilter, Removed

if TYPE_CHECKING:
    from supervisor.store.image_records import Image
    from supervisor.store.transfer import Loaded

NO_PLAIN_FILTER = (1, 41)
FILTERS = ("before", "dangling", "label", "reference", "since", "until")

search = refuse("search for images", "there is no registry yet")


async def listed_images(call: Call) -> list[JsonObject]:
    """All the caller can reach, the newest first."""
    images = await call.services.store.images.list(call.identity)
    used = Counter(
        keeper.record.image_id for keeper in call.services.containers.visible_to(call.identity)
    )
    return [listed(image, used[image.id]) for image in images]


async def list_all(call: Call) -> Response:
    """``GET /images/json``."""
    wanted = attrs.evolve(_wanted(call, *FILTERS), intermediate=call.query.flag("all"))
    named = call.query.text("filter")  # before 1.41 also without the filters' JSON
    if named and call.version < NO_PLAIN_FILTER:
        wanted = attrs.evolve(wanted, references=(*wanted.references, named))
    images = await call.services.store.images.list(call.identity, wanted)
    return json_response([listed(image) for image in images])


def _wanted(call: Call, *known: str) -> ImageFilter:
    chosen = filters(call.query, *known)
    return ImageFilter(
        references=chosen.get("reference", ()),
        dangling=flag_filter(chosen, "dangling"),
        labels=chosen.get("label", ()),
        labels_not=chosen.get("label!", ()),
        before=next(iter(chosen.get("before", ())), ""),
        since=next(iter(chosen.get("since", ())), ""),
        until_ns=prune_until(chosen) or 0,
    )


async def _named(call: Call, name: str) -> Image:
    return await call.services.store.images.resolve(call.identity, name)


async def inspect_one(call: Call) -> Response:
    """``GET /images/{name}/json``."""
    return json_response(inspect(await _named(call, call["name"])))


async def history_of(call: Call) -> Response:
    """``GET /images/{name}/history``."""
    image = await _named(call, call["name"])
    return json_response(
        [history_step(step) for step in await call.services.store.images.history(image)]
    )


async def tag(call: Call) -> Response:
    """``POST /images/{name}/tag``."""
    repository, tagged = call.query.text("repo"), call.query.text("tag")
    name = f"{repository}:{tagged}" if tagged else repository
    await call.services.store.images.tag(call.identity, call["name"], name)
    return Response(201)


async def remove(call: Call) -> Response:
    """``DELETE /images/{name}``."""
    removed = await call.services.store.images.remove(
        call.identity,
        call["name"],
        force=call.query.flag("force"),
        parents=not call.query.flag("noprune"),
    )
    return json_response(_removed(removed))


def _removed(removed: Sequence[Removed]) -> list[Mapping[str, str]]:
    return [
        {"Untagged": one.untagged} if one.untagged else {"Deleted": one.deleted} for one in removed
    ]


async def prune(call: Call) -> Response:
    """``POST /images/prune``: the caller's without names; with ``dangling=false`` all that no container uses."""
    wanted = _wanted(call, "dangling", "label", "label!", "until")
    removed, reclaimed = await call.services.store.images.prune(
        call.identity,
        attrs.evolve(wanted, dangling=None),
        unnamed_only=wanted.dangling is not False,
    )
    return json_response({"ImagesDeleted": _removed(removed) or None, "SpaceReclaimed": reclaimed})


async def load(call: Call) -> None:
    """``POST /images/load``: the body is an archive of ``docker save`` or an OCI layout.

    What is wrong with it is told as the last message of the stream, as dockerd does; docker-py looks for it there.
    """
    answer = call.connection.streamed("application/json")
    loaded: Sequence[Loaded] = ()
    async with call.connection.while_client_stays():
        try:
            loaded = await call.services.store.transfer.load(call.identity, call.connection.body())
        except InvalidArgument as error:
            fault = {"errorDetail": {"message": error.text()}, "error": error.text()}
            await answer.send(json_line(fault))
    for one in loaded:
        told = f"Loaded image: {one.name}\n" if one.name else f"Loaded image ID: {one.image}\n"
        await answer.send(json_line({"stream": told}))
    await answer.finish()


async def save_one(call: Call) -> None:
    """``GET /images/{name}/get``."""
    await _save(call, (call["name"],))


async def save_many(call: Call) -> None:
    """``GET /images/get``."""
    await _save(
        call, [name for value in call.query.all("names") for name in value.split(",") if name]
    )


async def _save(call: Call, names: Sequence[str]) -> None:
    answer = call.connection.streamed("application/x-tar")
    async with closed_after(await call.services.store.saving.save(call.identity, names)) as pieces:
        async for piece in pieces:
            await answer.send(piece)
    await answer.finish()


async def create(call: Call) -> None:
    """``POST /images/create``: ``docker import``, and ``docker pull`` of what is here already."""
    source, name = call.query.text("fromSrc"), call.query.text("fromImage")
    if source:
        await _import(call, source)
        return
    tagged = call.query.text("tag")
    if tagged:
        name += f"@{tagged}" if ":" in tagged else f":{tagged}"
    wanted = references.parse(name).tagged.familiar
    answer = call.connection.streamed("application/json")
    try:
        image = await _named(call, wanted)
    except NotFound as error:
        repository = references.parse(wanted).familiar_repository
        raise NotFound(  # in these words clients know it for an image that is nowhere
            f"pull access denied for {repository}, repository does not exist or may require 'docker login':"
            " this daemon reaches no registry yet",
            "bring the image with docker load or docker import, build it, or ask an administrator to publish it",
        ) from error
    await answer.send(json_line({"status": f"Digest: {image.id}"}))
    await answer.send(json_line({"status": f"Status: Image is up to date for {wanted}"}))
    await answer.finish()


async def _import(call: Call, source: str) -> None:
    if source != "-":
        raise Unavailable(
            f"cannot import {source[:200]}: only a file system's tar in the request's body is supported"
        )
    repository, tagged = call.query.text("repo"), call.query.text("tag")
    name = f"{repository}:{tagged}" if tagged else repository
    changes = execution_of(call.query.all("changes"))
    platform = _platform(call.query.text("platform"))
    answer = call.connection.streamed("application/json")
    async with call.connection.while_client_stays():
        image = await call.services.store.transfer.import_(
            call.identity,
            call.connection.body(),
            name,
            changes,
            call.query.text("message"),
            platform,
        )
    await answer.send(json_line({"status": image.id}))
    await answer.finish()


def _platform(text: str) -> tuple[str, str] | None:
    """Architecture and variant of ``linux/arm64/v8``; nothing when it is not said."""
    if not text:
        return None
    system, _, rest = text.lower().partition("/")
    architecture, _, variant = rest.partition("/")
    if system != "linux" or not architecture.isalnum() or not (variant.isalnum() or not variant):
        raise InvalidArgument(
            f"cannot import for the platform {text[:40]!r}",
            "linux, and an architecture: linux/amd64",
        )
    return architecture, variant


async def push(call: Call) -> Response:
    """``POST /images/{name}/push``."""
    name = references.parse(call["name"])
    tag = call.query.text("tag")
    wanted = references.parse(f"{name.familiar_repository}:{tag}") if tag else name.tagged
    if not await call.services.store.images.exists(call.identity, wanted.familiar):
        raise NotFound(f"An image does not exist locally with the tag: {name.familiar_repository}")
    raise Unavailable(
        f"cannot push {wanted.familiar}: this daemon reaches no registry yet", "use docker save"
    )

"""Whether an image may be removed: ``docker rmi``'s rules and words. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

from supervisor.errors import Conflict, InvalidArgument, PermissionDenied
from supervisor.oci import reference as references
from supervisor.oci.reference import Reference, short_id
from supervisor.store.image_records import Image


@attrs.frozen
class User:
    """A container that uses an image."""

    container: str
    running: bool
    owner: int


def check_allowed(image: Image, text: str, *, admin: bool) -> None:
    """Only administrators take away what all share.

    Raises:
        PermissionDenied: It is shared, and they are none.
    """
    if image.shared and not admin:
        raise PermissionDenied(
            f"cannot remove {text}: the administrators share it with everybody",
            hint="it takes nothing of your quota",
        )


def name_meant(image: Image, text: str) -> Reference | None:
    """The name of the image that ``text`` is; ``None`` when it is an id."""
    try:
        name = references.parse(text)
    except InvalidArgument:
        return None
    if name.digest:
        return next((one for one in image.names if one.repository == name.repository), None)
    return name.tagged if name.tagged in image.names else None


def check_by_name(image: Image, users: Sequence[User], name: Reference, *, force: bool) -> None:
    """The last name of an image in use goes only by force.

    Raises:
        Conflict: It is that, and there is no force.
    """
    if len(image.names) > 1 or not users or force:
        return
    message = (
        f'conflict: unable to remove repository reference "{name.familiar}" (must force) - container'
        f" {users[0].container[:12]} is using its referenced image {short_id(image.id)}"
    )
    raise Conflict(message, hint="remove the container first, or use --force")


def check_by_id(image: Image, users: Sequence[User], *, force: bool, children: bool) -> None:
    """By its id an image goes with all its names: by force if that is more than one repository, or a container has it.

    Raises:
        Conflict: There is no force; or, whatever the force, another image was built on it or a running container has it.
    """
    unable = f"conflict: unable to delete {short_id(image.id)}"
    if len({name.repository for name in image.names}) > 1 and not force:
        message = f"{unable} (must be forced) - image is referenced in multiple repositories"
        raise Conflict(message)
    if children:
        message = f"{unable} (cannot be forced) - image has dependent child images"
        raise Conflict(message, hint="remove the images that were built on it first")
    running = next((user.container[:12] for user in users if user.running), "")
    if running:
        message = (
            f"{unable} (cannot be forced) - image is being used by running container {running}"
        )
        raise Conflict(message, hint="stop and remove the container first")
    if users and not force:
        message = (
            f"{unable} (must be forced) - image is being used by stopped container"
            f" {users[0].container[:12]}"
        )
        raise Conflict(message, hint="remove the container first, or use --force")

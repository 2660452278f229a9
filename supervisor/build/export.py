"""From what the target came to, to an image: config, history, names.

An image that says the same of the same layers as one built before has that one's times, and so its id: building again
without a change makes nothing new. With ``SOURCE_DATE_EPOCH`` its time is all there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs

from supervisor import clock
from supervisor.build import cache as keys
from supervisor.build.cache import Cache
from supervisor.build.copying import NANOSECONDS_PER_SECOND
from supervisor.build.graph import Graph, Past
from supervisor.build.solver import Outcome
from supervisor.errors import ResourceExhausted
from supervisor.oci.image import History, ImageConfig, config_json
from supervisor.oci.reference import Reference
from supervisor.runtime.parts import Parts
from supervisor.store.image_records import Image

KEPT_EXTRAS = ("os.version", "os.features")


async def export(  # all that an image is made of
    parts: Parts,
    cache: Cache,
    graph: Graph,
    outcomes: Mapping[str, Outcome],
    owner: int,
    tags: Sequence[Reference],
) -> Image:
    """Make the image of ``graph``'s target and name it.

    Args:
        parts: The services below.
        cache: Where images built before are remembered.
        graph: What was built.
        outcomes: Of its vertices.
        owner: Whose image it is.
        tags: The names it gets.

    Raises:
        ResourceExhausted: It has too many layers, or the disk is full.
    """
    layers = outcomes[graph.target].layers
    most = parts.config.store.layers_per_image_max
    if len(layers) > most:
        message = f"cannot make the image: it has {len(layers)} layers, at most {most} can be used"
        raise ResourceExhausted(message, "join RUN steps, or copy the result into a new stage")
    skeleton = config_json(_config(graph, outcomes, 0))
    key = keys.image_key(skeleton, layers, owner)
    known = await cache.find(key)
    if graph.epoch is not None:
        created_ns = graph.epoch * NANOSECONDS_PER_SECOND
    elif known is not None:
        created_ns = known.made_ns
    else:
        created_ns = await cache.first_made(key, owner, "image")
    config = _config(graph, outcomes, created_ns)
    return await parts.store.images.create_from(
        config, layers, owner, tags, parent=graph.base_image
    )


def _config(graph: Graph, outcomes: Mapping[str, Outcome], created_ns: int) -> ImageConfig:
    """The config with its history; times are left out when ``created_ns`` is 0."""
    base = graph.config
    new = [
        _history(past, outcomes, created_ns, fixed=graph.epoch is not None) for past in graph.past
    ]
    return attrs.evolve(
        base,
        created=clock.rfc3339(created_ns) if created_ns else "",
        history=(*base.history, *new),
        extra={key: value for key, value in base.extra.items() if key in KEPT_EXTRAS},
    )


def _history(
    past: Past, outcomes: Mapping[str, Outcome], created_ns: int, *, fixed: bool
) -> History:
    outcome = outcomes[past.vertex] if past.vertex else None
    made_ns = outcome.made_ns if outcome and outcome.made_ns and not fixed else created_ns
    return History(
        created=clock.rfc3339(made_ns) if created_ns else "",
        created_by=past.created_by,
        empty_layer=outcome is None or not outcome.added,
    )

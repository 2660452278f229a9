"""Image configs: what we write we read; what is hostile is an InvalidArgument and nothing else."""

from __future__ import annotations

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import InvalidArgument
from supervisor.oci import digest as digests
from supervisor.oci import image

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "config",
                    "rootfs",
                    "diff_ids",
                    "history",
                    "Env",
                    "Labels",
                    "Volumes",
                    "Healthcheck",
                    "x",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
READERS = [
    image.parse_config,
    image.parse_manifest,
    image.parse_index,
    image.parse_archive_manifest,
]


@given(JSON)
def test_any_json_is_a_value_or_an_invalid_argument(value: object) -> None:
    for read in READERS:
        try:
            read(orjson.dumps(value))
        except InvalidArgument:
            continue


@given(st.binary(max_size=40))
def test_any_bytes_are_a_value_or_an_invalid_argument(data: bytes) -> None:
    for read in READERS:
        try:
            read(data)
        except InvalidArgument:
            continue


def test_deep_and_large_json_is_refused() -> None:
    for data in (b"[" * 100_000, b'{"x":"' + b"y" * image.CONFIG_BYTES_MAX + b'"}'):
        with pytest.raises(InvalidArgument):
            image.parse_config(data)


def test_what_is_not_known_is_kept() -> None:
    config = image.ImageConfig(
        config=image.Execution(
            env=("A=b",),
            cmd=(),
            volumes=("/data",),
            health=image.HealthCheck(("CMD", "true"), interval_ns=5),
            extra={"ArgsEscaped": True},
        ),
        diff_ids=(digests.of(b"layer"),),
        history=(image.History(created_by="RUN true"),),
        extra={"os.features": ["x"]},
    )
    assert image.parse_config(image.config_json(config)) == config
    assert image.config_json(attrs.evolve(config)) == image.config_json(config)


@pytest.mark.parametrize("path", ["../../x", "/a/../../x", "", "/", "..", "/a\0b"])
def test_a_volume_outside_the_container_is_refused(path: str) -> None:
    with pytest.raises(InvalidArgument, match="Volumes"):
        image.parse_execution({"Volumes": {path: {}}})


def test_manifest_confusion_is_refused() -> None:
    both = orjson.dumps({"config": {}, "layers": [], "manifests": []})
    for read in (image.parse_manifest, image.parse_index):
        with pytest.raises(InvalidArgument):
            read(both)

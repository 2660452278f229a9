"""Tars and image archives made by hand, honest and otherwise."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping, Sequence

import orjson

from supervisor.oci import digest as digests


def tar_of(files: Mapping[str, bytes | None]) -> bytes:
    """A tar of these files; a name with a slash at its end is a directory."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content or b""))
    return data.getvalue()


def docker_archive(  # noqa: PLR0913
    layers: Sequence[bytes],
    *,
    tags: Sequence[str] = (),
    config_name: str = "",
    diff_ids: Sequence[str] | None = None,
    layer_names: Sequence[str] | None = None,
    volumes: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
    system: str = "linux",
) -> bytes:
    """What ``docker save`` writes, or nearly."""
    config = orjson.dumps(
        {
            "architecture": "amd64",
            "os": system,
            "config": {"Cmd": ["sh"], "Labels": labels, "Volumes": {path: {} for path in volumes}},
            "rootfs": {
                "type": "layers",
                "diff_ids": list(diff_ids)
                if diff_ids is not None
                else [digests.of(one) for one in layers],
            },
            "history": [{"created_by": f"step {number}"} for number in range(len(layers))],
        }
    )
    name = config_name or digests.encoded(digests.of(config)) + ".json"
    files = {f"{number}/layer.tar": layer for number, layer in enumerate(layers)}
    manifest = {"Config": name, "RepoTags": list(tags), "Layers": list(layer_names or files)}
    return tar_of({**files, name: config, "manifest.json": orjson.dumps([manifest])})


def oci_archive(
    blobs: Sequence[bytes], layers: Sequence[bytes], name: str, *, foreign: str = ""
) -> bytes:
    """An OCI layout; ``blobs`` are the layers as they lie in it, ``layers`` as they are unpacked."""
    config = orjson.dumps(
        {
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digests.of(one) for one in layers]},
        }
    )
    listed = [described(blob) for blob in blobs]
    if foreign:
        kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        listed = [{**described(layers[0]), "mediaType": kind, "urls": [foreign]}]
    manifest = orjson.dumps({"schemaVersion": 2, "config": described(config), "layers": listed})
    index = orjson.dumps(
        {
            "manifests": [
                {
                    **described(manifest),
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "annotations": {"io.containerd.image.name": name},
                }
            ]
        }
    )
    files = {
        f"blobs/sha256/{digests.encoded(digests.of(one))}": one
        for one in (*blobs, config, manifest)
    }
    return tar_of({**files, "index.json": index, "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'})


def described(data: bytes) -> dict[str, object]:
    """A descriptor of ``data``."""
    return {"mediaType": "x", "digest": digests.of(data), "size": len(data)}

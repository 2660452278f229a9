"""The route table: what matches what, and which versions are spoken."""

from __future__ import annotations

import pytest

from supervisor.api.docker import attach, container_list, containers, images, refused, system
from supervisor.api.http import HttpRefusedError
from supervisor.api.native import base_image
from supervisor.api.routes import ROUTES, match, split_version
from supervisor.errors import InvalidArgument


@pytest.mark.parametrize(
    ("method", "path", "handler", "parameters"),
    [
        ("GET", "/_ping", system.ping, {}),
        ("GET", "/containers/json", container_list.list_all, {}),
        ("GET", "/containers/json/json", container_list.inspect_one, {"id": "json"}),
        ("POST", "/containers/prune", container_list.prune, {}),
        ("POST", "/containers/web/attach", attach.attach, {"id": "web"}),
        ("POST", "/containers/create", containers.create, {}),
        ("GET", "/images/get", images.save_many, {}),
        (
            "GET",
            "/images/localhost:5000/a/b:1/json",
            images.inspect_one,
            {"name": "localhost:5000/a/b:1"},
        ),
        ("DELETE", "/images/a/b", images.remove, {"name": "a/b"}),
        ("POST", "/grpc", refused.buildkit, {}),
        ("GET", "/nodes/x/y", refused.swarm, {"rest": "x/y"}),
        ("POST", "/bakehouse/v1/images/bootstrap", base_image.bootstrap, {}),
        ("POST", "/bakehouse/v1/images/a/b:1/publish", base_image.publish, {"name": "a/b:1"}),
    ],
)
def test_match(method: str, path: str, handler: object, parameters: dict[str, str]) -> None:
    route, found = match(method, path)
    assert route.handler is handler
    assert found == parameters


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing", 404),
        ("GET", "/", 404),
        ("GET", "//containers/json", 404),
        ("GET", "/containers/../containers/json", 404),
        ("GET", "/containers/a/b/json", 404),
        ("GET", "/containers//json", 404),
        ("GET", "/containers/json/", 404),
        ("PATCH", "/containers/json", 405),
        ("GET", "/containers/create", 405),
        ("CONNECT", "/containers/json", 405),
    ],
)
def test_no_match(method: str, path: str, status: int) -> None:
    with pytest.raises(HttpRefusedError) as caught:
        match(method, path)
    assert caught.value.status == status


def test_versions() -> None:
    assert split_version("/v1.41/info") == ((1, 41), "/info")
    assert split_version("/v1.22/info") == ((1, 22), "/info")
    assert split_version("/info") == ((1, 41), "/info")
    assert split_version("/v1.41/bakehouse/v1/health")[1] == "/v1.41/bakehouse/v1/health"
    assert split_version("/v1.41/v1.41/info")[1] == "/v1.41/info"


@pytest.mark.parametrize(
    "path", ["/v1.42/info", "/v1.21/info", "/v2.0/info", "/v0.1/info", "/v1.999/info"]
)
def test_versions_not_spoken(path: str) -> None:
    with pytest.raises(InvalidArgument, match="supported API version is"):
        split_version(path)


def test_every_route_is_reached_first_by_its_own_pattern() -> None:
    """No row is hidden behind an earlier one."""
    for method, pattern, _, handler in ROUTES:
        path = (
            pattern.replace("{name*}", "a/b")
            .replace("{rest*}", "a")
            .replace("{id}", "a")
            .replace("{name}", "a")
        )
        assert match(method, path)[0].handler is handler, (method, pattern)

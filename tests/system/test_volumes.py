"""Volumes through the docker command: options, who uses them, lists, prunes; as root and as users who see their own."""

from __future__ import annotations

import json

import pytest

from tests.support.accounts import People
from tests.support.daemon import Daemon

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def engine(daemon: Daemon, two_users: People) -> Daemon:
    for user in (None, two_users.ada, two_users.bob):
        daemon.import_busybox("bb", user=user)
    return daemon


@pytest.mark.parametrize("person", ["root", "ada"])
def test_a_volume_in_memory_is_shared_bounded_and_gone(
    engine: Daemon, two_users: People, person: str
) -> None:
    user = two_users.ada if person == "ada" else None
    options = ("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,uid=33,noexec")
    engine.docker("volume", "create", *options, "fast", user=user)
    for name in ("one", "two"):
        engine.docker("run", "-d", "--name", name, "-v", "fast:/f", "bb", "sleep", "300", user=user)
    shell = ("exec", "one", "sh", "-c")
    assert engine.docker(*shell, "echo shared > /f/x; stat -c %u /f", user=user).stdout == "33\n"
    assert engine.docker("exec", "two", "cat", "/f/x", user=user).stdout == "shared\n"
    fill = "head -c 3000000 /dev/zero > /f/y; stat -c %s /f/y"
    assert int(engine.docker(*shell, fill, user=user).stdout) < 1_048_576
    run = "rm /f/y; echo '#!/bin/sh' > /f/b; chmod 755 /f/b; /f/b"
    assert "ermission denied" in engine.docker(*shell, run, user=user, check=False).stderr
    shown = json.loads(engine.docker("volume", "inspect", "fast", user=user).stdout)[0]
    assert shown["Options"] == {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=33,noexec"}
    used = engine.docker("volume", "rm", "fast", user=user, check=False)
    ids = engine.docker("ps", "-q", "--no-trunc", user=user).stdout.split()
    assert f"volume is in use - [{', '.join(sorted(ids))}]" in used.stderr
    engine.docker("rm", "-f", "one", "two", user=user)
    assert engine.docker("volume", "prune", "-f", user=user).stdout == "Total reclaimed space: 0B\n"
    engine.docker("volume", "rm", "fast", user=user)
    places = [*(engine.run_root / "volumes").glob("*/*")]
    assert not any(place.is_mount() for place in places)


def test_a_directory_as_a_volume_is_opened_as_its_owner(engine: Daemon, two_users: People) -> None:
    ada, bob = two_users.ada, two_users.bob
    shelf = ada.home / "shelf"
    engine.run(["mkdir", "-m", "700", str(shelf)], user=ada)
    options = ("--opt", "type=none", "--opt", "o=bind", "--opt", f"device={shelf}", "shelf")
    engine.docker("volume", "create", *options, user=ada)
    write = ("run", "--rm", "-v", "shelf:/s", "bb", "sh", "-c", "echo mine > /s/x")
    engine.docker(*write, user=ada)
    assert (shelf / "x").stat().st_uid == ada.uid
    engine.docker("volume", "create", *options, user=bob)
    refused = engine.docker(*write, user=bob, check=False)
    assert refused.returncode
    assert "ermission denied" in refused.stderr
    kernel = ("--opt", "o=bind", "--opt", "device=/proc/1/root", "kernel")
    denied = engine.docker("volume", "create", *kernel, user=bob, check=False)
    assert "mount-source" in denied.stderr
    engine.docker("volume", "rm", "shelf", user=ada)
    assert (shelf / "x").exists()


def test_lists_and_prunes_by_their_filters(engine: Daemon, two_users: People) -> None:
    ada, bob = two_users.ada, two_users.bob
    engine.docker("volume", "create", "--label", "tier=db", "db-1", user=ada)
    engine.docker("volume", "create", "--label", "tier=web", "web-1", user=ada)
    engine.docker("volume", "create", "secret", user=bob)
    engine.docker(
        "run", "--name", "user", "-v", "db-1:/d", "-v", "/anonymous", "bb", "true", user=ada
    )

    def listed(*filters: str) -> list[str]:
        words = [word for one in filters for word in ("--filter", one)]
        told = engine.docker("volume", "ls", "--format", "{{.Name}}", *words, user=ada).stdout
        return [name if len(name) < 64 else "anonymous" for name in told.split()]

    assert sorted(listed()) == ["anonymous", "db-1", "web-1"]
    assert listed("dangling=true") == ["web-1"]
    assert sorted(listed("dangling=false")) == ["anonymous", "db-1"]
    assert listed("name=^db-[0-9]$") == listed("label=tier=db") == ["db-1"]
    assert listed("driver=nfs") == []
    assert (
        "invalid filter"
        in engine.docker("volume", "ls", "--filter", "x=1", user=ada, check=False).stderr
    )

    def pruned(*filters: str) -> str:
        words = [word for one in filters for word in ("--filter", one)]
        return engine.docker("volume", "prune", "-f", *words, user=ada).stdout

    assert "web-1" not in pruned("label=tier=db")
    assert "web-1" not in pruned("label!=tier")
    assert "web-1" in pruned()
    engine.docker("rm", "-v", "user", user=ada)
    assert listed() == ["db-1"]
    other = engine.docker("volume", "rm", "secret", user=ada, check=False)
    assert "get secret: no such volume" in other.stderr
    assert engine.docker("volume", "rm", "-f", "secret", user=ada).returncode == 0
    assert engine.docker("volume", "ls", "-q", user=bob).stdout.split() == ["secret", "shelf"]
    for bad, words in (
        ("../x", '"../x" includes invalid characters for a local volume name'),
        (".hidden", "includes invalid characters"),
        ("a/b", "includes invalid characters"),
        ("-x", "includes invalid characters"),
        ("x", "volume name is too short"),
    ):
        refused = engine.docker("volume", "create", "--", bad, user=ada, check=False)
        assert words in refused.stderr
    driver = engine.docker("volume", "create", "-d", "nope", "data", check=False)
    assert (
        'create data: error looking up volume plugin nope: plugin "nope" not found' in driver.stderr
    )
    option = engine.docker("volume", "create", "-o", "x=1", "data", check=False)
    assert 'create data: invalid option: "x"' in option.stderr


def test_a_volume_in_memory_outlives_the_daemon_and_not_its_removal(engine: Daemon) -> None:
    engine.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "quick")
    engine.docker("run", "-d", "--name", "holder", "-v", "quick:/q", "bb", "sleep", "300")
    engine.docker("exec", "holder", "sh", "-c", "echo kept > /q/x")
    engine.kill()
    engine.start()
    run = ("run", "--rm", "-v", "quick:/q", "bb", "cat", "/q/x")
    assert engine.docker(*run).stdout == "kept\n"
    engine.docker("rm", "-f", "holder")
    engine.docker("volume", "rm", "quick")
    engine.docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "quick")
    assert engine.docker(*run, check=False).returncode == 1
    engine.docker("volume", "rm", "quick")

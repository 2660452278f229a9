"""Real accounts for a while: two members of a group, and a stranger."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import attrs


@attrs.frozen
class User:
    """An account of the host."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: Path


@attrs.frozen
class People:
    """Who there is: ``ada`` and ``bob`` are members of ``group`` and of ``lab``, ``eve`` of neither."""

    group: str
    lab: str
    ada: User
    bob: User
    eve: User


class Credentials(TypedDict):
    """As whom :class:`subprocess.Popen` starts a command."""

    user: int | None
    group: int | None
    extra_groups: tuple[int, ...] | None


def credentials(user: User | None) -> Credentials:
    """Those of ``user``, or of whoever runs the tests."""
    if user is None:
        return Credentials(user=None, group=None, extra_groups=None)
    return Credentials(user=user.uid, group=user.gid, extra_groups=user.groups)


def as_user(user: User, *argv: str) -> subprocess.CompletedProcess[str]:
    """A command on the host, as ``user``; whether it fails is the caller's business."""
    return subprocess.run(
        argv, **credentials(user), capture_output=True, check=False, text=True, cwd="/"
    )


@contextmanager
def people() -> Iterator[People]:
    """Make the accounts, and remove them with all their files."""
    tag = uuid.uuid4().hex[:6]
    homes = Path("/var/tmp") / f"bh-homes-{tag}"
    groups, names = [f"bhg{tag}", f"bhl{tag}"], [f"bh{tag}{letter}" for letter in "abe"]
    homes.mkdir(mode=0o755)
    try:
        for group in groups:
            _run("groupadd", group)
        users = [_add(name, homes / name, groups if name[-1] != "e" else []) for name in names]
        yield People(groups[0], groups[1], *users)
    finally:
        for name in names:
            subprocess.run(["userdel", name], capture_output=True, check=False)
        for group in groups:
            subprocess.run(["groupdel", group], capture_output=True, check=False)
        shutil.rmtree(homes, ignore_errors=True)


def _add(name: str, home: Path, groups: list[str]) -> User:
    _run(
        "useradd",
        "--create-home",
        "--home-dir",
        str(home),
        "--user-group",
        "--shell",
        "/bin/sh",
        name,
    )
    if groups:
        _run("usermod", "--append", "--groups", ",".join(groups), name)
    home.chmod(0o700)
    entry = pwd.getpwnam(name)
    members = tuple(sorted(os.getgrouplist(name, entry.pw_gid)))
    return User(name, entry.pw_uid, entry.pw_gid, members, home)


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    assert done.returncode == 0, f"{argv[0]}: {done.stderr}"

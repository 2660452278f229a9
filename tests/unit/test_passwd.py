"""Users and groups by the image's own files."""

from __future__ import annotations

import pytest

from supervisor.errors import InvalidArgument
from supervisor.runtime.passwd import ContainerUser, resolve_group, resolve_user

PASSWD = "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33::/var/www:/bin/false\nbroken\n:x:1:1::/:\nbig:x:99999999999:0::/:\n"
GROUP = "root:x:0:\nwww:x:33:\nlab:x:500:www,other\nstaff:x:50:www\n"


@pytest.mark.parametrize(
    ("user", "meant"),
    [
        ("", ContainerUser(0, 0, (), "/root")),
        ("www", ContainerUser(33, 33, (500, 50), "/var/www")),
        ("33", ContainerUser(33, 33, (500, 50), "/var/www")),
        ("1234", ContainerUser(1234, 0, (), "/")),
        ("www:lab", ContainerUser(33, 500, (), "/var/www")),
        ("1234:77", ContainerUser(1234, 77, (), "/")),
        (":lab", ContainerUser(0, 500, (), "/root")),
    ],
)
def test_what_a_user_means(user: str, meant: ContainerUser) -> None:
    assert resolve_user(user, PASSWD, GROUP) == meant


@pytest.mark.parametrize("user", ["nobody", "www:none", "-1", "4294967295", "٣", "99999999999"])
def test_what_the_image_does_not_know_is_refused(user: str) -> None:
    with pytest.raises(InvalidArgument, match="unable to find"):
        resolve_user(user, PASSWD, GROUP)


def test_an_image_without_accounts_has_root() -> None:
    assert resolve_user("", "", "") == ContainerUser(0, 0, (), "/")
    assert resolve_group("7", "") == 7

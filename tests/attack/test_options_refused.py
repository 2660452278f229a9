"""Options of a container by which a user would become more than they are: each refused by its rule (attacks.md 16)."""

from __future__ import annotations

import json

import pytest

from tests.support.accounts import People
from tests.support.asking import ask
from tests.support.daemon import Daemon

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="module")
def ready(daemon: Daemon, two_users: People) -> Daemon:
    daemon.import_busybox(user=two_users.ada)
    daemon.import_busybox(user=two_users.bob)
    daemon.docker("create", "--name", "rich", "busybox", "true", user=two_users.ada)
    return daemon


@pytest.mark.parametrize(
    ("host", "rule"),
    [
        ({"Devices": [{"PathOnHost": "/dev/null"}]}, "device"),
        ({"Devices": [{"PathOnHost": "/dev/mem", "PathInContainer": "/dev/x"}]}, "device"),
        ({"DeviceCgroupRules": ["a *:* rwm"]}, "device"),
        ({"BlkioDeviceReadBps": [{"Path": "/root/secret", "Rate": 1}]}, "device"),
        ({"CgroupParent": "/"}, "cgroup-parent"),
        ({"CgroupParent": "/u0"}, "cgroup-parent"),
        ({"CgroupParent": "../u0"}, "cgroup-parent"),
        ({"CgroupParent": "a/../../u0/x"}, "cgroup-parent"),
        ({"CgroupnsMode": "host"}, "host-namespace"),
        ({"UsernsMode": "host"}, "host-namespace"),
        ({"Runtime": "/bin/sh"}, "runtime"),
        ({"Annotations": {"run.oci.hooks.stdout": "/x"}}, "annotations"),
        ({"MaskedPaths": []}, "masked-paths"),
        ({"ReadonlyPaths": ["/nothing"]}, "masked-paths"),
        ({"SecurityOpt": ["seccomp=unconfined"]}, "seccomp-unconfined"),
        ({"SecurityOpt": ["seccomp=/etc/passwd"]}, ""),
        ({"Sysctls": {"kernel.core_pattern": "|/x"}}, "sysctl"),
        ({"Sysctls": {"net.ipv4.ip_forward": "1"}}, "sysctl"),
        ({"Sysctls": {"fs.mqueue.x/../../../kernel/core_pattern": "x"}}, ""),
        ({"OomKillDisable": True}, "oom-kill"),
        ({"OomScoreAdj": -1_000}, "oom-score"),
        ({"Ulimits": [{"Name": "nofile", "Soft": -1, "Hard": -1}]}, "ulimit"),
        ({"CapAdd": ["SYS_ADMIN"]}, "capability"),
        ({"Tmpfs": {"/t": "suid,mpol=bind:0"}}, "mount-option"),
        ({"Binds": ["/etc:/x:rshared"]}, ""),
        ({"Binds": ["/etc:/x:rslave"]}, "propagation"),
        ({"Surprise": 1}, "unknown-field"),
    ],
    ids=json.dumps,
)
def test_refused_by_name(
    ready: Daemon, two_users: People, host: dict[str, object], rule: str
) -> None:
    before = ready.docker("ps", "-aq", user=two_users.bob).stdout
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    answer = ask(ready, "POST", "/containers/create", body, user=two_users.bob)
    assert answer.status == (403 if rule else 400), answer
    assert f"refused by the rule {rule}" in answer.message or not rule
    assert ready.docker("ps", "-aq", user=two_users.bob).stdout == before


def test_a_users_profile_cannot_open_what_the_default_closes(
    ready: Daemon, two_users: People
) -> None:
    """A profile that allows everything leaves the default as it is: the same filter, nothing more."""
    profile = two_users.bob.home / "profile.json"
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    profile.chmod(0o644)
    run = ("run", "--rm", "--security-opt", f"seccomp={profile}", "busybox", "sh", "-c")
    script = "swapon /bin/busybox; rmmod x; date -s 2001-01-01; grep ^Seccomp: /proc/self/status"
    given = ready.docker(*run, script, user=two_users.bob)
    plain = ready.docker("run", "--rm", "busybox", "sh", "-c", script, user=two_users.bob)
    assert (given.stdout, given.stderr) == (plain.stdout, plain.stderr)


def test_a_parent_is_below_ones_own_group(ready: Daemon, two_users: People) -> None:
    """The same name of two people is two groups; nobody's limits are loosened by it."""
    paths = {}
    for user in (two_users.ada, two_users.bob):
        run = ("run", "--rm", "--cgroup-parent", "jobs", "busybox", "cat", "/proc/self/cgroup")
        told = ready.docker(*run, user=user).stdout
        paths[user.name] = {line.split(":", 2)[2] for line in told.splitlines() if "p-jobs" in line}
        assert all(f"/u{user.uid}/p-jobs/" in path for path in paths[user.name])
        assert paths[user.name]

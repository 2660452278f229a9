"""No mix of settings makes a user's container more than the table of the policy gives, by the kernel's own word.

Settings are put together at random: what users may have, and what they may not. ``BAKEHOUSE_SEARCHES`` is how often,
``BAKEHOUSE_SEED`` which tries they are.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.accounts import People
from tests.support.crowd import Line
from tests.support.daemon import Daemon
from tests.support.kernel import beyond

pytestmark = [pytest.mark.root, pytest.mark.slow]

SEARCHES = int(os.environ.get("BAKEHOUSE_SEARCHES", "120"))
SEED = int(os.environ.get("BAKEHOUSE_SEED", "0"))
IMAGE = "shared:1"
PROGRAMS = {"sleep", "tini", "docker-init"}
BEGIN_SECONDS = 20.0
REFUSED = {400, 403, 404, 409}

FIELDS: Mapping[str, tuple[object, ...]] = {
    "Privileged": (True, False),
    "PidMode": ("host", "", "container:self"),
    "IpcMode": ("host", "private", "shareable", ""),
    "UTSMode": ("host", ""),
    "UsernsMode": ("host", ""),
    "CgroupnsMode": ("host", "private", ""),
    "NetworkMode": ("host", "none", "bridge", "default"),
    "CapAdd": (["ALL"], ["SYS_ADMIN"], ["NET_ADMIN"], ["CHOWN"], ["sys_ptrace"], ["CAP_BPF"]),
    "CapDrop": (["ALL"], ["CHOWN"], []),
    "SecurityOpt": (
        ["seccomp=unconfined"],
        ["apparmor=unconfined"],
        ["no-new-privileges"],
        ["label=disable"],
        ["systempaths=unconfined"],
        ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'],
    ),
    "Binds": (
        ["/:/host"],
        ["/root:/x"],
        ["/proc:/x"],
        ["/sys/fs/cgroup:/x"],
        ["/dev:/x"],
        ["/etc/shadow:/x:ro"],
        ["/var/lib:/x:rshared"],
        ["/usr/share:/x:ro"],
    ),
    "Devices": (
        [{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/k", "CgroupPermissions": "rwm"}],
    ),
    "DeviceCgroupRules": (["a *:* rwm"], ["c 1:1 r"]),
    "MaskedPaths": ([], ["/proc/none"]),
    "ReadonlyPaths": ([], ["/proc/none"]),
    "Sysctls": (
        {"kernel.core_pattern": "|/x"},
        {"net.ipv4.ip_forward": "1"},
        {"kernel.msgmax": "9"},
    ),
    "Ulimits": (
        [{"Name": "nproc", "Soft": -1, "Hard": -1}],
        [{"Name": "nofile", "Soft": 9, "Hard": 9}],
    ),
    "OomScoreAdj": (-1000, 500, 0),
    "OomKillDisable": (True, False),
    "CgroupParent": ("/", "/system.slice", "../..", ""),
    "Runtime": ("crun", "/bin/sh", "runc", ""),
    "GroupAdd": (["0"], ["root"], ["4294967295"], ["33"]),
    "PidsLimit": (-1, 0, 1_000_000, 50),
    "Memory": (0, 1 << 40, 64 << 20),
    "ShmSize": (1 << 40, 1 << 20),
    "ReadonlyRootfs": (True,),
    "Tmpfs": ({"/t": "exec,suid,dev"}, {"/t": "uid=0,mode=4777"}, {"/proc": ""}),
    "Mounts": (
        [
            {
                "Type": "bind",
                "Source": "/",
                "Target": "/host",
                "BindOptions": {"Propagation": "rshared"},
            }
        ],
        [{"Type": "tmpfs", "Target": "/dev"}],
        [{"Type": "npipe", "Source": "/x", "Target": "/y"}],
    ),
    "Annotations": ({"run.oci.keep_original_groups": "1"}, {"org.systemd.property.X": "1"}),
    "Init": (True, False),
}
"""Fields of HostConfig, and what is asked of each; everything in it is the host's."""


def test_no_container_is_more_than_the_table_gives(daemon: Daemon, two_users: People) -> None:
    daemon.import_busybox(IMAGE)
    daemon.bakehouse("image", "publish", IMAGE)
    line = Line(two_users.ada, str(daemon.socket))
    dice = random.Random(SEED)
    started = 0
    try:
        for number in range(SEARCHES):
            names = dice.sample(sorted(FIELDS), dice.randint(1, 3))
            settings = {name: dice.choice(FIELDS[name]) for name in names}
            started += try_out(line, settings, dice.choice(("", "0", "0:0", "33")), number)
    finally:
        line.close()
    assert started > SEARCHES / 10


def has_begun(pid: int) -> None:
    """Wait until the runtime's first process has become the container's: the filter may come last."""
    until = time.monotonic() + BEGIN_SECONDS
    while Path(f"/proc/{pid}/comm").read_text().strip() not in PROGRAMS:
        assert time.monotonic() < until, "the container's own program does not begin"
        time.sleep(0.005)


def try_out(line: Line, settings: Mapping[str, object], user: str, number: int) -> bool:
    """Whether a container of these settings started; what it is then was looked at."""
    body = {"Image": IMAGE, "Cmd": ["sleep", "1000"], "User": user, "HostConfig": settings}
    made = line.ask("POST", "/v1.41/containers/create?name=searched", body)
    if made.status != 201:
        assert made.status in REFUSED, (settings, made)
        return False
    try:
        if line.ask("POST", "/v1.41/containers/searched/start").status != 204:
            return False
        seen = line.ask("GET", "/v1.41/containers/searched/json").json
        assert isinstance(seen, dict)
        pid = seen["State"]["Pid"]
        has_begun(pid)
        found = beyond(pid, line.user)
        assert found == [], f"try {number} of seed {SEED}: {settings}"
        return True
    finally:
        gone = line.ask("DELETE", "/v1.41/containers/searched?force=1")
        assert gone.status == 204, gone

"""What the machine is made of: Debian 12 with systemd, its cloud kernel, and what Bakehouse asks of a host.

Everything that decides the image is here and in the agent's file; its hash names the image, so that another recipe
makes another image. Nothing of Bakehouse is in it.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import attrs

from supervisor.store.bootstrap import DISTRIBUTIONS

SUITE = "bookworm"
PYTHON = "3.11"
DISK_MEGABYTES = 4_096
MEMORY_MEGABYTES = 2_048
PROCESSORS = 2
USERS = ("ada", "bob", "eve")
# What is asked of a host, and what a person at its shell has. The docker command comes from this host.
PACKAGES = (
    *(
        "systemd",
        "systemd-sysv",
        "libpam-systemd",
        "udev",
        "dbus",
        "kmod",
        "linux-image-cloud-amd64",
    ),
    *("initramfs-tools", "python3", "python3-venv", "ca-certificates"),
    *("conmon", "crun", "runc", "golang-github-containers-common"),
    *("libnftables1", "nftables", "iproute2", "mmdebstrap", "tini", "busybox-static"),
    *("procps", "curl", "man-db", "bash-completion", "acl", "attr", "e2fsprogs"),
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/man/*")
# Only what this machine starts from: a smaller one is unpacked sooner.
INITIAL_MODULES = ("virtio_pci", "virtio_blk", "ext4")
# What begins on its own would disturb what is measured.
MASKED = (
    *("apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "man-db.timer"),
    *("e2scrub_all.timer", "fstrim.timer", "systemd-tmpfiles-clean.timer"),
    *("getty@tty1.service", "serial-getty@ttyS0.service"),
)
KERNEL_LINE = (
    "console=ttyS0 root=/dev/vda rw psi=1 edd=off quiet panic=-1 mitigations=off audit=0 "
    "random.trust_cpu=1 nokaslr systemd.show_status=0"
)
AGENT = Path(__file__).with_name("agent.py")
AGENT_UNIT = """\
[Unit]
Description=Runs what the tests ask for
After=multi-user.target

[Service]
ExecStart=/usr/bin/python3 -u /usr/local/lib/tests-agent.py
TasksMax=infinity
OOMScoreAdjust=-1000

[Install]
WantedBy=multi-user.target
"""
NETWORK = """\
[Match]
Driver=virtio_net

[Network]
Address=10.0.2.15/24
Gateway=10.0.2.2
LinkLocalAddressing=no
IPv6AcceptRA=no
"""


@attrs.frozen
class Recipe:
    """How one image is made, on this host.

    Attributes:
        docker: The docker command that is put into it.
        plugins: Docker's plug-ins: Compose, where the host has it.
    """

    docker: Path
    plugins: tuple[Path, ...]

    @property
    def key(self) -> str:
        """Names the image: another recipe, another key."""
        parts = [
            *self.command("TREE"),
            *(word for file in self.files().items() for word in file),
            *(str(path.stat().st_size) for path in (self.docker, *self.plugins)),
            str(DISK_MEGABYTES),
        ]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]

    def files(self) -> dict[str, str]:
        """The files that are written into it."""
        return {
            "etc/hostname": "bakery\n",
            "etc/hosts": "127.0.0.1 localhost bakery\n",
            "etc/fstab": "",
            "etc/resolv.conf": "nameserver 10.0.2.3\n",
            "etc/systemd/network/wired.network": NETWORK,
            "etc/systemd/system/tests-agent.service": AGENT_UNIT,
            "usr/local/lib/tests-agent.py": AGENT.read_text(),
        }

    def command(self, tree: str) -> list[str]:
        """What makes its root directory ``tree`` from packages."""
        hook = "etc/initramfs-tools/hooks/machine"
        before = [
            'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/etc/initramfs-tools/hooks"',
            'echo MODULES=list >"$1/etc/initramfs-tools/conf.d/machine"',
            f"printf '%s\\n' '#!/bin/sh' '[ \"$1\" = prereqs ] && exit' "
            f"'. /usr/share/initramfs-tools/hook-functions' "
            f"'manual_add_modules {' '.join(INITIAL_MODULES)}' >\"$1/{hook}\"",
            f'chmod 755 "$1/{hook}"',
        ]
        after = [
            *(f'chroot "$1" useradd --create-home --shell /bin/bash {user}' for user in USERS),
            f'chroot "$1" systemctl mask {" ".join(MASKED)}',
            'chroot "$1" systemctl enable systemd-networkd.service',
        ]
        distribution = DISTRIBUTIONS["debian"]
        return [
            # In namespaces of its own, so that nothing of it stays when it is cut off.
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
            *("mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory"),
            f"--keyring={distribution.keyring}",
            "--dpkgopt=force-unsafe-io",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            f"--include={','.join(PACKAGES)}",
            *(f"--essential-hook={line}" for line in before),
            *(f"--customize-hook={line}" for line in after),
            *(SUITE, tree),
        ]

    def complete(self, tree: Path) -> None:
        """Put the files, the agent and the docker command into ``tree``."""
        for name, text in self.files().items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        wanted = tree / "etc/systemd/system/multi-user.target.wants/tests-agent.service"
        wanted.symlink_to("/etc/systemd/system/tests-agent.service")
        shutil.copy(self.docker, tree / "usr/bin/docker")
        for plugin in self.plugins:
            place = tree / "usr/libexec/docker/cli-plugins" / plugin.name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(plugin, place)


def recipe(checkout: Path) -> Recipe:
    """The recipe with what this host has."""
    found = shutil.which("docker") or str(checkout / "var/tools/usr/bin/docker")
    plugins = (
        directory / "docker-compose"
        for directory in (
            checkout / "var/tools/usr/libexec/docker/cli-plugins",
            Path("/usr/libexec/docker/cli-plugins"),
        )
    )
    return Recipe(Path(found).resolve(), tuple(path for path in plugins if path.exists())[:1])


def missing(checkout: Path) -> str:
    """Why this host cannot run the machine; empty when it can."""
    if os.uname().machine != "x86_64" or os.getuid() != 0:
        return "needs root and an x86_64 host"
    for program, package in (
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("qemu-img", "qemu-utils"),
        ("mmdebstrap", "mmdebstrap"),
        ("mke2fs", "e2fsprogs"),
        ("setpriv", "util-linux"),
    ):
        if not shutil.which(program):
            return f"needs {program} (apt install {package}, or deploy/setup --vm)"
    if not recipe(checkout).docker.exists():
        return "needs the docker command"
    if not DISTRIBUTIONS["debian"].keyring.exists():
        return "needs the keys of Debian's archive (apt install debian-archive-keyring)"
    return ""


def run(command: list[str], log: Path) -> None:
    """Run a command of the making, whose words go to ``log``.

    Raises:
        RuntimeError: It failed; says with what, and where all of it is.
    """
    with log.open("ab") as output:
        output.write(f"$ {shlex.join(command)}\n".encode())
        output.flush()
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RuntimeError(
            f"cannot run {command[0]}: it ended with {done.returncode}; all of it is in {log}:\n{end}"
        )

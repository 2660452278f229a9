"""A real daemon in a process of its own, with roots of its own, for tests that speak to it as anybody would."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import docker

from supervisor.config import Config
from tests.support.accounts import User, credentials
from tests.support.zygote import Forked, Zygote

READY_SECONDS = 60.0
STOP_SECONDS = 60.0
LOG_TAIL_CHARACTERS = 8_000
BUSYBOX = Path("/bin/busybox")
REPOSITORY = Path(__file__).parents[2]


@attrs.define(eq=False)
class Daemon:
    """One ``bakehoused`` and where it lives.

    Attributes:
        root: Everything of it is below; short, because a socket's path is.
        user_group: Whose members may use it.
        settings: Further TOML for its settings.
        before: What starts it: a command that ends in being it.
        variables: What its environment has besides the test's.
        zygote: Forks it, for those who start it often.
        process: It, while it runs.
    """

    root: Path
    user_group: str
    settings: str = ""
    before: tuple[str, ...] = ()
    variables: Mapping[str, str] = attrs.field(factory=dict)
    zygote: Zygote | None = None
    process: subprocess.Popen[bytes] | Forked | None = None

    @property
    def data_root(self) -> Path:
        return self.root / "data"

    @property
    def run_root(self) -> Path:
        return self.root / "run"

    @property
    def socket(self) -> Path:
        return self.root / "s"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def config(self) -> Config:
        """Its roots as its settings say them: for the names it gives to cgroups, links and tables."""
        return Config(data_root=self.data_root, run_root=self.run_root, socket=self.socket)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)
        settings = self.root / "config.toml"
        settings.write_text(f'[access]\nuser_group = "{self.user_group}"\n{self.settings}\n')
        told = {
            "--config": settings,
            "--data-root": self.data_root,
            "--run-root": self.run_root,
            "--socket": self.socket,
        }
        words = [str(word) for pair in told.items() for word in pair]
        variables = {**os.environ, **self.variables}
        if self.zygote is not None:
            self.process = self.zygote.fork(words, variables, self.log)
        else:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [*self.before, sys.executable, "-m", "supervisor", *words],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=REPOSITORY,
                    env=variables,
                    start_new_session=True,
                )
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Wait until it answers; a daemon that ends instead says why."""
        until = time.monotonic() + READY_SECONDS
        while not self.answers():
            ended = self.crashed()
            if ended or time.monotonic() > until:
                message = (
                    f"the daemon {'ended' if ended else 'does not answer'}:\n{self.log_tail()}"
                )
                raise AssertionError(message)
            time.sleep(0.02)

    def log_tail(self) -> str:
        """The end of what it said; of a crash, the innermost traceback without the frames of its nurseries."""
        log = self.log.read_text(errors="replace") if self.log.exists() else ""
        start = max(log.rfind("Traceback (most recent"), len(log) - LOG_TAIL_CHARACTERS, 0)
        return "\n".join(line.lstrip(" |+-") for line in log[start:].splitlines())

    def crashed(self, within_seconds: float = 0) -> bool:
        """Whether it ends although nobody told it to."""
        if self.process is None:
            return False
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(within_seconds)
        return self.process.returncode is not None

    def answers(self) -> bool:
        """Whether it answers a ping now."""
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            client.connect(str(self.socket))
            client.sendall(b"GET /_ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return client.recv(64).startswith(b"HTTP/1.1 200")
        return False

    def kill(self) -> None:
        """As a crash would: SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> int:
        """As an administrator would: SIGTERM; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(STOP_SECONDS)
        finally:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> docker.DockerClient:
        """docker-py at its socket; the caller closes it."""
        return docker.DockerClient(base_url=f"unix://{self.socket}", version="auto", timeout=60)

    def run(
        self,
        argv: Sequence[str],
        user: User | None = None,
        *,
        check: bool = True,
        input_: bytes = b"",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that finds this daemon, as root or as ``user``; its output as text."""
        done = subprocess.run(
            argv,
            env=self.environment(user),
            input=input_,
            capture_output=True,
            check=False,
            timeout=120,
            cwd=user.home if user else "/",
            **credentials(user),
        )
        result = subprocess.CompletedProcess(
            argv,
            done.returncode,
            done.stdout.decode(errors="replace"),
            done.stderr.decode(errors="replace"),
        )
        if check and result.returncode:
            message = f"{' '.join(map(str, argv))} ended with {result.returncode}:\n{result.stdout}{result.stderr}"
            if self.crashed(within_seconds=2):
                message += f"\nand so did the daemon:\n{self.log_tail()}"
            raise AssertionError(message)
        return result

    def docker(
        self, *arguments: str, user: User | None = None, check: bool = True, input_: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """The real docker command, classic builder."""
        return self.run(["docker", *arguments], user, check=check, input_=input_)

    def bakehouse(
        self, *arguments: str, user: User | None = None, check: bool = True, input_: bytes = b""
    ) -> subprocess.CompletedProcess[str]:
        """Our own command."""
        return self.run(
            [f"{sys.prefix}/bin/bakehouse", *arguments], user, check=check, input_=input_
        )

    def environment(self, user: User | None = None) -> Mapping[str, str]:
        """What a shell of ``user`` would have, with this daemon in it."""
        return {
            **os.environ,
            "HOME": str(user.home if user else self.root),
            "USER": user.name if user else "root",
            "DOCKER_HOST": f"unix://{self.socket}",
            "BAKEHOUSE_SOCKET": str(self.socket),
            "DOCKER_BUILDKIT": "0",
        }

    def import_busybox(self, name: str = "busybox:latest", user: User | None = None) -> None:
        """Give ``user`` a small image with a shell."""
        self.docker("import", "-", name, user=user, input_=busybox_tar())

    def close(self) -> list[str]:
        """Remove its containers, stop it, and clear away all of it; what it left although it was stopped.

        A daemon that crashed has failed, whatever the tests say.
        """
        assert not self.crashed(), f"the daemon crashed:\n{self.log_tail()}"
        if self.process is not None:
            with contextlib.suppress(Exception), contextlib.closing(self.client()) as client:
                for container in client.api.containers(all=True, quiet=True):
                    client.api.remove_container(container["Id"], force=True, v=True)
            code = self.stop()
            assert code == 0, f"the daemon ended with {code}:\n{self.log_tail()}"
        left = sorted(self.left())
        self.clear()
        return left

    def left(self) -> Iterator[str]:
        """What a stopped daemon without containers must not leave on the host."""
        yield from (f"mount {point}" for point in _mount_points_below(self.root))
        yield from (f"cgroup {path}" for path in self._cgroups() if _has_processes(path))
        yield from (f"link {name}" for name in self._links())

    def _links(self) -> list[str]:
        return [
            name for name in os.listdir("/sys/class/net") if f"bh{self.config.instance_tag}" in name
        ]

    def clear(self) -> None:
        """Make as if it had never been, whatever state it is in."""
        if self.process is not None:
            self.kill()
        for path in self._cgroups():
            _kill_all(path)
        for name in self._links():
            subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
        for family in ("inet", "ip", "ip6", "bridge", "netdev"):
            with contextlib.suppress(OSError):
                table = ["nft", "delete", "table", family, self.config.instance]
                subprocess.run(table, capture_output=True, check=False)
        for point in _mount_points_below(self.root):
            subprocess.run(["umount", "-l", point], capture_output=True, check=False)
        for path in self._cgroups():
            _remove_cgroup(path)
        shutil.rmtree(self.root, ignore_errors=True)

    def _cgroups(self) -> list[Path]:
        """Its cgroups, the deepest first."""
        found = [
            Path(path)
            for path, _, _ in os.walk("/sys/fs/cgroup")
            if self.config.instance in Path(path).parts
        ]
        return sorted(found, key=lambda path: len(path.parts), reverse=True)


def new_daemon(user_group: str, settings: str = "") -> Daemon:
    """A daemon with roots of its own, not started."""
    return Daemon(Path("/var/tmp") / f"bh-{uuid.uuid4().hex[:8]}", user_group, settings)


def busybox_tar() -> bytes:
    """A root file system with busybox, its commands, and the few files that programs look for."""
    applets = subprocess.run(
        [BUSYBOX, "--list"], capture_output=True, check=True, text=True
    ).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("bin", "etc", "tmp", "root", "home"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            tar.addfile(directory)
        program = tarfile.TarInfo("bin/busybox")
        program.size, program.mode = BUSYBOX.stat().st_size, 0o755
        with BUSYBOX.open("rb") as source:
            tar.addfile(program, source)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
        _add_text(tar, "etc/passwd", "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/:/bin/sh\n")
        _add_text(tar, "etc/group", "root:x:0:\nwww:x:33:\n")
    return buffer.getvalue()


def _add_text(tar: tarfile.TarFile, name: str, text: str) -> None:
    file = tarfile.TarInfo(name)
    file.size, file.mode = len(text), 0o644
    tar.addfile(file, io.BytesIO(text.encode()))


def _has_processes(cgroup: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool((cgroup / "cgroup.procs").read_text().strip())
    return False


def _kill_all(cgroup: Path) -> None:
    with contextlib.suppress(OSError):
        for pid in (cgroup / "cgroup.procs").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


def _remove_cgroup(path: Path) -> None:
    """Its processes were killed, and may need a moment to go."""
    for _ in range(50):
        try:
            path.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return


def _mount_points_below(root: Path) -> list[str]:
    points = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return [point for point in reversed(points) if point.startswith(f"{root}/")]

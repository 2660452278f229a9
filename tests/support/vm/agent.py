"""Lives in the virtual machine: takes commands from a virtio port, runs them, and sends back what they say.

One JSON object a line each way; bytes are base64. It is copied into the image and uses nothing but the standard library.

From the host:
    wake: set the clock to ``now`` and mount the disk that holds the checkout.
    run: start ``shell`` as ``user`` with ``variables`` and ``input``, known as ``id``.
    signal: send ``signal`` to the process group of ``id``.

To the host:
    up: the machine has booted; ``boot`` is the kernel's name for this boot.
    awake: what wake asked for is done.
    output: ``id`` said ``data`` on ``stream``.
    end: ``id`` ended with ``code``, negative for a signal.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import pwd
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Iterator

PORT = "/dev/virtio-ports/tests.agent"
DISK = "/dev/vdb"
MOUNT_POINT = "/srv"
# How long what a command left running in the background may hold its output open.
LINGER_SECONDS = 0.3


class Agent:
    """The port, the commands that run, and the turn to write."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.turn = threading.Lock()
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def send(self, **message: object) -> None:
        """Write one message whole."""
        data = json.dumps(message).encode() + b"\n"
        with self.turn:
            while data:
                try:
                    data = data[os.write(self.port, data) :]
                except OSError:
                    # Nobody is at the other end just now: it is being connected.
                    time.sleep(0.05)

    def lines(self) -> Iterator[bytes]:
        """What the host sends, for ever."""
        rest = b""
        while True:
            data = os.read(self.port, 1 << 16)
            if not data:
                time.sleep(0.05)
            *whole, rest = (rest + data).split(b"\n")
            yield from whole

    def serve(self) -> None:
        """Do what is asked, each command in a thread of its own."""
        with open("/proc/sys/kernel/random/boot_id") as file:
            self.send(type="up", boot=file.read().strip())
        for line in self.lines():
            message = json.loads(line)
            if message["type"] == "wake":
                self.send(type="awake", error=wake(message["now"]))
            elif message["type"] == "run":
                threading.Thread(target=self.run, args=(message,), daemon=True).start()
            elif process := self.running.get(message["id"]):
                signal_group(process, message["signal"])

    def run(self, message: dict[str, object]) -> None:
        """Run one command to its end."""
        number = int(str(message["id"]))
        try:
            process = start(message)
        except (OSError, KeyError, subprocess.SubprocessError) as error:
            self.send(type="output", id=number, stream="stderr", data=encode(str(error).encode()))
            self.send(type="end", id=number, code=127)
            return
        self.running[number] = process
        given = base64.b64decode(str(message["input"]))
        threading.Thread(target=feed, args=(process, given), daemon=True).start()
        self.relay(number, process)
        code = process.wait()
        del self.running[number]
        self.send(type="end", id=number, code=code)

    def relay(self, number: int, process: subprocess.Popen[bytes]) -> None:
        """Send on what ``process`` says until it has ended and its output is drained."""
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, "stdout")
            selector.register(process.stderr, selectors.EVENT_READ, "stderr")
            ending = os.pidfd_open(process.pid)
            selector.register(ending, selectors.EVENT_READ, "end")
            ended = False
            while len(selector.get_map()) > (0 if ended else 1) or not ended:
                ready = selector.select(LINGER_SECONDS if ended else None)
                if ended and not ready:
                    break
                for key, _ in ready:
                    if key.data == "end":
                        ended = True
                        selector.unregister(ending)
                    elif data := os.read(key.fd, 1 << 16):
                        self.send(type="output", id=number, stream=key.data, data=encode(data))
                    else:
                        selector.unregister(key.fileobj)
            os.close(ending)
        process.stdout.close()
        process.stderr.close()


def encode(data: bytes) -> str:
    """As JSON carries it."""
    return base64.b64encode(data).decode()


def wake(now: float) -> str:
    """Set the clock and mount the checkout; why it could not, or nothing."""
    time.clock_settime(time.CLOCK_REALTIME, now)
    if os.path.ismount(MOUNT_POINT):
        return ""
    subprocess.run(["blockdev", "--flushbufs", DISK], check=False)
    done = subprocess.run(["mount", DISK, MOUNT_POINT], capture_output=True, check=False)
    return done.stderr.decode(errors="replace")


def start(message: dict[str, object]) -> subprocess.Popen[bytes]:
    """Start the command as the user, with the user's own groups, in a session of its own."""
    account = pwd.getpwnam(str(message["user"]))
    given = message["variables"]
    assert isinstance(given, dict)
    variables = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "HOME": account.pw_dir,
        "USER": account.pw_name,
        **given,
    }
    return subprocess.Popen(
        ["/bin/bash", "-c", str(message["shell"])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=account.pw_dir,
        env=variables,
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=os.getgrouplist(account.pw_name, account.pw_gid),
        start_new_session=True,
    )


def feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Give the command its input, and its end."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(data)
        process.stdin.close()


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the command and what it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def main() -> None:
    """Open the port, which udev may not have named yet, and serve."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    while not os.path.exists(PORT):
        time.sleep(0.05)
    Agent(os.open(PORT, os.O_RDWR)).serve()


if __name__ == "__main__":
    main()

"""The docker command on a real terminal: its size, Ctrl-C, the detach keys, and coming back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing

import pytest

from tests.support.daemon import Daemon
from tests.support.terminals import Terminal, terminal

pytestmark = [pytest.mark.root, pytest.mark.slow]

CTRL_C, CTRL_D, CTRL_P, CTRL_Q = "\x03", "\x04", "\x10", "\x11"
PROMPT = "# "
SETTLE_SECONDS = 0.3

Open = Callable[..., AbstractContextManager[Terminal]]


@pytest.fixture
def docker(daemon: Daemon) -> Iterator[Open]:
    """The docker command on a terminal."""
    if not daemon.docker("images", "--quiet", "busybox").stdout:
        daemon.import_busybox()

    def open_docker(
        *words: str, rows: int = 24, columns: int = 80
    ) -> AbstractContextManager[Terminal]:
        return terminal(["docker", *words], daemon.environment(), rows, columns)

    yield open_docker
    with closing(daemon.client()) as client:
        for container in client.containers.list(all=True):
            container.remove(force=True)


def status(daemon: Daemon) -> str:
    return daemon.docker("inspect", "--format", "{{.State.Status}}", "web").stdout.strip()


def test_size_follows_the_window(docker: Open) -> None:
    with docker("run", "--rm", "-it", "busybox", "sh", rows=33, columns=101) as shell:
        shell.expect(PROMPT)
        shell.type("stty size\n")
        shell.expect("33 101")
        shell.expect(PROMPT)
        shell.type("trap 'echo re''sized' WINCH; while :; do sleep 0.05; done\n")
        time.sleep(SETTLE_SECONDS)
        shell.resize(40, 120)
        shell.expect("resized")
        shell.type(CTRL_C)
        shell.expect(PROMPT)
        shell.type("stty size; exit 5\n")
        shell.expect("40 120")
        assert shell.wait() == 5


def test_ctrl_c_reaches_what_runs(docker: Open) -> None:
    with docker("run", "--rm", "-it", "busybox", "sh") as shell:
        shell.expect(PROMPT)
        shell.type("sleep 100\n")
        time.sleep(SETTLE_SECONDS)
        shell.type(CTRL_C)
        shell.expect(PROMPT)
        shell.type("echo =$?=\n")
        shell.expect("=130=")
        shell.type(CTRL_D)
        assert shell.wait() == 0


def test_ctrl_c_without_a_terminal_of_its_own_is_a_signal(docker: Open) -> None:
    script = "trap 'echo got it; exit 9' INT; echo ready; while :; do sleep 0.05; done"
    with docker("run", "--rm", "-i", "busybox", "sh", "-c", script) as run:
        run.expect("ready")
        run.type(CTRL_C)
        run.expect("got it")
        assert run.wait() == 9


def test_detach_and_come_back_twice(docker: Open, daemon: Daemon) -> None:
    with docker("run", "-it", "--name", "web", "busybox", "sh") as shell:
        shell.expect(PROMPT)
        shell.type(CTRL_P + CTRL_Q)
        assert shell.wait() == 0
    assert status(daemon) == "running"
    for rows in (50, 51):
        with docker("attach", "web", rows=rows, columns=60) as again:
            time.sleep(SETTLE_SECONDS)
            # The command makes the window a little larger first, so that full-screen programs draw anew.
            again.type(f"until stty size | grep '{rows} 60'; do sleep 0.05; done; echo $((40+2))\n")
            again.expect("\n42\r")
            again.type(CTRL_P + CTRL_Q)
            again.expect("read escape sequence")
            again.wait()
    with docker("attach", "--detach-keys", "ctrl-a,x", "web") as other:
        time.sleep(SETTLE_SECONDS)
        other.type(CTRL_P + CTRL_Q + "\x01x")
        other.expect("read escape sequence")
        other.wait()
    with docker("attach", "web") as last:
        time.sleep(SETTLE_SECONDS)
        last.type(CTRL_C)  # Ctrl-P, not being the detach key, has called back a line
        last.expect(PROMPT)
        last.type("exit 3\n")
        assert last.wait() == 3


def test_detach_keys_that_the_client_passes_on(docker: Open, daemon: Daemon) -> None:
    """The docker command looks for them itself; other clients leave it to the daemon."""
    with closing(daemon.client()) as client:
        container = client.containers.run("busybox", "sh", tty=True, stdin_open=True, detach=True)
        asked = {"stdin": 1, "stdout": 1, "stream": 1, "detachKeys": "ctrl-a,x"}
        attached = container.attach_socket(params=asked)
        attached._sock.settimeout(10)
        attached._sock.sendall(b"echo sum $((40+2))\n")
        seen = b""
        while b"sum 42" not in seen:
            seen += attached._sock.recv(1_000)
        attached._sock.sendall(b"\x01x")
        while attached._sock.recv(1_000):
            pass
        attached._sock.close()
        attached.close()
        container.reload()
        assert container.status == "running"
    told = daemon.bakehouse("events", "--from", "oldest", "--type", "container.detach", "--json")
    assert container.id in told.stdout


def test_two_at_one_terminal(docker: Open) -> None:
    with docker("run", "-it", "--name", "web", "busybox", "sh") as first:
        first.expect(PROMPT)
        with docker("attach", "web") as second:
            time.sleep(SETTLE_SECONDS)
            first.type("echo one $((1+1))\n")
            first.expect("one 2")
            second.expect("one 2")
            second.type("echo two $((2+2)); exit 6\n")
            first.expect("two 4")
            assert (first.wait(), second.wait()) == (6, 6)


def test_exec_on_a_terminal(docker: Open, daemon: Daemon) -> None:
    daemon.docker("run", "-d", "--name", "web", "busybox", "sleep", "100")
    with docker("exec", "-it", "web", "sh", rows=33, columns=44) as shell:
        shell.expect(PROMPT)
        shell.type("stty size; tty; echo $TERM\n")
        for words in ("33 44", "/dev/pts/", "xterm", PROMPT):
            shell.expect(words)
        shell.resize(20, 30)
        time.sleep(SETTLE_SECONDS)
        shell.type("stty size\n")
        shell.expect("20 30")
        shell.type("exit 4\n")
        assert shell.wait() == 4
    with docker("exec", "-it", "web", "nosuch") as missing:
        missing.expect("executable file not found in $PATH")
        assert missing.wait() == 127
    with docker("exec", "-it", "web", "sh") as left:
        left.expect(PROMPT)
        left.type(CTRL_P + CTRL_Q)
        left.expect("read escape sequence")
        left.wait()
    assert " sh\n" in daemon.docker("top", "web").stdout, "it goes on without its client"


def test_all_output_arrives(docker: Open) -> None:
    count = "i=0; while [ $i -lt 20000 ]; do echo line$i; i=$((i+1)); done"
    with docker("run", "--rm", "-it", "busybox", "sh", "-c", count) as run:
        assert run.wait() == 0
        assert run.seen.split() == [f"line{number}" for number in range(20_000)]


def test_a_closed_window_leaves_the_container_alone(docker: Open, daemon: Daemon) -> None:
    with docker("run", "-it", "--name", "web", "busybox", "sh") as shell:
        shell.expect(PROMPT)
    assert status(daemon) == "running"
    with docker("attach", "web") as again:
        time.sleep(SETTLE_SECONDS)
        again.type("\nexit 2\n")
        assert again.wait() == 2
    with docker("start", "--attach", "--interactive", "web") as anew:
        anew.expect(PROMPT)
        daemon.docker("kill", "web")
        assert anew.wait() == 137

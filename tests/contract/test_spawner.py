"""Starting programs through the spawner: what a child gets, what it does not, and what is left of it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from supervisor.errors import Unavailable
from supervisor.linux.mount_namespace import seen_in_mounts
from supervisor.linux.mounts import mounted, release_mounts
from supervisor.linux.spawner import (
    Command,
    Credentials,
    Spawner,
    SpawnerGone,
    open_spawner,
    start_spawner,
)
from tests.support.spawners import spawner_in

pytestmark = pytest.mark.root

ENV = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
SLEEP = Command(("sleep", "1000"), ENV)


def sh(script: str) -> tuple[str, ...]:
    return ("sh", "-c", script)


def alive(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


@pytest.fixture
async def spawner(tmp_path: Path) -> AsyncIterator[Spawner]:
    async with spawner_in(tmp_path / "run") as one:
        yield one


async def test_output_and_exit_code(spawner: Spawner) -> None:
    done = await spawner.run(Command(sh("echo out; echo err >&2; exit 3"), ENV))
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"err\n")


async def test_input(spawner: Spawner) -> None:
    content = os.urandom(300_000)
    assert (await spawner.run(Command(("cat",), ENV), input=content)).stdout == content


async def test_a_command_need_not_read_its_input(spawner: Spawner) -> None:
    assert (await spawner.run(Command(("true",), ENV), input=bytes(1 << 20))).returncode == 0


async def test_output_is_bounded(spawner: Spawner) -> None:
    done = await spawner.run(Command(sh("yes | head -c 5000000"), ENV), output_bytes_max=1000)
    assert len(done.stdout) == 1000
    assert done.truncated


async def test_a_grandchild_that_keeps_the_pipe_does_not_hold_us_up(spawner: Spawner) -> None:
    with trio.fail_after(20):
        done = await spawner.run(Command(sh("sleep 1000 & echo $!"), ENV))
    os.kill(int(done.stdout), signal.SIGKILL)


async def test_what_cannot_start_says_why(spawner: Spawner) -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program"):
        await spawner.spawn(Command(("no-such-program",), ENV))
    with pytest.raises(NotADirectoryError):
        await spawner.spawn(Command(("true",), ENV, cwd="/etc/passwd"))
    with pytest.raises(OSError, match="null byte"):
        await spawner.spawn(Command(("true", "a\0b"), ENV))
    with pytest.raises(PermissionError):
        await spawner.spawn(Command(("/etc/passwd",), ENV))


async def test_a_signal_is_a_negative_code_and_waiting_twice_is_fine(spawner: Spawner) -> None:
    async with await spawner.spawn(SLEEP) as process:
        process.kill(signal.SIGTERM)
        assert await process.wait() == -signal.SIGTERM
        assert await process.wait() == -signal.SIGTERM
        process.kill()


async def test_leaving_the_context_ends_it(spawner: Spawner) -> None:
    async with await spawner.spawn(SLEEP) as process:
        assert alive(process.pid)
    assert not alive(process.pid)


async def test_a_child_has_exactly_its_fds(spawner: Spawner) -> None:
    ends = [os.memfd_create(f"bakehouse-{number}") for number in range(4)]
    # Numbers that collide with each other and with the spawner's own.
    keep = {3: ends[0], 4: ends[1], 9: ends[2], 255: ends[3]}
    look = ("find", "/proc/self/fd/", "-type", "l", "-printf", "%f %l\\n")
    done = await spawner.run(Command(look, ENV, keep_fds=keep))
    for fd in ends:
        os.close(fd)
    shown = dict(line.split(" ", 1) for line in done.stdout.decode().splitlines())
    assert shown.pop("0") == "/dev/null"
    assert shown.pop("1").startswith("pipe:")
    assert shown.pop("2").startswith("pipe:")
    # What find itself has open.
    shown = {fd: what for fd, what in shown.items() if what != "/" and "/proc/" not in what}
    assert shown == {
        str(target): f"/memfd:bakehouse-{number} (deleted)"
        for number, target in enumerate((3, 4, 9, 255))
    }


async def test_environment_umask_signals_and_session_are_fresh(spawner: Spawner) -> None:
    done = await spawner.run(Command(("env",), ENV | {"A": "b\udcff"}))
    assert dict(line.split(b"=", 1) for line in done.stdout.splitlines()) == {
        b"PATH": ENV["PATH"].encode(),
        b"A": b"b\xff",
    }
    status = (await spawner.run(Command(("cat", "/proc/self/status"), ENV))).stdout.decode()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert fields["Umask"] == "0022"
    for name in ("SigBlk", "SigIgn", "SigCgt"):
        assert int(fields[name], 16) == 0, name
    async with await spawner.spawn(SLEEP) as process:
        assert os.getsid(process.pid) == process.pid


async def test_cgroups_are_entered_by_the_child(spawner: Spawner, tmp_path: Path) -> None:
    entry = tmp_path / "cgroup.procs"
    fd = os.open(entry, os.O_WRONLY | os.O_CREAT)
    await spawner.run(Command(("true",), ENV, cgroup_fds=(fd,)))
    os.close(fd)
    assert entry.read_text() == "0"


async def test_an_identity_is_taken_whole(spawner: Spawner) -> None:
    who = Credentials(54_321, 54_322, (54_323, 54_324))
    done = await spawner.run(Command(("cat", "/proc/self/status"), ENV, identity=who))
    fields = dict(
        line.split(":\t", 1) for line in done.stdout.decode().splitlines() if ":\t" in line
    )
    assert fields["Uid"].split() == ["54321"] * 4
    assert fields["Gid"].split() == ["54322"] * 4
    assert fields["Groups"].split() == ["54323", "54324"]
    for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
        assert int(fields[name], 16) == 0, name


async def test_mounts_are_ours_or_the_hosts(spawner: Spawner) -> None:
    look = ("readlink", "/proc/self/ns/mnt")
    host = os.readlink("/proc/self/ns/mnt").encode() + b"\n"
    assert (await spawner.run(Command(look, ENV))).stdout != host
    assert (await spawner.run(Command(look, ENV, host_mounts=True))).stdout == host


async def test_a_large_command_arrives(spawner: Spawner) -> None:
    many = ("x" * 100_000,) * 10
    done = await spawner.run(Command((*sh("echo $# ${#1}"), "sh", *many), ENV))
    assert done.stdout == b"10 100000\n"


async def test_a_hundred_at_once(spawner: Spawner) -> None:
    codes: list[int] = []

    async def one(code: int) -> None:
        codes.append((await spawner.run(Command(sh(f"exit {code}"), ENV))).returncode)

    async with trio.open_nursery() as nursery:
        for code in range(100):
            nursery.start_soon(one, code)
    assert sorted(codes) == list(range(100))


async def test_cancelled_anywhere_nothing_runs_on(spawner: Spawner, tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    mark = str(tmp_path / "mark")
    for step in range(30):
        with trio.move_on_after(step * 0.0002):
            await spawner.run(Command(("sleep", "1000"), ENV | {"MARK": mark}))
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes()
            except OSError:
                continue
            assert mark.encode() not in environment
    assert set(os.listdir("/proc/self/fd")) == before
    assert (await spawner.run(Command(("true",), ENV))).returncode == 0


async def test_those_that_should_die_with_the_daemon_do(tmp_path: Path) -> None:
    run_root = tmp_path / "run"
    async with spawner_in(run_root) as spawner:
        stays = await spawner.spawn(SLEEP)
        goes = await spawner.spawn(Command(SLEEP.argv, ENV, dies_with_daemon=True))
        dropped = await spawner.spawn(
            Command(SLEEP.argv, ENV, dies_with_daemon=True, identity=Credentials(54_321, 54_321))
        )
        pidfds = [os.dup(process.pidfd) for process in (goes, dropped)]
        for process in (goes, dropped):
            os.close(process.pidfd)
    with trio.fail_after(20):
        for fd in pidfds:
            await trio.lowlevel.wait_readable(fd)
            os.close(fd)
    assert alive(stays.pid)
    signal.pidfd_send_signal(stays.pidfd, signal.SIGKILL)
    os.close(stays.pidfd)


async def test_when_the_helper_ends_everything_does(tmp_path: Path) -> None:
    run_root = tmp_path / "run"
    run_root.mkdir()
    told: list[str] = []
    seed = start_spawner(run_root)
    with pytest.raises(BaseExceptionGroup) as caught:  # noqa: PT012
        async with open_spawner(seed) as spawner:
            process = await spawner.spawn(Command(SLEEP.argv, ENV, dies_with_daemon=True))
            seed.helper.kill()
            try:
                with trio.CancelScope(shield=True):
                    await process.wait()
            except SpawnerGone:
                told.append("waiter")
            try:
                with trio.CancelScope(shield=True):
                    await spawner.run(Command(("true",), ENV))
            except SpawnerGone:
                told.append("asker")
            await trio.sleep_forever()
    assert isinstance(caught.value.exceptions[0], SpawnerGone)
    assert told == ["waiter", "asker"]
    os.close(process.pidfd)
    async with spawner_in(run_root):
        pass  # takes the pin down


async def test_the_next_daemon_enters_the_same_mounts(tmp_path: Path) -> None:
    run_root, place = tmp_path / "run", tmp_path / "run" / "place"
    place.mkdir(parents=True)
    async with open_spawner(start_spawner(run_root)) as first:
        await first.run(Command(("mount", "-t", "tmpfs", "none", str(place)), ENV))
    async with open_spawner(start_spawner(run_root)) as second:
        assert place in await mounted(second, run_root)
        assert str(place) not in Path("/proc/self/mountinfo").read_text()
        assert (run_root / "pins" / "mnt").exists()
        await release_mounts(second)
        await release_mounts(second)
        assert await mounted(second, run_root) == []
    assert str(run_root) not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.skipif(
    not Path("/sys/fs/cgroup/unified/cgroup.procs").exists(), reason="not a hybrid cgroup host"
)
async def test_a_hybrid_host_looks_legacy_inside_and_only_there(
    spawner: Spawner, tmp_path: Path
) -> None:
    kind = ("stat", "-f", "-c", "%T", "/sys/fs/cgroup/unified")
    assert (await spawner.run(Command(kind, ENV))).stdout == b"tmpfs\n"
    assert (await spawner.run(Command(kind, ENV, host_mounts=True))).stdout == b"cgroup2fs\n"
    kept = seen_in_mounts(tmp_path / "run", "/sys/fs/cgroup/unified/cgroup.procs")
    assert (await spawner.run(Command(("test", "-e", kept), ENV))).returncode == 0


def test_without_root_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises((Unavailable, NotADirectoryError), match="mount namespace"):
        start_spawner(tmp_path / "file" / "run")


@pytest.mark.slow
async def test_starting_is_quick(spawner: Spawner) -> None:
    took = []
    for _ in range(30):
        begun = time.perf_counter()
        async with await spawner.spawn(Command(("true",), ENV)) as process:
            took.append(time.perf_counter() - begun)
            await process.wait()
    # 2 ms on a quiet machine; a bound that only a mistake breaks.
    assert sorted(took)[15] < 0.05

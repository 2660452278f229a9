"""crun or runc: the lower half, called for single verbs.

The daemon's own cgroup tree is used with either: crun with its cgroup manager off, runc with paths we have made. Which
one is taken is found out at start by running a real container with each, in the order of the settings.

Both copy themselves at every start to a file that nobody can write, so that a container that gets hold of
``/proc/<pid>/exe`` of a runtime entering it cannot change the program (CVE-2019-5736). They are run from such a copy to
begin with, a sealed memfd of ours, and then see that there is nothing to do: half of the time of a ``crun exec``.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import orjson
import trio
from attrs import evolve, field, frozen

from supervisor import faults
from supervisor.errors import BakehouseError, Internal, Unavailable
from supervisor.linux.cgroup import Cgroups
from supervisor.linux.idmap import IdMap
from supervisor.linux.spawner import Command, Completed, Spawner
from supervisor.runtime.filters import Filters
from supervisor.runtime.spec import ProcessInputs, SpecInputs, SpecMount, build_spec
from supervisor.tasks import finish_within, in_thread

TRIAL_SECONDS = 10.0
EVERY_SEAL = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
LET_GO_POLL_SECONDS, LET_GO_TRIES_MAX = 0.001, 100
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


@frozen
class OciRuntime:
    """One runtime of this host.

    Attributes:
        name: ``crun`` or ``runc``.
        program: Where it is installed.
        path: Of the copy of it that is run.
        version: As it says itself.
        root: Where it keeps its state.
        places: It puts processes into cgroups itself, by ``cgroupsPath``.
        filters: The seccomp filters it has compiled.
        reason: Why it was taken, for the journal.
    """

    name: str
    program: str
    path: str
    version: str
    root: Path
    places: bool
    filters: Filters = field(factory=Filters)
    reason: str = ""

    @property
    def arguments(self) -> tuple[str, ...]:
        """What stands before the verb."""
        manager = () if self.places else ("--cgroup-manager=disabled",)
        return (*manager, "--root", str(self.root))

    def stays_out(self, cgroups: Cgroups) -> bool:
        """Whether it must not be in the group of a container it makes: runc takes only an empty one (from 1.2 on).

        Beside v1 hierarchies we enter it all the same: it does not know their v2 tree, and has to take the container along.
        """
        return self.places and cgroups.kind == "v2"

    def state(self, container_id: str) -> Path:
        """Where it keeps what it knows of a container."""
        return self.root / container_id

    def command(self, *words: str) -> tuple[str, ...]:
        """The whole command line of a verb."""
        return (self.path, *self.arguments, *words)

    async def start(self, spawner: Spawner, container_id: str) -> None:
        """Let a created container's process run.

        Raises:
            Internal: With the runtime's own words, e.g. that the command does not exist.
        """
        if self.name != "crun" or not await _let_go(self.state(container_id) / "exec.fifo"):
            await self._verb(spawner, "start", container_id)

    async def delete(self, spawner: Spawner, container_id: str) -> None:
        """End and forget a container; not knowing it is success."""
        if await in_thread(self.state(container_id).exists):
            await self._verb(spawner, "delete", "--force", container_id)

    async def forget(self, spawner: Spawner, container_id: str) -> None:
        """Have nothing of a container whose processes are dead; not knowing it is success.

        crun without its cgroup manager keeps of such a container what is in its state directory, and nothing else.
        """
        if self.places:
            await self.delete(spawner, container_id)
        else:
            await in_thread(lambda: shutil.rmtree(self.state(container_id), ignore_errors=True))

    async def knows(self, spawner: Spawner, container_id: str) -> str | None:
        """What the runtime calls the container's state (``created``, ``running``, ``stopped``); None if it has none."""
        done = await spawner.run(Command(self.command("state", container_id), env=ENVIRONMENT))
        if done.returncode != 0:
            return None
        try:
            state = orjson.loads(done.stdout)
        except orjson.JSONDecodeError:
            return None
        return str(state.get("status")) if isinstance(state, dict) else None

    async def _verb(self, spawner: Spawner, verb: str, *words: str) -> None:
        done = await spawner.run(Command(self.command(verb, *words), env=ENVIRONMENT))
        if done.returncode != 0:
            raise Internal(f"{self.name} cannot {verb} the container: {complaint(done)}")


async def _let_go(fifo: Path) -> bool:
    """Do what ``crun start`` comes down to where there are no hooks, without a process; False if nobody reads."""
    for _ in range(LET_GO_TRIES_MAX):
        if _told(fifo):
            return True
        await trio.sleep(LET_GO_POLL_SECONDS)
    return False


def _told(fifo: Path) -> bool:
    """Write to the container's first process, which waits for a byte; it may be on its way there, or have ended.

    That the FIFO is gone tells crun that the container was started: it goes last, so that nobody takes for started what
    still waits. None of this waits for anybody.
    """
    try:
        fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENXIO, errno.ENOENT}:
            return False
        raise
    faults.before(faults.Door.FIFO, "start")
    try:
        os.write(fd, b"0")
        fifo.unlink()
    finally:
        os.close(fd)
    faults.after(faults.Door.FIFO, "start")
    return True


def complaint(done: Completed) -> str:
    """The last line a failed command wrote."""
    return last_line(done.stderr) or last_line(done.stdout) or f"it ended with {done.returncode}"


def last_line(output: bytes) -> str:
    """The last line of a program's output that says something; control characters taken out."""
    lines = [line.strip() for line in output.decode(errors="replace").splitlines() if line.strip()]
    return "".join(char for char in lines[-1] if char.isprintable()) if lines else ""


@asynccontextmanager
async def open_runtime(
    names: Sequence[str],
    spawner: Spawner,
    cgroups: Cgroups,
    run_root: Path,
    seccomp: Mapping[str, object],
) -> AsyncIterator[OciRuntime]:
    """The first of ``names`` that runs a container here, with this filter; its copy is there while this is open.

    Raises:
        Unavailable: None does; each one's complaint is told.
    """
    complaints: list[str] = []
    for name in names:
        with ExitStack() as copies:
            try:
                candidate = await _candidate(name, spawner, run_root, copies)
                await _try(candidate, spawner, cgroups, run_root, seccomp)
            except BakehouseError as error:
                complaints.append(f"{name}: {error.message}")
                continue
            yield evolve(candidate, reason="; ".join(["it ran a trial container", *complaints]))
            return
    raise Unavailable(
        f"cannot run containers: {'; '.join(complaints)}",
        hint="install crun or runc",
    )


async def _candidate(name: str, spawner: Spawner, run_root: Path, copies: ExitStack) -> OciRuntime:
    program = shutil.which(name, path=ENVIRONMENT["PATH"])
    if program is None:
        raise Unavailable("it is not installed")
    sealed = await in_thread(lambda: _sealed_copy(Path(program)))
    copies.callback(os.close, sealed)
    path = f"/proc/{os.getpid()}/fd/{sealed}"
    done = await spawner.run(Command((path, "--version"), env=ENVIRONMENT))
    if done.returncode != 0:
        raise Unavailable(f"it does not tell its version: {complaint(done)}")
    version = done.stdout.decode(errors="replace").partition("\n")[0].rpartition(" ")[2]
    root = run_root / name
    await in_thread(lambda: root.mkdir(mode=0o700, parents=True, exist_ok=True))
    return OciRuntime(name, program, path, version, root, places=name != "crun")


def _sealed_copy(program: Path) -> int:
    """An fd of a copy of the program that nobody can change any more; memfd_create(2), F_ADD_SEALS in fcntl(2)."""
    copy = os.memfd_create(program.name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with program.open("rb") as source, os.fdopen(os.dup(copy), "wb") as target:
            shutil.copyfileobj(source, target)
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, EVERY_SEAL)
    except BaseException:
        os.close(copy)
        raise
    return copy


async def _try(
    runtime: OciRuntime,
    spawner: Spawner,
    cgroups: Cgroups,
    run_root: Path,
    seccomp: Mapping[str, object],
) -> None:
    """Run ``true`` from the host's own ``/usr`` in a container of its own, and learn the filter."""
    name = f"trial-{runtime.name}"
    bundle = run_root / name
    group = f"trial/{runtime.name}"

    async def clear() -> None:
        await in_thread(lambda: cgroups.kill(group))
        await runtime.delete(spawner, name)
        await in_thread(lambda: cgroups.remove("trial"))
        await in_thread(lambda: shutil.rmtree(bundle, ignore_errors=True))

    await clear()  # a daemon before may have died here
    spec = _trial_spec(bundle, runtime, cgroups.runtime_path(group), seccomp)
    await in_thread(lambda: _write_trial(bundle, spec))
    await in_thread(lambda: cgroups.create(group))
    alone = runtime.stays_out(cgroups)
    entries = [] if alone else await in_thread(lambda: cgroups.entry_fds(group))

    async def carry_out(verb: str) -> None:
        words = runtime.command(verb, "--bundle", str(bundle), name)
        groups = tuple(entries)
        done = await spawner.run(
            Command(words, env=ENVIRONMENT, cgroup_fds=groups, dies_with_daemon=True)
        )
        if done.returncode != 0:
            raise Unavailable(f"a trial container failed: {complaint(done)}")

    try:
        with trio.fail_after(TRIAL_SECONDS):
            await carry_out("run")
            if not runtime.places:
                await carry_out("create")
                await in_thread(lambda: runtime.filters.learn(spec, runtime.state(name)))
    except trio.TooSlowError as error:
        raise Unavailable(f"a trial container did not end within {TRIAL_SECONDS:.0f} s") from error
    finally:
        for entry in entries:
            os.close(entry)
        with finish_within(TRIAL_SECONDS):
            await clear()


def _trial_spec(
    bundle: Path, runtime: OciRuntime, cgroups_path: str, seccomp: Mapping[str, object]
) -> dict[str, object]:
    shown = [path for path in ("/usr", "/bin", "/lib", "/lib64") if Path(path).is_dir()]
    return build_spec(
        SpecInputs(
            process=ProcessInputs(args=("/usr/bin/true",), no_new_privileges=True),
            rootfs=bundle / "rootfs",
            id_map=IdMap.IDENTITY,
            hostname="trial",
            mounts=tuple(SpecMount(path, path, "bind", ("bind", "ro")) for path in shown),
            cgroups_path=cgroups_path if runtime.places else None,
            seccomp=seccomp,
        )
    )


def _write_trial(bundle: Path, spec: Mapping[str, object]) -> None:
    (bundle / "rootfs").mkdir(mode=0o700, parents=True, exist_ok=True)
    (bundle / "config.json").write_bytes(orjson.dumps(spec))

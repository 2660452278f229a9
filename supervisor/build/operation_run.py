"""RUN: a command in a snapshot of the image so far, with the owner's ids, network and cgroup.

The runtime is run directly and dies with the daemon; a step is no container and shows in no list. Whatever ends it, its
cgroup is emptied first, and then nothing of it is left: no process, mount, link, cgroup or directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import orjson
import trio

from supervisor.access.owners import Owner
from supervisor.access.requests import Resources
from supervisor.build.flights import Flight
from supervisor.build.graph import Run
from supervisor.build.instructions import SCRIPT_PATH
from supervisor.build.operation_file import bound_times
from supervisor.errors import BakehouseError, InvalidArgument, Unavailable
from supervisor.linux import mounts
from supervisor.linux.spawner import Command, Process
from supervisor.monitor.samples import Who
from supervisor.network.networks import Sandbox
from supervisor.runtime import files
from supervisor.runtime.cgroup_tree import build_group, limits_of, monitors_group
from supervisor.runtime.first_process import container_user, make_working_directory
from supervisor.runtime.identity_files import addresses_of
from supervisor.runtime.oci_runtime import ENVIRONMENT
from supervisor.runtime.parts import Parts, own_directory
from supervisor.runtime.passwd import ContainerUser
from supervisor.runtime.seccomp import runtime_seccomp
from supervisor.runtime.spec import (
    DEFAULT_CAPABILITIES,
    DEVICE_RULES,
    ProcessInputs,
    SpecInputs,
    SpecMount,
    build_spec,
    default_environment,
    own_file,
)
from supervisor.tasks import finish_within, in_thread

CLEANUP_SECONDS = 60.0
OUTPUT_BYTES = 65_536
LAST_OUTPUT_SECONDS = 1.0
HOSTNAME_CHARACTERS = 12
KILLED = 128


class StepFailed(InvalidArgument):
    """A command ended badly; ``code`` is how, as a shell has it."""

    def __init__(self, message: str, code: int, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


@attrs.frozen
class RunWork:
    """A RUN to be carried out.

    Attributes:
        op: What it says.
        hidden_env: Added to the environment, and part of nothing else.
        layers: What it works on, bottom first.
        owner: Whose step it is.
        resources: Limits the caller set.
        extra_hosts: For ``/etc/hosts``.
        shm_bytes: Size of ``/dev/shm``; 0 for the default.
    """

    op: Run
    hidden_env: tuple[str, ...]
    layers: tuple[str, ...]
    owner: Owner
    resources: Resources
    extra_hosts: tuple[str, ...] = ()
    shm_bytes: int = 0


@attrs.frozen
class _Place:
    """Where a step runs."""

    step_id: str
    bundle: Path
    group: str
    rootfs: Path
    sandbox: Sandbox
    user_pin: Path | None


async def run(parts: Parts, work: RunWork, flight: Flight) -> str:
    """Carry out a RUN; the id of the layer it makes. Its output goes to the flight's log.

    Raises:
        StepFailed: The command ended with another code than 0.
        BakehouseError: It could not be started.
    """
    what = f"step {flight.step_id[:HOSTNAME_CHARACTERS]} of a build"
    async with parts.monitor.ticket(work.owner.uid, what, lasting=True):
        async with _place(parts, work, flight.step_id) as place:
            await _write_bundle(parts, work, place)
            flight.group, flight.who = place.group, Who(work.owner.uid, "", what)
            flight.log.begin()
            code = await _command(parts, work.owner.uid, place, flight)
            flight.who = None
            oom = bool(await parts.tree.oom_kills(place.group)) if code else False
        # What still ran is dead now, and the snapshot is still there.
        try:
            if code:
                raise _failed(work.op, code, oom=oom)
            if work.op.epoch is not None:
                await bound_times(parts, flight.step_id, work.op.epoch)
            return (await parts.store.snapshots.commit(flight.step_id)).id
        finally:
            with finish_within(CLEANUP_SECONDS):
                await parts.store.snapshots.remove(flight.step_id)


def _failed(op: Run, code: int, *, oom: bool) -> StepFailed:
    code = KILLED - code if code < 0 else code
    words = op.args if op.script is None else (op.script.partition("\n")[0],)
    message = f"The command '{' '.join(words)}' returned a non-zero code: {code}"
    return StepFailed(message, code, "it was ended for want of memory" if oom else "")


@asynccontextmanager
async def _place(parts: Parts, work: RunWork, step_id: str) -> AsyncIterator[_Place]:
    """All a step stands on; at the end only its snapshot is left, or on failure nothing."""
    owner = work.owner
    bundle = parts.run_root / "builds" / f"u{owner.uid}" / step_id
    group = build_group(owner.uid, step_id)
    roots: list[Path] = []
    sandboxes: list[Sandbox] = []
    done = False

    async def prepare() -> None:
        made = await parts.store.snapshots.prepare(step_id, work.layers, owner, kept=False)
        roots.append(made.rootfs)

    async def enclose() -> None:
        limits = limits_of(work.resources, parts.config.runtime.pids_max)
        await parts.tree.create(owner.uid, group, limits, DEVICE_RULES)
        await in_thread(lambda: own_directory(bundle.parent, owner))

    async def connect() -> None:
        name = step_id[:HOSTNAME_CHARACTERS]
        sandboxes.append(
            await parts.networks.attach(step_id, name, owner, work.op.network, (), user_pin)
        )

    async def disconnect() -> None:
        await parts.networks.detach(step_id)

    async def forget() -> None:
        await parts.runtime.forget(parts.spawner, step_id)
        await in_thread(lambda: shutil.rmtree(bundle, ignore_errors=True))

    try:
        user_pin = await parts.user_namespace(owner)
        await _together(prepare, enclose, connect)
        yield _Place(step_id, bundle, group, roots[0], sandboxes[0], user_pin)
        done = True
    finally:
        with finish_within(CLEANUP_SECONDS):
            await parts.tree.clear(group)
            await _together(disconnect, forget)
            if not done:
                await parts.store.snapshots.remove(step_id)


async def _together(*works: Callable[[], Awaitable[None]]) -> None:
    """Do all of it at once; of expected failures the first is raised, as itself, when all is over."""
    failed: list[BakehouseError] = []

    async def one(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except BakehouseError as error:
            failed.append(error)

    async with trio.open_nursery() as nursery:
        for work in works:
            nursery.start_soon(one, work)
    if failed:
        raise failed[0]


async def _write_bundle(parts: Parts, work: RunWork, place: _Place) -> None:
    root = await mounts.open_in_mounts(parts.spawner, place.rootfs)
    try:
        user = await in_thread(lambda: container_user(root, work.op.user, work.owner))
        await in_thread(
            lambda: make_working_directory(root, work.op.working_dir, work.owner.id_map)
        )
    finally:
        os.close(root)
    with mounts.told_as("prepare the step"):
        shown = await in_thread(lambda: _files(work, place))
        config = orjson.dumps(parts.runtime.filters.applied(_spec(parts, work, place, user, shown)))
        await in_thread(lambda: (place.bundle / "config.json").write_bytes(config))


def _files(work: RunWork, place: _Place) -> tuple[SpecMount, ...]:
    """``/etc/hosts``, ``hostname``, ``resolv.conf``, and the script of a here-document."""
    place.bundle.mkdir(mode=0o711)
    place.bundle.chmod(0o711)
    sandbox, hostname = place.sandbox, place.step_id[:HOSTNAME_CHARACTERS]
    texts = {
        "/etc/hostname": f"{hostname}\n",
        "/etc/hosts": files.hosts(
            hostname, addresses_of(sandbox), work.extra_hosts, sandbox.gateway
        ),
        "/etc/resolv.conf": files.resolv_conf(
            sandbox.resolvers, sandbox.search, sandbox.resolver_options
        ),
    }
    shown = [
        _file(work, place, Path(target).name, target, text, 0o644) for target, text in texts.items()
    ]
    if work.op.script is not None:
        shown.append(_file(work, place, "script", SCRIPT_PATH, work.op.script, 0o755))
    return tuple(shown)


def _file(  # a file has that many parts
    work: RunWork, place: _Place, name: str, target: str, text: str, mode: int
) -> SpecMount:
    path = place.bundle / name
    path.write_text(text, errors="surrogateescape")
    path.chmod(mode)
    os.chown(path, work.owner.id_map.uid_outside(0), work.owner.id_map.gid_outside(0))
    # Read-only for users: they lie in the run directory, where nothing bounds what is written.
    return own_file(target, str(path), read_only=work.owner.remapped, executable=bool(mode & 0o100))


def _spec(
    parts: Parts, work: RunWork, place: _Place, user: ContainerUser, shown: tuple[SpecMount, ...]
) -> dict[str, object]:
    op, owner = work.op, work.owner
    confined = parts.confines_devices(owner)
    wished = [each for each in DEFAULT_CAPABILITIES if confined or each != "CAP_MKNOD"]
    capabilities = parts.within_bounds(wished)
    hostname = place.step_id[:HOSTNAME_CHARACTERS]
    process = ProcessInputs(
        args=op.args,
        env=default_environment((*work.hidden_env, *op.env), hostname, user.home, terminal=False),
        cwd=op.working_dir,
        user=user,
        capabilities=capabilities,
    )
    return build_spec(
        SpecInputs(
            process=process,
            rootfs=place.rootfs,
            id_map=owner.id_map,
            hostname=hostname,
            user_namespace=place.user_pin,
            network_namespace=place.sandbox.netns_pin,
            cgroups_path=parts.tree.cgroups.runtime_path(place.group)
            if parts.runtime.places
            else None,
            cgroup_mount=parts.tree.cgroups.kind == "v2",
            mounts=shown,
            shm_bytes=work.shm_bytes or parts.config.runtime.shm_bytes,
            seccomp=runtime_seccomp(parts.profile, frozenset(capabilities)),
        )
    )


async def _command(parts: Parts, owner: int, place: _Place, flight: Flight) -> int:
    """Run the command to its end; its exit code."""
    outputs, errors = os.pipe2(os.O_CLOEXEC), os.pipe2(os.O_CLOEXEC)
    async with (
        trio.lowlevel.FdStream(outputs[0]) as output,
        trio.lowlevel.FdStream(errors[0]) as error_output,
        await _spawn(parts, owner, place, (outputs[1], errors[1])) as process,
        trio.open_nursery() as nursery,
    ):
        read = trio.Event()
        nursery.start_soon(_read_both, output, error_output, flight, read)
        code = await process.wait()
        with trio.move_on_after(LAST_OUTPUT_SECONDS):
            await read.wait()
        nursery.cancel_scope.cancel()
    return code


async def _spawn(parts: Parts, owner: int, place: _Place, ends: tuple[int, int]) -> Process:
    """Start the runtime with its output and errors going to ``ends``, which are closed here whatever happens."""
    alone = parts.runtime.stays_out(parts.tree.cgroups)
    group = monitors_group(owner) if alone else place.group
    # Else it would remove the group, and with it what the kernel counted there.
    keep = ("--keep",) if alone else ()
    with ExitStack() as ours:
        for end in ends:
            ours.callback(os.close, end)
        entries = await in_thread(lambda: parts.tree.cgroups.entry_fds(group))
        for entry in entries:
            ours.callback(os.close, entry)
        command = Command(
            parts.runtime.command("run", *keep, "--bundle", str(place.bundle), place.step_id),
            env=ENVIRONMENT,
            stdout=ends[0],
            stderr=ends[1],
            cgroup_fds=tuple(entries),
            dies_with_daemon=True,
        )
        try:
            return await parts.spawner.spawn(command)
        except OSError as error:
            raise Unavailable(f"cannot run the step: {error.strerror}") from error


async def _read_both(
    output: trio.lowlevel.FdStream,
    error_output: trio.lowlevel.FdStream,
    flight: Flight,
    read: trio.Event,
) -> None:
    async def one(stream: trio.lowlevel.FdStream, *, errors: bool) -> None:
        async for piece in stream:
            flight.log.write(bytes(piece), errors=errors)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(one, output, errors=False))
        nursery.start_soon(partial(one, error_output, errors=True))
    read.set()

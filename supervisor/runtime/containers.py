"""The containers of this host: finding, listing and making them. What becomes of each is its keeper's business.

Rules: every look-up takes an identity and finds nothing that is not its own (an administrator's: their own first, then
everyone's); that something exists but is another's cannot be told from its not existing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Mapping

import attrs
import trio

from protocol.events import ContainerCreate
from supervisor.access.identity import Identity
from supervisor.access.quota import admit
from supervisor.access.requests import ContainerRequest, ExecRequest
from supervisor.errors import (
    AlreadyExists,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from supervisor.runtime.connections import settled
from supervisor.runtime.creation import ImageFacts, check_platform, container_record, inherit
from supervisor.runtime.discards import fitted
from supervisor.runtime.exec_index import ExecIndex
from supervisor.runtime.execs import Exec, new_exec
from supervisor.runtime.health import plan_of
from supervisor.runtime.init import find_init
from supervisor.runtime.joining import Find, Partner, with_partners
from supervisor.runtime.journal_log import read_journal
from supervisor.runtime.keeper import Household, Keeper
from supervisor.runtime.ledger import Ledger
from supervisor.runtime.links import settled_links
from supervisor.runtime.log_settings import JOURNAL_SOCKET, JOURNALD, check_log, log_settings
from supervisor.runtime.logs import Form, LogQuery, read_log
from supervisor.runtime.mount_claims import settle_mounts
from supervisor.runtime.parts import Parts
from supervisor.runtime.probes import STARTS_AT_ONCE_MAX, tend_health
from supervisor.runtime.records import ContainerRecord, ContainerState, MountRecord
from supervisor.runtime.sanity import checked_name
from supervisor.runtime.status import VISIBLE, Cause, advance
from supervisor.store.images import User
from supervisor.tasks import finish_within, in_thread

ID_CHARACTERS = 64
PREFIX_CHARACTERS = frozenset("0123456789abcdef")
EXECS_PER_CONTAINER_MAX = 1_024
CLEANUP_SECONDS = 30.0


class Containers:
    """All containers of this daemon. Made by :func:`open_containers`."""

    def __init__(self, parts: Parts, ledger: Ledger, nursery: trio.Nursery) -> None:
        self.parts = parts
        self._ledger = ledger
        self._nursery = nursery
        self._keepers: dict[str, Keeper] = {}
        self._names: defaultdict[int, dict[str, str]] = defaultdict(dict)
        self._execs = ExecIndex()
        self._starting = defaultdict[int, trio.CapacityLimiter](
            lambda: trio.CapacityLimiter(STARTS_AT_ONCE_MAX)
        )
        self._household = Household(self._forget, trio.Event(), self._tend, self._partner)

    # --- finding -----------------------------------------------------------------------------------------------

    def find(self, identity: Identity, reference: str) -> Keeper:
        """The container with this id, name, or unique beginning of an id, in this order.

        Raises:
            NotFound: None that the identity may know of; Docker's wording.
        """
        name = reference.removeprefix("/")
        by_id = self._keepers.get(reference)
        if by_id is not None and self._may_see(identity, by_id):
            return by_id
        found = [self._names[identity.owner].get(name)]
        if identity.admin and found == [None]:
            found = [names[name] for names in self._names.values() if name in names]
        if len(found) == 1 and found[0] is not None:
            return self._keepers[found[0]]
        if name and PREFIX_CHARACTERS.issuperset(name):
            starting = [
                keeper
                for container_id, keeper in self._keepers.items()
                if container_id.startswith(name) and self._may_see(identity, keeper)
            ]
            if len(starting) == 1:
                return starting[0]
        raise NotFound(f"No such container: {reference}")

    def visible_to(self, identity: Identity) -> list[Keeper]:
        """What the identity may see, newest first."""
        return [
            keeper for keeper in reversed(self._keepers.values()) if self._may_see(identity, keeper)
        ]

    def count(self, owner: int) -> int:
        """How many an owner has, running or not."""
        return len(self._names.get(owner, {}))

    def execs_at_work(self, owner: int) -> int:
        """How many execs of an owner's have not ended."""
        return self._execs.at_work(owner)

    def every(self) -> list[Keeper]:
        """All, for the daemon's own use."""
        return list(self._keepers.values())

    def using_image(self, image_id: str) -> list[User]:
        """The containers made from an image."""
        return [
            User(keeper.record.id, keeper.active, keeper.record.owner)
            for keeper in self._keepers.values()
            if keeper.record.image_id == image_id
        ]

    @staticmethod
    def _may_see(identity: Identity, keeper: Keeper) -> bool:
        return (
            identity.admin or keeper.record.owner == identity.owner
        ) and keeper.state.status in VISIBLE

    # --- making ------------------------------------------------------------------------------------------------

    async def create(
        self, identity: Identity, request: ContainerRequest
    ) -> tuple[Keeper, list[str]]:
        """A new container, and what the caller should be warned of. It has not run.

        Raises:
            NotFound: No such image.
            AlreadyExists: The name is taken; Docker's wording.
            InvalidArgument: See :func:`supervisor.runtime.creation.container_record`, and
                :func:`supervisor.runtime.log_settings.check_log`.
            PermissionDenied: A host path the caller may not have.
            ResourceExhausted: The owner has as many as they may.
            Unavailable: The output is to go to a journal that is not there.
        """
        parts = self.parts
        check_log(request.log)
        if request.log.driver == JOURNALD and not await in_thread(JOURNAL_SOCKET.exists):
            raise Unavailable(
                "failed to initialize logging driver: journald is not enabled on this host"
            )
        if request.init:
            await in_thread(find_init)
        image = await parts.store.images.resolve(identity, request.image)
        remapped = not identity.admin or request.userns_mode == "remap"
        check_platform(request, image.config)
        request = with_partners(
            request,
            identity.owner,
            self._finder(identity),
            remapped=remapped,
        )
        facts = ImageFacts(image.id, image.layers, image.config.config)
        request, warnings = fitted(request, parts.host.abilities)
        record = container_record(
            request,
            facts,
            identity.owner,
            self._names[identity.owner],
            remapped=remapped,
            host=parts.host,
            inherited=self._inherited(identity, request),
        )
        owner = await parts.owners.owner_of(identity, remapped=remapped)
        record = attrs.evolve(
            record,
            connections=await settled(parts.networks, identity.owner, request),
            links=settled_links(request, identity.owner, self._finder(identity)),
        )
        self._admit(identity)
        self._reserve(record)
        keeper = self._keeper(record, ContainerState())
        try:
            if record.mounts:
                await self._ledger.insert(record, keeper.state)
                keeper.row.record = await settle_mounts(parts, owner, record)
                await self._made(keeper)
            else:  # nothing else has to be done, so one unit writes it all
                keeper.row.state = _created(keeper.state)
                await self._ledger.insert(record, keeper.state, [ContainerCreate()])
        except BaseException:
            with finish_within(CLEANUP_SECONDS):
                await self._unmake(keeper)
            raise
        self._keepers[record.id] = keeper
        parts.networks.hold(record.id, record.connections or ())
        with finish_within(CLEANUP_SECONDS):  # it is there now, whoever goes away
            await self._nursery.start(keeper.run)
        return keeper, warnings

    def _finder(self, identity: Identity) -> Find:
        return lambda reference: _seen(self.find(identity, reference))

    def _admit(self, identity: Identity) -> None:
        """Nothing may be waited for between this and having it: several creates are at work at once."""
        allowed = self.parts.owners.limits(identity.owner).containers_max
        names = self._names[identity.owner]
        keepers = [self._keepers[one] for one in names.values() if one in self._keepers]
        idle = sum(not keeper.active for keeper in keepers)
        hint = f"{idle} of them do not run: docker container prune removes those"
        admit("create a container", len(names), allowed, hint=hint)

    def _reserve(self, record: ContainerRecord) -> None:
        holder = self._names[record.owner].setdefault(record.name, record.id)
        if holder != record.id:
            raise AlreadyExists(
                f'Conflict. The container name "/{record.name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def _inherited(self, identity: Identity, request: ContainerRequest) -> list[MountRecord]:
        """The mounts of ``--volumes-from``: of one's own containers, for there is nothing else."""
        found: list[MountRecord] = []
        for specification in request.volumes_from:
            source = self.find(identity, specification.partition(":")[0])
            if source.record.owner != identity.owner:
                raise InvalidArgument(
                    f"cannot take the volumes of {source.record.name}: they belong to its owner",
                    "containers share volumes with containers of the same owner",
                )
            found += inherit(source.record.mounts, specification)
        return found

    async def _made(self, keeper: Keeper) -> None:
        await keeper.row.advance(Cause.CREATE, ContainerCreate())

    async def _unmake(self, keeper: Keeper) -> None:
        await self.parts.store.volumes.release(keeper.record.id, remove_anonymous=True)
        await self._ledger.delete(keeper.record, [])
        self._names[keeper.record.owner].pop(keeper.record.name, None)

    async def rename(self, keeper: Keeper, name: str) -> None:
        """The container has another name.

        Raises:
            InvalidArgument: Nobody may be called so.
            AlreadyExists: Another of the owner's is.
        """
        wanted = checked_name(name)
        await keeper.perform(lambda: self._rename(keeper, wanted))

    async def _rename(self, keeper: Keeper, name: str) -> None:
        """Done as a change, so that the names agree with what was written, whoever goes away meanwhile."""
        async with keeper.renaming:
            old = keeper.record.name
            try:
                self._reserve(attrs.evolve(keeper.record, name=name))
            except AlreadyExists as error:
                raise AlreadyExists(f"Error when allocating new name: {error.message}") from error
            try:
                await keeper.rename(name)
            finally:
                stale = old if keeper.record.name == name else name
                if stale != keeper.record.name:
                    self._names[keeper.record.owner].pop(stale, None)

    def _partner(self, container_id: str) -> Partner:
        keeper = self._keepers.get(container_id)
        if keeper is None:
            raise NotFound(f"No such container: {container_id}")
        return _seen(keeper)

    def _forget(self, keeper: Keeper) -> None:
        self._keepers.pop(keeper.record.id, None)
        self.parts.networks.let_go(keeper.record.id, keeper.record.connections or ())
        self._names[keeper.record.owner].pop(keeper.record.name, None)
        self._execs.forget_container(keeper.record.id)

    # --- looking on --------------------------------------------------------------------------------------------

    def logs(self, keeper: Keeper, query: LogQuery, form: Form) -> AsyncIterator[bytes]:
        """What ``form`` makes of the log's entries, many at a time."""
        settings = log_settings(keeper.record.request.log, self.parts.config.runtime)
        if settings.driver == JOURNALD:
            return read_journal(
                self.parts.spawner, keeper.record.id, query, lambda: not keeper.alive, form
            )
        return read_log(keeper.log, settings, query, lambda: not keeper.alive, form)

    # --- execs -------------------------------------------------------------------------------------------------

    async def create_exec(self, identity: Identity, keeper: Keeper, request: ExecRequest) -> Exec:
        """A further process of a running container, not started yet.

        Raises:
            InvalidArgument: No command.
            ResourceExhausted: The container has too many, or its owner.
        """
        allowed = self.parts.owners.limits(identity.owner).execs_max
        hint = "wait for some to end; those that were never started go with their container"
        admit("execute in a container", self._execs.at_work(identity.owner), allowed, hint=hint)
        return await self.make_exec(keeper, identity.owner, request)

    async def make_exec(self, keeper: Keeper, owner: int, request: ExecRequest) -> Exec:
        """The same, for whom it is known already."""
        record = new_exec(keeper.record.id, owner, request)
        made = Exec(self.parts, self._ledger, keeper, record)
        self._execs.add(made)  # before anything is waited for, so that it counts
        try:
            await self._bound_execs(keeper)
            await made.create()
        except BaseException:
            self._execs.forget([record.id])
            raise
        return made

    def starting(self, owner: int) -> trio.CapacityLimiter:
        """Held while a probe of this owner's is begun."""
        return self._starting[owner]

    async def forget_exec(self, made: Exec) -> None:
        """It is written down no more."""
        await self._ledger.delete_execs([made.record.id])
        self._execs.forget([made.record.id])

    async def _bound_execs(self, keeper: Keeper) -> None:
        """Forget the oldest that ended when a container has had many."""
        have = self._execs.of(keeper.record.id)
        if len(have) <= EXECS_PER_CONTAINER_MAX:
            return
        over = [one.record.id for one in have if one.ended.is_set()][: EXECS_PER_CONTAINER_MAX // 2]
        if not over:
            raise ResourceExhausted(
                f"cannot execute in container {keeper.record.name}: it has {len(have) - 1} execs already"
            )
        await self._ledger.delete_execs(over)
        self._execs.forget(over)

    def find_exec(self, identity: Identity, exec_id: str) -> Exec:
        """The exec with this id.

        Raises:
            NotFound: None that the identity may know of; Docker's wording.
        """
        found = self._execs.find(exec_id)
        if found is None or not self._may_see(identity, found.keeper):
            raise NotFound(f"No such exec instance: {exec_id}")
        return found

    def execs_of(self, keeper: Keeper) -> list[str]:
        """Ids of the execs that run in a container."""
        return [one.record.id for one in self._execs.of(keeper.record.id) if one.record.running]

    # --- for those that open and recover -----------------------------------------------------------------------

    async def adopt(self, record: ContainerRecord, state: ContainerState) -> Keeper:
        """A keeper for a container that is written down."""
        keeper = self._keeper(record, state)
        self._keepers[record.id] = keeper
        self._names[record.owner][record.name] = record.id
        self.parts.networks.hold(record.id, record.connections or ())
        await self._nursery.start(keeper.run)
        return keeper

    def _keeper(self, record: ContainerRecord, state: ContainerState) -> Keeper:
        return Keeper(self.parts, self._ledger, record, state, self._household)

    async def _tend(self, keeper: Keeper) -> None:
        """What is done beside each run of a container."""
        plan = plan_of(keeper.record.health, keeper.record.shell)
        if plan is not None:
            await self._household.recovered.wait()
            await tend_health(self, keeper, plan)

    async def beat(self) -> None:
        """Return when a task in the nursery of the keepers has run."""
        await self._nursery.start(_answer)

    def recovered(self) -> None:
        """All are recovered: from now on restart policies start what they should."""
        self._household.recovered.set()
        for keeper in self.every():
            keeper.after_recovery()

    def adopt_exec(self, made: Exec) -> None:
        """An exec that is written down."""
        self._execs.add(made)

    def census(self) -> Mapping[str, Keeper]:
        """The cgroups of the containers that run, and whose they are."""
        return {keeper.group: keeper for keeper in self._keepers.values() if keeper.alive}


async def _answer(task_status: trio.TaskStatus[None]) -> None:
    await trio.lowlevel.checkpoint()
    task_status.started()


def _seen(keeper: Keeper) -> Partner:
    return keeper.record, keeper.state


def _created(state: ContainerState) -> ContainerState:
    return attrs.evolve(state, status=advance(state.status, Cause.CREATE))

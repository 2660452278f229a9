"""The daemon killed at every commit and effect of every operation on a container.

First an operation is done with its passages written down (:mod:`supervisor.faults`); then, for each of them, it is done
again with the daemon dying there. The next daemon must find records and kernel in agreement, the client can ask again and
gets what it wanted, the container's events make a life, and another person's container has not noticed. Afterwards nothing
of the container is left.

Every commit of every operation is taken, and each other kind of passage in the first operation that has it, but for
single files; with ``BAKEHOUSE_FAULT_POINTS=all`` every passage of every operation is, and every file.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import time
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch

import attrs
import pytest

from supervisor.faults import Door
from tests.support.accounts import People
from tests.support.daemon import Daemon, new_daemon
from tests.support.faults import Faults, Passage
from tests.support.holdings import beyond, disagreements, holdings, settled
from tests.support.lives import broken_lives, gaps, told
from tests.support.operations import (
    OPERATIONS,
    Operation,
    Subject,
    remove,
    remove_network,
    remove_volume,
    run,
)
from tests.support.zygote import Zygote

pytestmark = [pytest.mark.root, pytest.mark.slow]

EVERY = os.environ.get("BAKEHOUSE_FAULT_POINTS") == "all"
QUIET_SECONDS = 0.15
DEATH_SECONDS, DEATH_SECONDS_MAX = 0.3, 10.0
"""How long it is waited for after an operation that came to its end, and after one that did not."""
LAST_MOMENT_SECONDS = 0.05
TRIES = 4
RECOVERIES, RECOVERY_PASSAGES_MIN = 4, 20
COMMITTED, ON_A_FILE = "after commit", f"before {Door.FILE}"
NEVER = Passage("", 0)
FOLLOWS = (("after ", "before "), ("before thread ", "before file "))
"""Between coming out of a door and going into the next nothing happens, nor before a thread's first file."""
FIRST_PORT = 20_000 + os.getpid() % 50 * 200
PORTS = f"[network]\nephemeral_first = {FIRST_PORT}\nephemeral_last = {FIRST_PORT + 199}"
"""Out of the way of others on this host, who might take one while the daemon is dead."""
ASIDE = (
    "thread monitor.",
    "thread events.",
    "thread runtime.log_tending",
    "thread network.neighbours",
    "thread linux.nftables:Nftables.listing",
    "spawner spawn iptables",
)
"""What goes on beside all operations and is none of theirs."""


@attrs.define
class Scene:
    """A daemon with fault points, and another person's container that nothing must disturb."""

    daemon: Daemon
    faults: Faults
    people: People
    bystander: Subject
    bystander_pid: str
    rounds: int = 0
    kinds: set[str] = attrs.field(factory=set)

    def subject(self) -> Subject:
        """A container that has not been."""
        self.rounds += 1
        return Subject(self.daemon, self.people.ada, f"web-{self.rounds}")

    def let_off(self, passage: Passage) -> list[Passage]:
        """It dies there no more, and if it came there in this very moment it has died; what it passed."""
        passed = self.faults.off()
        self.daemon.crashed(DEATH_SECONDS_MAX if passage in passed else LAST_MOMENT_SECONDS)
        return passed


@pytest.fixture(scope="module")
def scene(two_users: People) -> Iterator[Scene]:
    daemon = new_daemon(two_users.group, PORTS)
    daemon.root.mkdir()
    faults = Faults(daemon.root / "faults")
    faults.directory.mkdir()
    daemon.variables = faults.variables
    daemon.zygote = Zygote()
    try:
        daemon.start()
        for person in (two_users.ada, two_users.bob):
            daemon.import_busybox(user=person)
        bystander = Subject(
            daemon, two_users.bob, "web-1"
        )  # a name that will be somebody else's too
        run(bystander)
        warm = Subject(daemon, two_users.ada, "warm")
        run(warm)  # what a person keeps is there from now on
        clear(warm)
        yield Scene(daemon, faults, two_users, bystander, str(bystander.state["Pid"]))
        remove(bystander)
        events = told(daemon)
        assert gaps(events) == []
        assert list(broken_lives(events)) == []
        assert daemon.close() == []
    finally:
        daemon.clear()
        daemon.zygote.close()


def clear(subject: Subject) -> None:
    """Nobody is left of this name, nor the volume and the network made for it."""
    for name in (subject.name, f"{subject.name}-renamed"):
        remove(attrs.evolve(subject, name=name))
    remove_volume(subject)
    remove_network(subject)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_killed_at(operation: Operation, scene: Scene) -> None:
    faulthandler.cancel_dump_traceback_later()  # it may well take longer than a test should
    passages = recorded(operation, scene)
    names = {passage.name.partition(" ")[2] for passage in passages}
    assert [one for one in operation.least if not any(fnmatch(name, one) for name in names)] == []
    before = holdings(scene.daemon)
    missed = [
        passage
        for passage in chosen(passages, scene)
        if not any(
            killed_at(passage, operation, scene, before, fresh=bool(tried))
            for tried in range(TRIES)
        )
    ]
    assert not [passage for passage in missed if passage.number == 1], "never passed again"


def recorded(operation: Operation, scene: Scene) -> list[Passage]:
    """What the operation passes when nothing happens to it, as the first that a daemon does."""
    subject = scene.subject()
    if scene.daemon.crashed():  # and another test has told so
        scene.daemon.start()
    operation.before(subject)
    renew(scene.daemon)
    scene.faults.record()
    operation.act(subject)
    then = after(operation, subject)
    then.becomes(operation.status)
    time.sleep(QUIET_SECONDS)
    passages = scene.faults.off()
    operation.right(then)
    clear(subject)
    assert settled(lambda: disagreements(scene.daemon)) == []
    return [passage for passage in passages if not passage.name.partition(" ")[2].startswith(ASIDE)]


def chosen(passages: list[Passage], scene: Scene) -> list[Passage]:
    """Those of this run, one for each moment: nothing happens between two that :data:`FOLLOWS` says."""
    passed = [one for one in passages if EVERY or not one.name.startswith(ON_A_FILE)]
    found = [
        passage
        for passage, then in zip(passed, [*passed[1:], NEVER], strict=True)
        if not any(
            passage.name.startswith(one) and then.name.startswith(two) for one, two in FOLLOWS
        )
    ]
    taken = []
    for passage in found:
        if EVERY or passage.name.startswith(COMMITTED) or passage.name not in scene.kinds:
            taken.append(passage)
            scene.kinds.add(passage.name)
    return taken


def after(operation: Operation, subject: Subject) -> Subject:
    name = f"{subject.name}-renamed" if operation.renamed else subject.name
    return attrs.evolve(subject, name=name)


def renew(daemon: Daemon) -> None:
    """Another daemon, which has done nothing yet."""
    daemon.kill()
    daemon.start()


def killed_at(
    passage: Passage, operation: Operation, scene: Scene, before: Counter[str], *, fresh: bool
) -> bool:
    """Do the operation and be killed there; whether it passed there this time. Either way all is well afterwards.

    Some is passed only by the first operation of a daemon: then it has to be ``fresh``.
    """
    daemon, subject = scene.daemon, scene.subject()
    operation.before(subject)
    if fresh:
        renew(daemon)
    scene.faults.die_at(passage)
    said = None
    try:
        operation.act(subject)
    except Exception as error:  # noqa: BLE001  # whatever a client says whose daemon dies
        said = error
    died = daemon.crashed(within_seconds=DEATH_SECONDS if said is None else DEATH_SECONDS_MAX)
    scene.let_off(passage)
    died = died or daemon.crashed()
    if died:
        daemon.start()
    elif said is not None:
        raise said
    where = f"killed {passage.name} ({passage.number}) of {operation.name} of {subject.name}"
    check(scene, operation, subject, before, where=where, again=died)
    return died


def check(  # all that the moment is made of
    scene: Scene,
    operation: Operation,
    subject: Subject,
    before: Counter[str],
    where: str,
    again: bool,
) -> None:
    """All is well: records and kernel agree, the operation comes to its end, and nothing is left of the container."""
    daemon = scene.daemon
    try:
        assert settled(lambda: disagreements(daemon)) == []
        if again:
            operation.act(subject)
        then = after(operation, subject)
        then.becomes(operation.status)
        operation.right(then)
        assert settled(lambda: disagreements(daemon)) == []
        assert str(scene.bystander.state["Pid"]) == scene.bystander_pid
        clear(subject)
        assert settled(lambda: beyond(holdings(daemon), before)) == []
    except AssertionError as error:
        error.add_note(where)
        error.add_note(daemon.log_tail())
        raise


HALF_DONE = (
    ("start", "before commit runtime.ledger:Ledger.write", 3),
    ("stop", "after commit network.*", 1),
    ("remove", "after commit store.snapshots:Snapshots.remove", 1),
)
"""Operations, and where they are cut off so that there is something to recover."""


@pytest.mark.parametrize(("name", "cut", "number"), HALF_DONE, ids=lambda value: str(value)[:6])
def test_killed_while_it_recovers(name: str, cut: str, number: int, scene: Scene) -> None:
    """The daemon after a crash is killed too, all through its own start; the third finds everything as the second would."""
    faulthandler.cancel_dump_traceback_later()
    operation = next(one for one in OPERATIONS if one.name == name)
    passages = recorded(operation, scene)
    (at, *_) = [one for one in passages if fnmatch(one.name, cut) and one.number <= number][::-1]
    before = holdings(scene.daemon)
    recovery = crash_and_recover(scene, operation, at, before)
    assert len(recovery) >= RECOVERY_PASSAGES_MIN
    step = 1 if EVERY else max(1, len(recovery) // RECOVERIES)
    for passage in recovery[step // 2 :: step]:
        crash_and_recover(scene, operation, at, before, dying=passage)


def crash_and_recover(
    scene: Scene,
    operation: Operation,
    at: Passage,
    before: Counter[str],
    dying: Passage = NEVER,
) -> list[Passage]:
    """Crash, recover (dying once on the way), and look; what the recovery passed."""
    daemon, subject = scene.daemon, scene.subject()
    operation.before(subject)
    renew(daemon)
    scene.faults.die_at(at)
    with contextlib.suppress(ConnectionError, ValueError):
        operation.act(subject)
    died = daemon.crashed(within_seconds=DEATH_SECONDS_MAX)
    scene.faults.die_at(dying)
    if died:
        with contextlib.suppress(AssertionError):  # it dies
            daemon.start()
    daemon.crashed(within_seconds=DEATH_SECONDS)
    passed = scene.let_off(dying)
    if daemon.crashed():
        daemon.start()
    where = f"killed {at.name} of {operation.name} of {subject.name}, and then {dying.name}"
    check(scene, operation, subject, before, where=where, again=died)
    return passed


def test_every_door_is_one_of_an_operations(scene: Scene) -> None:
    """What the daemon is said to be killed at is there to be passed."""
    life = [one for one in OPERATIONS if one.name in {"create", "start", "stop", "remove"}]
    names = {passage.name.split()[1] for one in life for passage in recorded(one, scene)}
    assert names == {door.value for door in Door}

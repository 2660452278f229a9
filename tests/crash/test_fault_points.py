"""The daemon killed at every commit and effect of every operation on a container.

First an operation is done with its passages written down (:mod:`supervisor.faults`); then, for each of them, it is done
again with the daemon dying there. The next daemon must find records and kernel in agreement, the client can ask again and
gets what it wanted, the container's events make a life, and another person's container has not noticed. Afterwards nothing
of the container is left.

Each kind of passage is taken in the first operation that has it; with ``BAKEHOUSE_FAULT_POINTS=all`` every passage of every
operation is.
"""

from __future__ import annotations

import faulthandler
import os
import time
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch

import attrs
import pytest

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
TRIES = 4
PORTS = "[network]\nephemeral_first = 21000\nephemeral_last = 29999"
"""Out of the way of others on this host, who might take one while the daemon is dead."""
ASIDE = (
    "thread monitor.",
    "thread events.",
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
    """Those of this run, one for each moment: between coming out of a door and going into the next nothing happens."""
    found = [
        passage
        for passage, then in zip(passages, [*passages[1:], None], strict=True)
        if not (then and passage.name.startswith("after ") and then.name.startswith("before "))
    ]
    taken = [passage for passage in found if EVERY or passage.name not in scene.kinds]
    once = {passage.name: passage for passage in reversed(taken)}
    scene.kinds |= set(once)
    return taken if EVERY else list(reversed(once.values()))


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
    scene.faults.off()
    if died:
        daemon.start()
    elif said is not None:
        raise said
    where = f"killed {passage.name} ({passage.number}) of {operation.name} of {subject.name}"
    try:
        assert settled(lambda: disagreements(daemon)) == []
        if died:
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
    return died

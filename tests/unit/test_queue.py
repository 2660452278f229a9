"""``bakehouse queue``, as text; and what of it one person sees."""

from __future__ import annotations

import attrs

from protocol.samples import Queue, QueuedWork
from supervisor.cli.queue import account, plain

FULL = Queue(
    "tight",
    "work waited for memory 30 %",
    ("hold builds",),
    (
        QueuedWork(1_000, "container web", "start", 0.04, waiting=False),
        QueuedWork(1_001, "step 2\x1b of build ab", "step", 12.34, waiting=True, why="held"),
    ),
)


def shown(queue: Queue) -> list[str]:
    return plain(attrs.asdict(queue), str).splitlines()


def test_as_text() -> None:
    assert shown(FULL) == [
        "tight: work waited for memory 30 %",
        "relief: hold builds",
        "OWNER  KIND   WHAT                 STATE  SECONDS  WHY",
        "1000   start  container web        works  0.0",
        "1001   step   step 2? of build ab  waits  12.3     held",
    ]
    assert shown(Queue("calm", "no pressure"))[1] == "nothing works, and nothing waits"


def test_others_are_counted_and_not_named() -> None:
    seen = FULL.visible_to(1_000)
    assert [each.owner for each in seen.work] == [1_000]
    assert shown(seen)[-1] == "1 of other people's"
    assert "1001" not in "".join(shown(seen))


def test_a_uid_without_an_account_is_told_as_it_is() -> None:
    assert (account(0), account(4_294_967_000)) == ("root", "4294967000")

"""``bakehouse queue``: who works, who waits for what, and why, as text. Pure but for the names of accounts."""

from __future__ import annotations

from collections.abc import Callable

from protocol import codec
from protocol.samples import Queue, QueuedWork
from supervisor.cli.top import printable

COLUMNS = ("OWNER", "KIND", "WHAT", "STATE", "SECONDS", "WHY")


def plain(answer: object, name_of: Callable[[int], str] | None = None) -> str:
    """The answer of ``GET /bakehouse/v1/queue`` for people.

    Args:
        answer: As it came.
        name_of: The account of a uid; the host's when ``None``.
    """
    queue = codec.structure(answer if isinstance(answer, dict) else {}, Queue)
    lines = [f"{queue.verdict}: {printable(queue.reason)}"]
    if queue.relief:
        lines.append(f"relief: {', '.join(queue.relief)}")
    lines += _table(queue.work, name_of or account)
    if queue.others:
        lines.append(f"{queue.others} of other people's")
    return "\n".join(lines) + "\n"


def account(uid: int) -> str:
    """The login name of a uid, or the uid."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _table(work: tuple[QueuedWork, ...], name_of: Callable[[int], str]) -> list[str]:
    if not work:
        return ["nothing works, and nothing waits"]
    rows = [COLUMNS, *(_row(each, name_of) for each in work)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _row(each: QueuedWork, name_of: Callable[[int], str]) -> tuple[str, ...]:
    state = "waits" if each.waiting else "works"
    texts = (name_of(each.owner), each.kind, each.what, state, f"{each.seconds:.1f}", each.why)
    return tuple(map(printable, texts))

"""``bakehouse top``: the stream's samples, shown as they come."""

from __future__ import annotations

import pwd
import sys
from collections.abc import Callable, Mapping

from rich.console import Console
from rich.live import Live

from protocol import codec
from protocol.client import Stream, StreamLostError, StreamRefusedError, open_stream
from protocol.messages import Sample, Want
from protocol.samples import HostSample
from supervisor.cli.follow import told
from supervisor.cli.top import as_json, plain, table
from supervisor.errors import Unavailable

NO_EVENTS = Want(types=("none",))


async def watch(socket: str, *, once: bool, json: bool) -> None:
    """Show samples until interrupted, or the first one that has rates.

    Raises:
        Unavailable: There is no daemon (any more).
    """
    console = Console(highlight=False)
    try:
        async with open_stream(socket, want=NO_EVENTS, samples=True) as stream:
            if once or json or not console.is_terminal:
                await _show(stream, _write_json if json else _write_plain, once=once)
                return
            with Live(console=console, screen=True, auto_refresh=False) as live:
                await _show(
                    stream, lambda sample: live.update(table(sample, _names(sample)), refresh=True)
                )
    except StreamRefusedError as error:
        raise told(error) from error
    except StreamLostError as error:
        raise Unavailable(
            f"cannot watch the host: {error}", hint="is bakehoused running?"
        ) from error


async def _show(stream: Stream, show: Callable[[HostSample], None], *, once: bool = False) -> None:
    async for message in stream:
        if not isinstance(message, Sample):
            continue
        sample = codec.structure(message.sample, HostSample)
        if once and not sample.seconds:
            continue
        show(sample)
        if once:
            return


def _write_json(sample: HostSample) -> None:
    sys.stdout.write(f"{as_json(sample)}\n")
    sys.stdout.flush()


def _write_plain(sample: HostSample) -> None:
    sys.stdout.write(f"{plain(sample, _names(sample))}\n")
    sys.stdout.flush()


def _names(sample: HostSample) -> Mapping[int, str]:
    """Accounts by uid; a uid without one has no name."""
    names: dict[int, str] = {}
    for owner in sample.owners:
        try:
            names[owner.owner] = pwd.getpwuid(owner.owner).pw_name
        except KeyError:
            continue
    return names

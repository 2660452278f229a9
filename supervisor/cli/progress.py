"""Showing long work as it goes: the daemon's JSON messages as lines, and a live last line on a terminal."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import attrs
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from supervisor.errors import Internal


@attrs.define
class Progress:
    """Prints messages as Docker's clients know them: ``stream``, ``status``, ``aux``, ``error``.

    ``image_id`` is what the work made, once it is known.
    """

    quiet: bool = False
    image_id: str = ""
    _line: str = ""
    _status: Status | None = None

    async def show(self, messages: AsyncIterator[object]) -> None:
        """Show all of ``messages``.

        Raises:
            Internal: The last one says that the work failed.
        """
        console = Console(highlight=False)
        if self.quiet or not console.is_terminal:
            await self._show_each(messages)
            return
        with console.status("…") as self._status:
            await self._show_each(messages)
        self._status = None

    async def _show_each(self, messages: AsyncIterator[object]) -> None:
        async for message in messages:
            if isinstance(message, dict):
                self._show({str(key): value for key, value in message.items()})
        if self._line:
            self._print_line(self._line)

    def _show(self, message: dict[str, object]) -> None:
        detail = message.get("errorDetail")
        if isinstance(detail, dict):
            raise Internal(str(detail.get("message", "")))
        if "error" in message:
            raise Internal(str(message["error"]))
        aux = message.get("aux")
        if isinstance(aux, dict) and "ID" in aux:
            self.image_id = str(aux["ID"])
        text = message.get("stream")
        if text is None and "status" in message:
            text = f"{message['status']}\n"
        if text is not None and not self.quiet:
            self._print(str(text))

    def _print(self, text: str) -> None:
        """Whole lines only: a part of a line waits for its end."""
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            self._print_line(line)

    def _print_line(self, line: str) -> None:
        if self._status is None:
            sys.stdout.write(f"{line}\n")
            sys.stdout.flush()
            return
        bold = line.startswith(("Step ", "Successfully "))
        self._status.console.print(f"[bold]{escape(line)}[/bold]" if bold else escape(line))
        if line.startswith("Step "):
            self._status.update(escape(line))

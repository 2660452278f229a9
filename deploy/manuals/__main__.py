"""Writes them all: ``python -m deploy.manuals DIRECTORY``."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.manuals import commands, daemon, settings
from supervisor.config import INSTALLED_CONFIG

SHARE = Path("usr/local/share")


def texts(version: str) -> Iterator[tuple[Path, str]]:
    """Each file's path below ``/``, and what is in it."""
    for page in (*commands.pages(version), daemon.page(version), settings.page(version)):
        name = f"{page.name}.{page.section}"
        yield SHARE / "man" / f"man{page.section}" / name, page.render()
    for path, text in commands.completions().items():
        yield SHARE / path, text
    yield INSTALLED_CONFIG.relative_to("/"), settings.explained_file()


def main(directory: Path) -> None:
    """Write all of them below a directory."""
    for path, text in texts(importlib.metadata.version("bakehouse")):
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

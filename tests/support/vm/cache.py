"""The directory where images and snapshots are kept: each has a name with the hash of all it was made from.

Several runs may share it. Whoever makes something holds its lock, whoever starts from it shares it, and of each kind only
the latest used stay.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import attrs

REPOSITORY = Path(__file__).parents[3]
# How many of each kind stay; what a machine runs from stays until it ends, whatever is removed.
KEPT = {"image": 2, "booted": 2, "installed": 3, "checkout": 8, "wheels": 2, "releases": 3}


def directory() -> Path:
    """Where it is: ``BAKEHOUSE_VM_CACHE``, or var/vm in the checkout."""
    return Path(os.environ.get("BAKEHOUSE_VM_CACHE") or REPOSITORY / "var" / "vm")


def digest(*parts: str) -> str:
    """The hash of what something is made from, short enough for a name."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


@attrs.frozen
class Entry:
    """One thing that is kept, or is not there yet.

    Attributes:
        kind: Such as ``image``.
        key: The hash of what it is made from.
    """

    kind: str
    key: str

    @property
    def path(self) -> Path:
        """Its directory."""
        return directory() / f"{self.kind}-{self.key}"

    @property
    def identity(self) -> str:
        """Names this very making of it: what stands on it is no more once it is made anew."""
        return (self.path / "identity").read_text()

    @contextlib.contextmanager
    def used(self) -> Iterator[Path]:
        """Its directory, which stays while in here."""
        with self._locked(fcntl.LOCK_SH):
            os.utime(self.path)
            yield self.path

    def made(self, make: Callable[[Path], None]) -> Entry:
        """It, made now when it is not there: ``make`` fills a directory, which counts only when that was done."""
        if self.path.exists():
            return self
        with self._locked(fcntl.LOCK_EX):
            if not self.path.exists():
                making = self.path.with_suffix(".making")
                shutil.rmtree(making, ignore_errors=True)
                making.mkdir(parents=True)
                try:
                    make(making)
                    (making / "identity").write_text(uuid.uuid4().hex)
                    making.rename(self.path)
                finally:
                    shutil.rmtree(making, ignore_errors=True)
        self._prune()
        return self

    @contextlib.contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        directory().mkdir(parents=True, exist_ok=True)
        with (directory() / f"{self.kind}-{self.key}.lock").open("w") as lock:
            fcntl.flock(lock, how)
            yield

    def _prune(self) -> None:
        """Remove the least used of its kind, and what was never finished, as far as nobody is at it just now."""
        found = list(directory().glob(f"{self.kind}-*"))
        whole = [path for path in found if not path.suffix]
        whole.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        unfinished = [path for path in found if path.suffix == ".making"]
        for path in (*whole[KEPT[self.kind] :], *unfinished):
            other = Entry(self.kind, path.stem.removeprefix(f"{self.kind}-"))
            with contextlib.suppress(BlockingIOError), other._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                shutil.rmtree(path)


@cache
def files(*, of: Path = REPOSITORY) -> Sequence[Path]:
    """The files of the checkout that git knows or would, relative to it."""
    listed = subprocess.run(
        ["git", "-C", of, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
        check=True,
        env={
            **os.environ,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "safe.directory",
            "GIT_CONFIG_VALUE_0": "*",
        },
    )
    names = sorted(name.decode() for name in listed.stdout.split(b"\0") if name)
    return [Path(name) for name in names if (of / name).is_file()]


def digest_of_files(names: Sequence[Path]) -> str:
    """The hash of files of the checkout: their names, modes and contents."""
    whole = hashlib.sha256()
    for name in names:
        path = REPOSITORY / name
        whole.update(f"{name}\0{path.stat().st_mode & 0o777:o}\0".encode())
        whole.update(hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()[:16]

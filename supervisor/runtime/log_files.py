"""The files of a container's log: rotated, read from the front, and from the end. Blocking; called in threads.

Words: ``log`` is the *current* file, which conmon writes; ``log.7`` is the seventh that was rotated away, and may have
become ``log.7.gz``. Rules: a number is never given twice while an older one is there, so a reader who knows which file
it is at finds the next whatever was rotated meanwhile; the newest rotated file may still be written to until there is a
current one again, and is left alone so long.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Generator, Mapping
from contextlib import suppress
from pathlib import Path

from supervisor.errors import Unavailable
from supervisor.runtime.log_settings import LogSettings

BLOCK_BYTES, FIRST_BLOCK_BYTES = 262_144, 8_192
LINE_BYTES_MAX = 65_536
"""conmon writes no longer ones."""
COMPRESSION_LEVEL = 1
_File = io.FileIO | gzip.GzipFile
_ROTATED = re.compile(r"\.([0-9]{1,18})(\.gz)?")


def rotated(log: Path) -> Mapping[int, Path]:
    """The files before the current one by their numbers, oldest first."""
    found: dict[int, Path] = {}
    with suppress(FileNotFoundError):
        for path in log.parent.iterdir():
            match = _ROTATED.fullmatch(path.name.removeprefix(log.name))
            if match and (match[2] or int(match[1]) not in found):
                found[int(match[1])] = path
    return dict(sorted(found.items()))


def tend(log: Path, settings: LogSettings, *, written: bool) -> bool:
    """Hold the log's files to their bounds; whether conmon must open the current one anew.

    What goes while this looks was its container's, and has gone with it.

    Args:
        log: The current file.
        settings: The bounds.
        written: Whether conmon may be writing.
    """
    try:
        size = size_of(log)
        before = rotated(log)
        if size is None and written:
            return bool(before)  # it was moved away, and conmon has not heard of it
        _keep(log, before, settings)
        if size is None or size < settings.bytes_max:
            return False
        log.replace(log.with_name(f"{log.name}.{max(before, default=0) + 1}"))
    except OSError:
        return False
    return True


def _keep(log: Path, before: Mapping[int, Path], settings: LogSettings) -> None:
    """Of the rotated files the newest are kept."""
    over = len(before) - (settings.files_max - 1)
    for place, path in enumerate(before.values()):
        if place < over:
            path.unlink(missing_ok=True)
        elif settings.compressed and path.suffix != ".gz":
            _compress(path)


def _compress(path: Path) -> None:
    """``path`` becomes ``path.gz``; cut off in the middle it is done again."""
    part, whole = path.with_name(f"{path.name}.part"), path.with_name(f"{path.name}.gz")
    with path.open("rb") as source, gzip.open(part, "wb", COMPRESSION_LEVEL) as target:
        while block := source.read(BLOCK_BYTES):
            target.write(block)
    part.chmod(stat.S_IMODE(path.stat().st_mode))
    part.replace(whole)
    path.unlink()


def size_of(path: Path) -> int | None:
    """The file's length in bytes; None if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


class LogReader:
    """Reads the files one after another, some whole lines at a time; one call at a time.

    Args:
        log: The current file; it need not exist.
        bytes_max: How much of the log counts, from its end; what is beyond waits to be thrown away.
    """

    def __init__(self, log: Path, bytes_max: int) -> None:
        self._log = log
        self._number = 0
        self._file: _File | None = None
        self._current = False
        self._rest = b""
        self._skip = _excess(log, bytes_max)

    def lines(self) -> list[bytes]:
        """The next lines without their newlines; none at the end of what is written so far.

        Raises:
            Unavailable: The log cannot be read.
        """
        while True:
            if self._file is None and not self._open_next():
                return []
            assert self._file is not None
            data = self._file.read(BLOCK_BYTES)
            if not data and not self._over():
                return []
            if not data and not (
                data := self._file.read(BLOCK_BYTES)
            ):  # written before it was over
                self.close()
                continue
            *lines, self._rest = (self._rest + data).split(b"\n")
            if lines:
                return lines

    def newer(self) -> bool:
        """Whether there may be more than was read; does not block."""
        if self._file is None or not self._current:
            return True
        here = os.fstat(self._file.fileno())
        return here.st_size > self._file.tell() or self._replaced()

    def backward(self) -> Generator[list[bytes], None, None]:
        """Lines from the newest to the oldest, newest first; reading goes on behind them whenever this is left.

        Raises:
            Unavailable: The log cannot be read.
        """
        files = [*rotated(self._log)]
        self._number, self._skip = max(files, default=0), 0
        self._current = self._open(self._log)
        if self._file is not None:
            end = self._file.seek(0, os.SEEK_END)
            self._rest = _behind_last_newline(self._file, end)
            yield from _backward(self._file, end - len(self._rest))
            self._file.seek(end)
        for number in reversed(files):
            with suppress(FileNotFoundError), _opened(self._log, number, whole=True) as file:
                end = file.seek(0, os.SEEK_END)
                yield from _backward(file, end - len(_behind_last_newline(file, end)))

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
        self._file, self._rest = None, b""

    def _open_next(self) -> bool:
        """The file after the one that was read; what was not to be kept any more is passed over."""
        while True:
            later = [number for number in rotated(self._log) if number > self._number]
            if not later:
                opened = self._open(self._log)
                if opened and any(number > self._number for number in rotated(self._log)):
                    self.close()  # rotated just now: it has a number
                    continue
                self._current = opened
                self._pass_over()
                return opened
            self._number = later[0]
            try:
                self._file = _opened(self._log, later[0])
            except FileNotFoundError:
                continue
            self._current = False
            self._pass_over()
            return True

    def _pass_over(self) -> None:
        """Skip what does not count, up to the end of a line."""
        if self._file is None or not self._skip:
            return
        size = self._file.seek(0, os.SEEK_END)
        skipped, self._skip = min(size, self._skip), max(self._skip - size, 0)
        self._file.seek(skipped)
        if skipped < size:
            self._file.readline()

    def _open(self, path: Path) -> bool:
        try:
            self._file = path.open("rb", buffering=0)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise Unavailable(f"cannot read the log: {error.strerror}") from error
        return True

    def _over(self) -> bool:
        """Whether nothing more is written to the file we are at the end of."""
        if self._current and self._replaced():
            self._current = False
            self._number += 1  # which it has got
            return True
        return not self._current

    def _replaced(self) -> bool:
        """Whether the current file was rotated away, and conmon writes to another."""
        assert self._file is not None
        try:
            return not os.path.samestat(self._log.stat(), os.fstat(self._file.fileno()))
        except FileNotFoundError:
            return False


def _opened(log: Path, number: int, *, whole: bool = False) -> _File:
    """A rotated file as it was written; with ``whole`` it can be sought in.

    Raises:
        FileNotFoundError: It was thrown away.
        Unavailable: It cannot be read.
    """
    plain = log.with_name(f"{log.name}.{number}")
    try:
        return plain.open("rb", buffering=0)
    except FileNotFoundError:
        packed = gzip.GzipFile(plain.with_name(f"{plain.name}.gz"))
    except OSError as error:
        raise Unavailable(f"cannot read the log: {error.strerror}") from error
    if not whole:
        return packed
    with packed, tempfile.TemporaryFile("w+b", buffering=0) as unpacked:
        shutil.copyfileobj(packed, unpacked, BLOCK_BYTES)
        return os.fdopen(os.dup(unpacked.fileno()), "rb", buffering=0)


def _behind_last_newline(file: _File, end: int) -> bytes:
    """The line that is being written just now."""
    start = max(end - LINE_BYTES_MAX, 0)
    file.seek(start)
    return file.read(end - start).rpartition(b"\n")[2]


def _backward(file: _File, end: int) -> Generator[list[bytes], None, None]:
    """The lines up to ``end``, where one ends, newest first."""
    rest, end = b"", end - 1
    size = FIRST_BLOCK_BYTES
    while end > 0:
        start, size = max(end - size, 0), min(size * 2, BLOCK_BYTES)
        file.seek(start)
        rest, *lines = (file.read(end - start) + rest).split(b"\n")
        if not start:
            lines.insert(0, rest)
        lines.reverse()
        yield lines
        end = start


def _excess(log: Path, bytes_max: int) -> int:
    """How many bytes there are more than count."""
    sizes = [size_of(path) or 0 for path in (*rotated(log).values(), log)]
    return max(sum(sizes) - bytes_max, 0)

"""Follows a file through its rotated generations. All of it blocks, so it runs in a thread."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import BinaryIO

from adsbridge.sources import generations
from adsbridge.sources._lines import Line, LineSplitter
from adsbridge.sources.generations import TAIL, Position

_CHUNK = 1 << 19


class Reader:
    """Reads lines from where a position says, and on through every newer generation.

    Args:
        path: the live file.
        limit: the longest line, in bytes.
        position: where to go on; without one, the live file's beginning, or its end if ``at_end``.

    Attributes:
        advanced: whether the last call of ``lines`` went on to another file.
        more: whether the last call of ``lines`` stopped before the file's end.
        gap: why lines may be missing, if so; whoever tells it empties it.

    Raises:
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path, limit: int, position: Position | None, *, at_end: bool) -> None:
        self._path = path
        self._limit = limit
        self._file: BinaryIO | None = None
        self.advanced = False
        self.more = False
        self.gap = ""
        if position is not None:
            self._resume(position)
        else:
            self._open(path, at_end=at_end)

    def _resume(self, position: Position) -> None:
        found = generations.resume(self._path, position)
        if found is not None:
            self._take(found, position.offset)
            return
        start = generations.newer(self._path, position.time)
        if position.inode:
            self.gap = f"the file read last is gone; going on with {start}"
        self._open(start)

    def _open(self, path: Path, *, at_end: bool = False) -> None:
        file = generations.open_file(path)
        if file is not None:
            self._take(file, os.fstat(file.fileno()).st_size if at_end else 0)

    def _take(self, file: BinaryIO, offset: int) -> None:
        self._exchange(file)
        self._splitter = LineSplitter(self._limit, offset)
        # What was read and may still be needed: from a little before the first unfinished line.
        self._window = generations.tail(file, offset)
        self._window_start = offset - len(self._window)

    def _exchange(self, file: BinaryIO) -> None:
        self.close()
        status = os.fstat(file.fileno())
        self._file = file
        self._identity = (status.st_dev, status.st_ino)

    @property
    def start(self) -> Position:
        """Where a new reader starts; before all that is still to be written if there is no file yet."""
        return self.position(self._splitter.offset) if self._file else Position(0, 0, 0, time=time.time())

    @property
    def prefix(self) -> bytes:
        """What makes an offset a position: the file's device and inode."""
        return b"%d:%d:" % self._identity

    def position(self, offset: int) -> Position:
        """The checkpoint at the end of one of the lines returned last."""
        end = offset - self._window_start
        device, inode = self._identity
        changed = os.fstat(self._file.fileno()).st_mtime if self._file else 0.0
        return Position(device, inode, offset, generations.proof(self._window[max(0, end - TAIL) : end]), changed)

    def lines(self) -> list[Line]:
        """The next lines, none if there are none yet.

        Raises:
            OSError: the file cannot be read.
        """
        self.advanced = self.more = False
        if self._file is None:
            self._open(self._path)
        if self._file is None:
            return []
        read_to = self._window_start + len(self._window)
        if not generations.holds(self._file, self.position(read_to)):
            self._recover(read_to)
            return []
        chunk = os.pread(self._file.fileno(), _CHUNK, read_to)
        if not chunk:
            return self._next_generation(self._file, read_to)
        self.more = len(chunk) == _CHUNK
        keep_from = max(self._window_start, self._splitter.offset - TAIL)
        self._window = self._window[keep_from - self._window_start :] + chunk
        self._window_start = keep_from
        return self._splitter.feed(chunk)

    def _recover(self, read_to: int) -> None:
        """The file was cut off: go on in the copy that copytruncate made, or at the beginning."""
        self.advanced = True
        copy = generations.resume(self._path, self.position(read_to))
        if copy is not None:
            self._exchange(copy)  # it holds the same up to here, so what was begun goes on in it
            return
        self.gap = "the file was cut off, and no copy of what it held was found"
        self.close()

    def rewind(self, line: Line) -> None:
        """Give a line again, and what is behind it; one of the lines returned last."""
        self._splitter = LineSplitter(self._limit, line[1])
        self._window = self._window[: line[1] - self._window_start]

    def _next_generation(self, file: BinaryIO, read_to: int) -> list[Line]:
        """At the end of a file whose writer has gone on to another: its last line, then the next file."""
        following = self._following(file)
        # What was written between the last read and the change to the other file is still to be read.
        if following is None or os.fstat(file.fileno()).st_size > read_to:
            return []
        if last := self._splitter.finish():
            return last
        self.advanced = True
        self._open(following)
        return []

    def _following(self, file: BinaryIO) -> Path | None:
        try:
            live = self._path.stat()
        except FileNotFoundError:
            return None
        # logrotate makes the new file before the writer opens it: until it holds something, the old one may grow.
        if (live.st_dev, live.st_ino) == self._identity:
            return None
        following = generations.after(self._path, file)
        return following if following != self._path or live.st_size > 0 else None

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

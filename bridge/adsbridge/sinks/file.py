"""Alerts in a file, one JSON object per line."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import Field

from adsbridge.components import Settings
from adsbridge.errors import Retryable, StartError
from adsbridge.sinks._worker import Worker
from adsbridge.sinks.base import Batch, Sink
from adsbridge.units import Size


class FileSettings(Settings):
    """Settings of the file sink."""

    path: Path = Field(description="The file; made if missing, readable by its owner and group")
    max_size: Size | None = Field(
        None, description="Rotate when the file would grow beyond it (file.1, file.2, …); left out: never"
    )
    keep: int = Field(5, ge=1, le=100, description="How many rotated files to keep")


class File(Sink):
    """Appends alerts to a file as JSON lines, flushed to the disk.

    Rotates by itself (``max_size``), or lets logrotate do it: SIGUSR1 opens the file anew.
    """

    type = "file"
    Config = FileSettings
    example = "path: /var/log/adsbridge/alerts.jsonl\nmax_size: 100MiB"

    def __init__(self, name: str, settings: FileSettings) -> None:
        super().__init__(name, settings)
        self._path, self._max_size, self._keep = settings.path, settings.max_size, settings.keep
        self._fd: int | None = None
        self._moved = False
        self._worker = Worker(name)

    async def open(self) -> None:
        """Open the file, making it and its folder if missing; see ``Sink.open``."""
        self._expect_regular_file()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        except OSError as error:
            raise StartError(f"sink {self.name}: cannot write {self._path}: {error.strerror}") from error

    async def probe(self) -> None:
        """See whether the file can be written or made, without making it; see ``Sink.probe``."""
        self._expect_regular_file()
        place = self._nearest()
        if place != self._path and not place.is_dir():
            raise Retryable(f"cannot write {self._path}: {place} is no folder")
        if not os.access(place, os.W_OK):
            raise Retryable(f"cannot write {self._path}: {place} is not writable for this user")

    def _nearest(self) -> Path:
        """The file, or the nearest folder above it that is there."""
        return next(place for place in (self._path, *self._path.absolute().parents) if os.path.exists(place))

    def _expect_regular_file(self) -> None:
        if os.path.exists(self._path) and not os.path.isfile(self._path):
            raise StartError(f"sink {self.name}: cannot write {self._path}: it is not a regular file")

    def _open(self) -> int:
        if self._fd is None:
            self._fd = os.open(self._path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        return self._fd

    async def send(self, batch: Batch) -> None:
        """Append the batch and flush it to the disk; see ``Sink.send``."""
        await self._worker.run(lambda: self._append(b"\n".join(batch.payloads) + b"\n"))

    def _append(self, data: bytes) -> None:
        start = None
        try:
            if self._moved or not self._path.exists():  # a file without a name is read by nobody
                self._moved = False
                self._close()
            fd = self._open()
            start = os.fstat(fd).st_size
            if self._max_size is not None and start and start + len(data) > self._max_size:
                self._rotate()
                fd, start = self._open(), 0
            if start and os.pread(fd, 1, start - 1) != b"\n":
                data = b"\n" + data  # a crash left a line half written
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fdatasync(fd)
        except OSError as error:
            self._cut_off(start)
            raise Retryable(f"cannot write {self._path}: {error.strerror}") from error

    def _cut_off(self, size: int | None) -> None:
        """Remove what a failed write left, so that no half line stays between good ones."""
        if self._fd is not None and size is not None:
            try:
                os.ftruncate(self._fd, size)
            except OSError:
                self._close()

    def _rotate(self) -> None:
        self._close()
        for number in range(self._keep - 1, 0, -1):
            older = self._numbered(number)
            if older.exists():
                older.replace(self._numbered(number + 1))
        self._path.replace(self._numbered(1))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def reopen(self) -> None:
        """Open the file anew at the next batch; see ``Sink.reopen``."""
        self._moved = True

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    async def close(self) -> None:
        """Close the file; see ``Sink.close``."""
        await self._worker.run(self._close)
        self._worker.stop()

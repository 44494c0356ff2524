"""Reads a growing log file without losing or repeating a line, over rotations and restarts.

The checkpoint (file, offset and a digest of what is before it) is committed together with the alerts of the lines that
it covers, so a crash at any moment repeats nothing and loses nothing.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog
from pydantic import Field

from adsbridge.components import Settings
from adsbridge.errors import SpoolError, StartError
from adsbridge.parse import Parsed, Parser, join_continued
from adsbridge.sources._lines import Line, LineSplitter, TooLong
from adsbridge.sources._reader import Reader
from adsbridge.sources.base import Intake, Source
from adsbridge.sources.generations import Position
from adsbridge.units import Duration, Size

_CHUNK = 1 << 20
_LINES = 500  # per submission
log = structlog.get_logger()


class TailSettings(Settings):
    """Settings of a source that reads a log file."""

    path: Path = Field(description="The file, or '-' for standard input")
    start: Literal["beginning", "end"] = Field(
        "beginning", description="Where to start in a file never read before; later the checkpoint decides"
    )
    poll: Duration = Field(0.25, gt=0, description="How often to look for new lines")
    max_line: Size = Field(2**20, description="Longest line; a longer one becomes a dead letter")


class Tail(Source):
    """Base of the file sources; a subclass names its parser and what starts a text record."""

    Config = TailSettings
    settings: TailSettings
    parser: Parser
    starts_text: Callable[[bytes], bool]

    def __init__(self, name: str, settings: TailSettings) -> None:
        super().__init__(name, settings)
        self._host = socket.gethostname()
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._said: str | None = None

    @property
    def address(self) -> str:
        """The file's path; see ``Source.address``."""
        return "standard input" if self._is_stdin else str(self.settings.path)

    @property
    def problem(self) -> str | None:
        """See ``Source.problem``: the last error, until lines are read again."""
        return self._said

    @property
    def reloadable(self) -> bool:
        """See ``Source.reloadable``: what was read from standard input cannot be given to another."""
        return not self._is_stdin

    @property
    def _is_stdin(self) -> bool:
        return str(self.settings.path) == "-"

    async def start(self, intake: Intake) -> None:
        """Begin to read; see ``Source.start``. A file that is not there yet is waited for."""
        if not self._is_stdin and (why := _unreadable(self.settings.path)):
            raise StartError(f"source {self.name}: {self.settings.path} {why}")
        follow = self._read_stdin if self._is_stdin else self._follow
        self._task = asyncio.create_task(follow(intake), name=f"source {self.name}")

    async def stop(self) -> None:
        """Stop reading; see ``Source.stop``."""
        self._stopping.set()
        if self._task is not None:
            await self._task

    async def finished(self) -> None:
        """See ``Source.finished``: standard input ends, a file never does."""
        if self._is_stdin and self._task is not None:
            await asyncio.wait({self._task})
            return
        await super().finished()

    async def _follow(self, intake: Intake) -> None:
        position: Position | None = None
        while not self._stopping.is_set():
            reader = None
            try:
                saved = await intake.checkpoint(self.name)
                if saved is not None:
                    position = msgspec.json.decode(saved, type=Position)
                reader = await asyncio.to_thread(
                    Reader,
                    self.settings.path,
                    self.settings.max_line,
                    position,
                    at_end=self.settings.start == "end",
                )
                if saved is None:  # so that a crash before the first lines does not move the start
                    position = reader.start
                    await self._submit(intake, Parsed(), position)
                await self._read(reader, intake)
            except Exception as error:
                self._say_once(error)
                await self._pause(1.0)
            finally:
                if reader is not None:
                    reader.close()

    async def _read(self, reader: Reader, intake: Intake) -> None:
        """Hand in lines until stopped; an error means that the reader starts again from the checkpoint."""
        while not self._stopping.is_set():
            lines = await asyncio.to_thread(reader.lines)
            if reader.gap:
                log.warning("lines may be missing from the log", source=self.name, reason=reader.gap)
                reader.gap = ""
            if lines and reader.more:
                lines = self._without_unfinished(lines, reader)
            for part in self._parts([line for line in lines if line[0]]):
                await self._submit(intake, self._parse(part, reader.prefix), reader.position(part[-1][2]))
                self._said = None
            if not lines and not reader.advanced:
                await self._pause(self.settings.poll)

    async def _submit(self, intake: Intake, parsed: Parsed, position: Position) -> None:
        await (await intake.submit(self.name, parsed, msgspec.json.encode(position).decode()))

    def _starts(self, line: Line) -> bool:
        """Whether a record starts with this line; a text record may go on over further ones."""
        return isinstance(line[0], TooLong) or line[0][:1] == b"{" or type(self).starts_text(line[0])

    def _parts(self, lines: list[Line]) -> Iterator[list[Line]]:
        """Portions to hand in, cut where a record starts."""
        start = 0
        while start < len(lines):
            end = start + _LINES
            while end < len(lines) and not self._starts(lines[end]):
                end += 1
            yield lines[start:end]
            start = end

    def _without_unfinished(self, lines: list[Line], reader: Reader) -> list[Line]:
        """Leave the last record, if it is text that may go on behind what was read, for the next time."""
        last = next((place for place in range(len(lines) - 1, 0, -1) if self._starts(lines[place])), 0)
        first = lines[last][0] if last else b"{"
        if isinstance(first, TooLong) or first[:1] == b"{":
            return lines
        reader.rewind(lines[last])
        return lines[:last]

    def _parse(self, lines: Iterable[Line], prefix: bytes) -> Parsed:
        parsed = Parsed()
        records = self._records(lines, prefix, parsed)
        for record, position in join_continued(records, type(self).starts_text):
            parsed.take(type(self).parser, record, position, self._host)
        return parsed

    @staticmethod
    def _records(lines: Iterable[Line], prefix: bytes, parsed: Parsed) -> Iterator[tuple[bytes, bytes]]:
        for line, start, _ in lines:
            if isinstance(line, TooLong):
                parsed.received += 1
                parsed.reject(line, line.start)
            elif line.strip():
                yield line, prefix + b"%d" % start

    async def _read_stdin(self, intake: Intake) -> None:
        """Standard input has no checkpoint: what is in flight at a crash is lost, as in any pipe."""
        splitter = LineSplitter(self.settings.max_line)
        chunks = _Stdin()
        chunk = b"\n"
        while chunk:
            chunk = await self._unless_stopping(chunks.next())
            lines = splitter.feed(chunk) if chunk else splitter.finish()
            for part in self._parts(lines):
                await self._insist(intake, self._parse(part, b"stdin:"))

    async def _unless_stopping(self, reading: Coroutine[Any, Any, bytes]) -> bytes:
        read = asyncio.ensure_future(reading)
        stop = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({read, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if not read.done():
            read.cancel()
            return b""
        return bytes(read.result())

    async def _insist(self, intake: Intake, parsed: Parsed) -> None:
        while True:
            try:
                await (await intake.submit(self.name, parsed))
            except SpoolError as error:
                self._say_once(error)
                if self._stopping.is_set():
                    return
                await self._pause(1.0)
            else:
                return

    def _say_once(self, error: Exception) -> None:
        if str(error) != self._said:
            is_defect = not isinstance(error, OSError | SpoolError)
            log.error("cannot take records; trying again", source=self.name, error=str(error), exc_info=is_defect)
            self._said = str(error)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return


def _unreadable(path: Path) -> str | None:
    """Why a path can never be read as a log; a file that is not there yet can."""
    if os.path.isdir(path):
        return "is a folder; name the file in it"
    if os.path.exists(path) and not os.path.isfile(path):
        return "is no regular file; to read a pipe, use path: '-'"
    return None


class _Stdin:
    """Standard input in chunks, whatever it is: a pipe, a file, a terminal.

    A thread reads, since only a thread may wait for it; it is a daemon, so that the process can end all the same.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._chunks: asyncio.Queue[bytes] = asyncio.Queue()
        self._wanted = threading.Semaphore(0)
        threading.Thread(target=self._read, name="stdin", daemon=True).start()

    async def next(self) -> bytes:
        """The next chunk; nothing at the end."""
        self._wanted.release()
        return await self._chunks.get()

    def _read(self) -> None:
        chunk = b"\n"
        while chunk:
            self._wanted.acquire()
            try:
                chunk = os.read(0, _CHUNK)
            except OSError as error:
                log.error("cannot read standard input", error=error.strerror)
                chunk = b""
            try:
                self._loop.call_soon_threadsafe(self._chunks.put_nowait, chunk)
            except RuntimeError:  # the loop has ended
                return

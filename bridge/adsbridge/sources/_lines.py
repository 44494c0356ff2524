"""Bytes to lines, bounded: a line longer than allowed is cut off and told, never held in memory whole."""

from __future__ import annotations

from adsbridge.errors import ParseError
from adsbridge.parse import KEPT_BYTES


class TooLong(ParseError):  # noqa: N818 - a state of the line, carried like a value
    """A line longer than the limit.

    Attributes:
        start: the first bytes of it, kept for the dead letter.
    """

    def __init__(self, start: bytes, limit: int) -> None:
        super().__init__("too_long", f"the line is longer than {limit} bytes (max_line)")
        self.start = start


Line = tuple[bytes | TooLong, int, int]
"""(line, start, end): its bytes without line end, and its offsets; ``end`` is behind the line end."""


class LineSplitter:
    """Cuts a stream of chunks into lines with their offsets.

    Args:
        limit: the longest line, in bytes.
        offset: where in its file the stream starts.
    """

    def __init__(self, limit: int, offset: int = 0) -> None:
        self._limit = limit
        self._kept = min(limit, KEPT_BYTES)
        self._rest = b""
        self._skipping: tuple[bytes, int] | None = None  # a line that is too long: its start, and where that stands
        self.offset = offset
        """Where the first byte not yet returned as part of a line stands."""

    def feed(self, chunk: bytes) -> list[Line]:
        """The lines that the chunk completes."""
        *complete, rest = chunk.split(b"\n")
        lines: list[Line] = []
        if complete:
            complete[0] = self._rest + complete[0]
            self._rest = b""
        for line in complete:
            lines.append(self._line(line))
        self._hold(rest)
        return lines

    def _line(self, line: bytes) -> Line:
        start = self.offset
        self.offset += len(line) + 1
        if self._skipping is not None:
            kept, start = self._skipping
            found: bytes | TooLong = TooLong(kept, self._limit)
            self._skipping = None
        elif len(line) > self._limit:
            found = TooLong(line[: self._kept], self._limit)
        else:
            found = line.removesuffix(b"\r")
        return found, start, self.offset

    def _hold(self, rest: bytes) -> None:
        if self._skipping is not None:
            self.offset += len(rest)
            return
        self._rest += rest
        if len(self._rest) > self._limit:
            self._skipping = self._rest[: self._kept], self.offset
            self.offset += len(self._rest)
            self._rest = b""

    def finish(self) -> list[Line]:
        """The last line, if the stream ended without a line end."""
        if not self._rest and self._skipping is None:
            return []
        line, start, end = self._line(self._rest)
        self._rest = b""
        self.offset = end - 1
        return [(line, start, self.offset)]

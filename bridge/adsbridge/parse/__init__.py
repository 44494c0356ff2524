"""Bytes to events: pure functions, no I/O.

A parser takes one record and where it stood, and returns its events (one, or as many as an osquery batch has
rows) or raises ``ParseError``. ``parse_all`` applies it to many, so that one bad record costs only itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

import msgspec

from adsbridge.errors import ParseError
from adsbridge.events import Event

_T = TypeVar("_T")
_DEEPEST = 100
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_BRACKET = re.compile(rb"[\[\]{}]")

KEPT_BYTES = 64 * 1024
"""How much of a rejected record a dead letter keeps."""


class Rejected(msgspec.Struct):
    """A record that could not be understood."""

    reason: str
    detail: str
    payload: bytes


class Parsed(msgspec.Struct):
    """What came of some records.

    Attributes:
        received: how many records there were.
        size: their bytes.
    """

    events: list[Event] = msgspec.field(default_factory=list)
    rejected: list[Rejected] = msgspec.field(default_factory=list)
    received: int = 0
    size: int = 0

    def take(self, parser: Parser, record: bytes, position: bytes, host: str | None) -> None:
        """Parse one record into this."""
        self.received += 1
        self.size += len(record)
        try:
            self.events.extend(parser(record, position, host=host))
        except ParseError as error:
            self.reject(error, record)

    def reject(self, error: ParseError, payload: bytes) -> None:
        """Keep the record as a dead letter with the reason."""
        self.rejected.append(Rejected(error.reason, str(error), payload[:KEPT_BYTES]))


class Parser(Protocol):
    """One record to its events."""

    def __call__(self, record: bytes, position: bytes = b"", *, host: str | None = None) -> list[Event]:
        """Parse one record.

        Args:
            record: the record's bytes, without its line end.
            position: where it stood (file and offset), part of the event's id; empty where there is none.
            host: the host name to use when the record names none.

        Raises:
            ParseError: it is not a record of this sensor.
        """


def parse_all(parser: Parser, records: Iterable[tuple[bytes, bytes]], *, host: str | None = None) -> Parsed:
    """Parse (record, position) pairs, keeping the bad ones beside the good ones."""
    parsed = Parsed()
    for record, position in records:
        parsed.take(parser, record, position, host)
    return parsed


def join_continued(
    records: Iterable[tuple[bytes, bytes]], starts: Callable[[bytes], bool]
) -> Iterator[tuple[bytes, bytes]]:
    """Put a text record that holds line ends together again.

    A line that starts no record belongs to the text record before it; one behind JSON stands alone, since a
    line of JSON is always whole.
    """
    held: list[bytes] = []
    held_position = b""
    for record, position in records:
        is_text = record[:1] != b"{"
        if held and is_text and not starts(record):
            held.append(record)
            continue
        if held:
            yield b"\n".join(held), held_position
            held = []
        if is_text and starts(record):
            held, held_position = [record], position
        else:
            yield record, position
    if held:
        yield b"\n".join(held), held_position


def event_id(record: bytes, position: bytes = b"") -> str:
    """32 hexadecimal digits from the record and its position."""
    digest = hashlib.sha256(record)
    if position:
        digest.update(b"\0" + position)
    return digest.hexdigest()[:32]


def as_text(record: bytes) -> str:
    """The record as text, with bytes that are not UTF-8 replaced (U+FFFD)."""
    return record.decode("utf-8", "replace")


def raw_json(record: bytes) -> msgspec.Raw:
    """A JSON record to carry along as it came, but on one line and in UTF-8: alerts are kept as JSON lines."""
    if not record.isascii():
        record = as_text(record).encode()
    return msgspec.Raw(msgspec.json.format(record, indent=-1) if b"\n" in record or b"\r" in record else record)


def decode_json(decoder: msgspec.json.Decoder[_T], record: bytes) -> _T:
    """Decode JSON, mending invalid UTF-8: a garbled argument must not hide the alert that carries it.

    Raises:
        ParseError: it is no JSON, has the wrong shape, or nests too deeply.
    """
    try:
        try:
            return decoder.decode(record)
        except UnicodeDecodeError:
            return decoder.decode(as_text(record))
    except msgspec.ValidationError as error:
        raise ParseError("wrong_shape", str(error)) from None
    except msgspec.DecodeError as error:
        raise ParseError("not_json", str(error)) from None
    except RecursionError:
        raise _too_deep() from None


def decode_record(decoder: msgspec.json.Decoder[_T], record: bytes) -> _T:
    """Decode one record; see ``decode_json``. It nests so little that what is made of it can always be encoded."""
    found = decode_json(decoder, record)
    if _nests_too_deeply(record):
        raise _too_deep()
    return found


def _too_deep() -> ParseError:
    return ParseError("too_deep", f"the JSON nests too deeply; {_DEEPEST} levels are plenty for a record")


def _nests_too_deeply(record: bytes) -> bool:
    """Whether JSON, known to be right, has more levels than a record may have."""
    if record.count(b"{") + record.count(b"[") <= _DEEPEST:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", record)):
        depth += 1 if bracket.group() in b"{[" else -1
        if depth > _DEEPEST:
            return True
    return False

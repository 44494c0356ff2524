"""Recorded sensor output in files: lines, pretty-printed JSON, and captures that hold records inside.

A capture is what a proxy or a test wrote: an HTTP request with osquery's ``data``, a logger call with the line
in a string. The records inside it are found by what every record has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from adsbridge.errors import ParseError
from adsbridge.parse import Parsed, decode_json, detect, join_continued

STDIN = Path("-")
"""Standard input."""

_STATUS = {
    "s": "severity", "f": "filename", "i": "line", "m": "message", "h": "hostIdentifier", "c": "calendarTime",
    "u": "unixTime",
}  # fmt: skip
"""The names of a status line's values as osquery hands them to an extension, and as it writes them itself."""

_decoder = msgspec.json.Decoder()
_encode = msgspec.json.encode


def read(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """(record, position) of each record in a file; a line that holds none is given as it stands.

    Raises:
        OSError: the file cannot be read.
    """
    with open(0, "rb", closefd=False) if path == STDIN else path.open("rb") as file:
        first = file.readline()
        if _starts_document(first):
            text = first + file.read()
            document = _decoded(text)
            if document is not None:
                yield from ((record, b"%d" % place) for place, record in enumerate(inside(document)))
                return
            all_lines: Iterable[bytes] = BytesIO(text)
        else:
            all_lines = chain([first], file)  # standard input cannot go back
        lines = ((line.rstrip(b"\r\n"), b"%d" % place) for place, line in enumerate(all_lines) if line.strip())
        for line, position in join_continued(lines, detect.starts_text):
            yield from _opened(line, position)


def parse(path: Path) -> Parsed:
    """Everything in a file; see ``read``."""
    parsed = Parsed()
    for record, position in read(path):
        parsed.take(detect.parse, record, position, None)
    return parsed


def _opened(line: bytes, position: bytes) -> Iterator[tuple[bytes, bytes]]:
    document = _decoded(line) if line[:1] in {b"{", b"["} else None
    found = [] if document is None or _is_record(document) else list(inside(document))
    if not found:
        yield line, position
    for place, record in enumerate(found):
        yield record, b"%b/%d" % (position, place)


def inside(value: Any) -> Iterator[bytes]:
    """The records in a JSON value, at any depth, in strings too."""
    if isinstance(value, str):
        value = _decoded(value.encode()) if value[:1] in {"{", "["} else None
    if isinstance(value, dict):
        if value.keys() == _STATUS.keys():
            value = {_STATUS[key]: part for key, part in value.items()}
        if _is_record(value):
            yield _encode(value)
            return
        value = list(value.values())
    for item in value if isinstance(value, list) else ():
        yield from inside(item)


def _is_record(value: Any) -> bool:
    if not isinstance(value, dict):
        return False
    of_falco = "rule" in value and "priority" in value
    of_osquery = "hostIdentifier" in value and ("name" in value or "severity" in value)
    return of_falco or of_osquery


def _starts_document(line: bytes) -> bool:
    return line.lstrip()[:1] in {b"{", b"["} and _decoded(line) is None


def _decoded(text: bytes) -> Any:
    try:
        return decode_json(_decoder, text)
    except ParseError:
        return None

"""The body of one HTTP request to its records."""

from __future__ import annotations

import msgspec

from adsbridge.errors import ParseError
from adsbridge.parse import decode_json, falco, join_continued

_array = msgspec.json.Decoder(list[msgspec.Raw])
_any = msgspec.json.Decoder(msgspec.Raw)


def falco_records(body: bytes) -> list[bytes]:
    """The alerts in a body: one JSON alert (over several lines, too), a JSON array, JSON lines, or Falco's text.

    Raises:
        ParseError: the body is empty, or an array that is no JSON.
    """
    body = body.strip()
    if not body:
        raise ParseError("empty", "the body is empty; expected an alert")
    if body[:1] == b"[":
        return [bytes(record) for record in decode_json(_array, body)]
    if b"\n" not in body or (body[:1] == b"{" and not _is_json(body.split(b"\n", 1)[0]) and _is_json(body)):
        return [body]
    lines = ((line.removesuffix(b"\r"), b"") for line in body.split(b"\n") if line.strip())
    return [record for record, _ in join_continued(lines, falco.starts_text)]


def _is_json(line: bytes) -> bool:
    try:
        decode_json(_any, line)
    except ParseError:
        return False
    return True

"""Which sensor wrote this record? For recordings that do not say, line by line."""

from __future__ import annotations

from adsbridge.errors import ParseError
from adsbridge.events import Event
from adsbridge.parse import falco, osquery

_OSQUERY_START = (b"I", b"W", b"E", b"F", b"L", b"R")


def starts_text(line: bytes) -> bool:
    """Whether a line starts a text record of either sensor."""
    return falco.starts_text(line) or osquery.starts_text(line)


def parse(record: bytes, position: bytes = b"", *, host: str | None = None) -> list[Event]:
    """Falco's or osquery's record to its events; see ``adsbridge.parse.Parser``."""
    if record[:1] != b"{":
        of_osquery = record[:1] in _OSQUERY_START and not falco.starts_text(record)
        parser = osquery.parse if of_osquery else falco.parse
        return parser(record, position, host=host)
    try:
        return falco.parse(record, position, host=host)
    except ParseError as falco_error:
        try:
            return osquery.parse(record, position, host=host)
        except ParseError as osquery_error:
            if falco_error.reason == osquery_error.reason:
                raise
            raise ParseError(
                "unknown_sensor", f"neither Falco's ({falco_error}) nor osquery's ({osquery_error})"
            ) from None

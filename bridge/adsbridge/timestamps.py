"""Times as RFC 3339 text in UTC with nanoseconds: ``2026-11-21T20:27:53.174345369Z``.

All times have this one form, so that they sort as text. Python's datetime keeps microseconds only. They lie
between the years 1677 and 2262: what 64 bits of nanoseconds can tell, which is what databases keep.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from functools import lru_cache

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?(Z|z|[+-]\d\d:?\d\d)?\Z", re.ASCII)

_SECOND = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\Z", re.ASCII)
_RANGE = range(-(2**63) // 1_000_000_000 + 1, 2**63 // 1_000_000_000)


@lru_cache(maxsize=4096)
def _epoch_seconds(text: str) -> int:
    if not _SECOND.match(text):
        raise ValueError(f"{text!r} is no date and time")
    return _within(int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()))


def _within(seconds: int) -> int:
    if seconds not in _RANGE:
        raise ValueError("a time before 1677 or after 2262 is no time of an event")
    return seconds


@lru_cache(maxsize=4096)
def _second_text(seconds: int) -> str:
    return datetime.fromtimestamp(_within(seconds), UTC).strftime("%Y-%m-%dT%H:%M:%S")


def to_ns(text: str) -> int:
    """Nanoseconds since the epoch of a time in the one form that ``normalise`` gives."""
    return _epoch_seconds(text[:19]) * 1_000_000_000 + int(text[20:29])


def from_ns(nanoseconds: int) -> str:
    """The time of nanoseconds since the epoch.

    Raises:
        ValueError: 64 bits cannot hold them.
    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second_text(seconds)}.{rest:09d}Z"


def now() -> str:
    """The time now."""
    return from_ns(time.time_ns())


def normalise(text: str) -> str:
    """Bring any RFC 3339 time to the one form.

    Raises:
        ValueError: the text is no RFC 3339 time.
    """
    if len(text) == 30 and text[19] == "." and text[29] == "Z" and text[20:29].isdecimal() and text.isascii():
        _epoch_seconds(text[:19])
        return text
    match = _RFC3339.match(text)
    if match is None:
        raise ValueError(f"{text[:40]!r} is no RFC 3339 time")
    date, clock, fraction, zone = match.groups()
    seconds = _epoch_seconds(f"{date}T{clock}") - _offset(zone)
    return f"{_second_text(seconds)}.{(fraction or '').ljust(9, '0')}Z"


def _offset(zone: str | None) -> int:
    if zone is None or zone in "Zz":
        return 0
    sign = -1 if zone[0] == "-" else 1
    return sign * (int(zone[1:3]) * 3600 + int(zone[-2:]) * 60)

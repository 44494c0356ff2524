"""Single values as sensors write them: missing ones, numbers in strings, text with control characters."""

from __future__ import annotations

import re
from typing import Any

SUMMARY_LENGTH = 400
"""Characters that a one-line summary may have."""

_MISSING = {"", "<NA>"}
_CANONICAL = re.compile(r"(?:0|-?[1-9]\d{0,19})\Z", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,19})\.\d{1,19}\Z", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def text(value: Any) -> str | None:
    """A string that says something, else ``None`` (Falco writes a missing value as null, "" or "<NA>")."""
    return value if isinstance(value, str) and value not in _MISSING else None


def integer(value: Any) -> int | None:
    """An integer, also one in a string, else ``None``."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, str) and _CANONICAL.match(value) else None


def number(value: str) -> int | float | str:
    """A number that its string writes the usual way (no leading zeros or plus), else the string itself."""
    if _CANONICAL.match(value):
        return int(value)
    return float(value) if _DECIMAL.match(value) else value


def one_line(value: str) -> str:
    """One line that is safe to print: control and text-direction characters shown as escapes, cut to length."""
    if not value.isprintable():
        value = _CONTROL.sub(_escape, value)
    if len(value) > SUMMARY_LENGTH:
        value = value[: SUMMARY_LENGTH - 1] + "…"
    return value


def _escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode()

"""Single values as sensors write them: missing ones, numbers in strings, text with control characters."""

from __future__ import annotations

import re
from typing import Any

SUMMARY_LENGTH = 400
"""Characters that a one-line summary may have."""

_MISSING = {"", "<NA>"}
_CANONICAL = re.compile(r"(?:0|-?[1-9]\d{0,19})\Z", re.ASCII)
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,19})\.\d{1,19}\Z", re.ASCII)


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


def image(value: str | None) -> tuple[str | None, str | None, str | None]:
    """Repository, tag and digest of an image's name; a colon before the last slash belongs to a port."""
    name, _, digest = (value or "").partition("@")
    repository, _, tag = name.rpartition(":")
    if not repository or "/" in tag:
        repository, tag = name, ""
    return repository or None, tag or None, digest or None


def one_line(value: str) -> str:
    """One line that is safe to print: what is invisible or turns text around shown as escapes, cut to length."""
    shown = value[: SUMMARY_LENGTH + 1]
    if not shown.isprintable():
        shown = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in shown)
    return shown if len(shown) <= SUMMARY_LENGTH else shown[: SUMMARY_LENGTH - 1] + "…"

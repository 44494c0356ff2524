"""Types for configuration values: durations, sizes, addresses, files, globs."""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Annotated, Any, NamedTuple

from pydantic import BeforeValidator, PlainSerializer

_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)\s*(ms|s|m|h|d)\Z", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d{1,12})\s*(B|KiB|MiB|GiB|KB|MB|GB)\Z", re.ASCII)
_BYTES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_HOST_PORT = re.compile(r"(?:\[([\da-fA-F:.]+(?:%\w+)?)\]|([\w.-]+)):(\d{1,5})\Z", re.ASCII)
_WILD = re.compile(r"[*?\[]")


def _duration(value: Any) -> float:
    found = _DURATION.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a duration with its unit, like 500ms, 10s, 5m, 2h or 7d")
    return float(found[1]) * _SECONDS[found[2]]


def _size(value: Any) -> int:
    found = _SIZE.match(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError("expected a size with its unit, like 64KiB, 16MiB or 1GiB")
    return int(found[1]) * _BYTES[found[2]]


def show_duration(seconds: float) -> str:
    """The shortest exact way to write a duration."""
    for unit, factor in reversed(_SECONDS.items()):
        if seconds >= factor and (seconds / factor).is_integer():
            return f"{seconds / factor:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms"


def show_size(size: int) -> str:
    """The shortest exact way to write a size."""
    for unit in ("GiB", "MiB", "KiB"):
        if size >= _BYTES[unit] and size % _BYTES[unit] == 0:
            return f"{size // _BYTES[unit]}{unit}"
    return f"{size}B"


Duration = Annotated[float, BeforeValidator(_duration), PlainSerializer(show_duration)]
"""Seconds, written with a unit: ``500ms``, ``10s``, ``5m``, ``2h``, ``7d``."""

Size = Annotated[int, BeforeValidator(_size), PlainSerializer(show_size)]
"""Bytes, written with a unit: ``64KiB``, ``16MiB``, ``1GiB``."""


class Address(NamedTuple):
    """A host and a TCP port."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _address(value: Any) -> Address:
    if isinstance(value, Address):
        return value
    found = _HOST_PORT.match(value) if isinstance(value, str) else None
    if found is None or int(found[3]) > 65535:
        raise ValueError("expected HOST:PORT, like 127.0.0.1:2801 or [::1]:2801")
    return Address(found[1] or found[2], int(found[3]))


ListenAddress = Annotated[Address, BeforeValidator(_address), PlainSerializer(str)]
"""Where to listen: ``HOST:PORT``; port 0 takes any free one."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


OneOrMore = Annotated[list[str], BeforeValidator(_listed)]
"""A string or a list of strings."""


def is_glob(pattern: str) -> bool:
    """Whether a pattern has wildcards."""
    return _WILD.search(pattern) is not None


def globs(patterns: Iterable[str]) -> Callable[[str], bool]:
    """A function that tells whether a text matches any of the patterns (``*``, ``?``, ``[…]``), case included."""
    patterns = list(patterns)
    literal = frozenset(pattern for pattern in patterns if not is_glob(pattern))
    wild = [fnmatch.translate(pattern) for pattern in patterns if is_glob(pattern)]
    if not wild:
        return literal.__contains__
    matches = re.compile("|".join(wild)).match
    return lru_cache(maxsize=1024)(lambda text: text in literal or matches(text) is not None)

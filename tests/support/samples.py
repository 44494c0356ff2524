"""The recordings of real Falco and osquery in tests/data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"


def lines(name: str) -> list[bytes]:
    """The lines of a recording, without their ends."""
    return [line for line in (DATA / name).read_bytes().split(b"\n") if line]


def records(name: str) -> list[dict[str, Any]]:
    """The lines of a recording, decoded."""
    return [json.loads(line) for line in lines(name)]


def encoded(record: dict[str, Any]) -> bytes:
    """A record as a sensor writes it."""
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).encode()

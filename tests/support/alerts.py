"""Falco alerts with content of their own, made from a recorded one, so that each can be found again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
_RECORDED = json.loads((DATA / "falco" / "main" / "file_output.jsonl").read_text().splitlines()[0])


def falco(marker: str, **changes: Any) -> bytes:
    """One line of Falco's JSON output, told apart from all others by its command line."""
    fields = {**_RECORDED["output_fields"], "proc.cmdline": f"cat /etc/shadow {marker}"}
    return json.dumps({**_RECORDED, "output_fields": fields, **changes}).encode()


def marker(alert: dict[str, Any]) -> str:
    """The marker of the alert that came of it."""
    return str(alert["fields"]["proc.cmdline"]).rpartition(" ")[2]


def names(count: int, prefix: str = "alert") -> list[str]:
    """Markers for so many alerts."""
    return [f"{prefix}-{number}" for number in range(count)]

"""A log as a sensor writes it and logrotate rotates it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from adsbridge.sources.falco_file import FalcoFile
from support.ledger import Ledger, Running


def line(*names: object) -> bytes:
    """Alerts of Falco's by the names of their rules."""
    return b"".join(json.dumps({"rule": str(name), "output": "x" * 20}).encode() + b"\n" for name in names)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


class Log:
    """A log and the sources that read it, one after the other, into one ledger."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "events.jsonl"
        self.ledger = Ledger()
        self.settings: dict[str, Any] = {"path": str(self.path), "poll": "10ms"}

    def tail(self, **settings: Any) -> Running:
        return Running(FalcoFile("log", FalcoFile.Config.model_validate({**self.settings, **settings})), self.ledger)

    def write(self, *names: object) -> None:
        append(self.path, line(*names))

    def rename(self) -> Path:
        """Rotate as logrotate does without copytruncate; the generation just made."""
        self.make_room()
        return self.path.rename(self.generation(1))

    def make_room(self) -> None:
        for number in range(8, 0, -1):
            generation = self.generation(number)
            if generation.exists():
                generation.rename(self.generation(number + 1))

    def generation(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def copytruncate(self) -> None:
        """Rotate as logrotate does with copytruncate."""
        self.make_room()
        shutil.copyfile(self.path, self.generation(1))
        os.truncate(self.path, 0)

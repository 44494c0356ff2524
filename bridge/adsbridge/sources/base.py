"""What a source is: it takes records from a sensor and acknowledges them when they are durable."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import ClassVar, Protocol

from adsbridge.components import Component, Settings
from adsbridge.parse import Parsed


class Intake(Protocol):
    """Where a source hands in what it took (adsbridge.intake)."""

    async def submit(self, source: str, parsed: Parsed, checkpoint: str | None = None) -> asyncio.Future[None]:
        """Hand in records, waiting while too much is under way.

        The future that it returns is done when they, and the source's checkpoint with them, are committed in
        the spool: only then may the source acknowledge. It raises ``SpoolError`` when they are not, and then
        the source hands them in again or lets the sender do so.
        """

    def refused(self, source: str, status: int) -> None:
        """Count a request that was answered with an error: its sender may not send it again."""

    async def checkpoint(self, source: str) -> str | None:
        """The source's last committed checkpoint."""


class Source(Component):
    """Takes records from one sensor.

    Attributes:
        sensors: the sensors whose events it can bring.

    Args:
        name: its name in the configuration.
        settings: an instance of its ``Config``.
    """

    sensors: ClassVar[frozenset[str]]

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings

    @abstractmethod
    async def start(self, intake: Intake) -> None:
        """Begin to take records.

        Raises:
            StartError: it cannot (an address in use, for example).
        """

    @abstractmethod
    async def stop(self) -> None:
        """Take no more; return when what was taken is handed in and answered."""

    async def finished(self) -> None:
        """Return when there will be no more records (standard input has ended); else never."""
        await asyncio.Event().wait()

    @property
    def problem(self) -> str | None:
        """What keeps it from taking records now, if anything."""
        return None

    @property
    def reloadable(self) -> bool:
        """Whether a reload may stop it and start another in its place."""
        return True

    @property
    def address(self) -> str:
        """What it takes records from, in words for the log."""
        return ""

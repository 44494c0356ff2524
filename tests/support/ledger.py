"""An intake in memory: what a source handed in, and the checkpoint that was committed with it."""

from __future__ import annotations

import asyncio
import time

from adsbridge.errors import SpoolError
from adsbridge.parse import Parsed, Rejected
from adsbridge.sources.base import Source
from support.bridge import PATIENCE


class Ledger:
    """Commits at once, or refuses while ``broken``; it outlives the sources that write into it."""

    def __init__(self) -> None:
        self.detections: list[str] = []
        self.ids: list[str] = []
        self.rejected: list[Rejected] = []
        self.saved: dict[str, str] = {}
        self.broken = False
        self.failures = 0
        self.statuses: list[int] = []
        self.asked = 0

    async def submit(self, source: str, parsed: Parsed, checkpoint: str | None = None) -> asyncio.Future[None]:
        """See ``adsbridge.sources.base.Intake.submit``."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.broken:
            self.failures += 1
            done.set_exception(SpoolError("the disk is full"))
            return done
        self.detections += [event.detection for event in parsed.events]
        self.ids += [event.id for event in parsed.events]
        self.rejected += parsed.rejected
        if checkpoint is not None:
            self.saved[source] = checkpoint
        done.set_result(None)
        return done

    def refused(self, source: str, status: int) -> None:
        """See ``adsbridge.sources.base.Intake.refused``."""
        self.statuses.append(status)

    async def checkpoint(self, source: str) -> str | None:
        """See ``adsbridge.sources.base.Intake.checkpoint``."""
        self.asked += 1
        return self.saved.get(source)

    async def holds(self, *detections: str) -> None:
        """Wait until so many events are committed, then insist that they are these, in this order."""
        deadline = time.monotonic() + PATIENCE
        while len(self.detections) < len(detections) and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        assert self.detections == list(detections)


class Running:
    """A source that runs in a block."""

    def __init__(self, source: Source, ledger: Ledger) -> None:
        self._source, self._ledger = source, ledger

    async def __aenter__(self) -> Source:
        await self._source.start(self._ledger)
        return self._source

    async def __aexit__(self, *_: object) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._source.stop()

"""A spool of its own for a test."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from adsbridge.metrics import Metrics
from adsbridge.spool import Commit, Spool, SpoolSettings
from adsbridge.store import Row, Store


@asynccontextmanager
async def opened(path: Path, metrics: Metrics | None = None, **settings: object) -> AsyncIterator[Spool]:
    spool = Spool.open(SpoolSettings.model_validate({"path": path, **settings}), metrics or Metrics())
    try:
        yield spool
    finally:
        await spool.close()


def commit(*alerts: bytes, sinks: tuple[str, ...] = ("soc",)) -> Commit:
    return Commit(rows=[Row(sinks, b"".join(alert + b"\n" for alert in alerts), len(alerts), 1)])


def noise(size: int = 4000) -> bytes:
    """What does not compress."""
    return os.urandom(size // 2).hex().encode()


async def waiting(spool: Spool, sink: str = "soc") -> list[bytes]:
    return [alert for batch in await spool.waiting(sink, 0, 10**6) for alert in batch.payloads]


def kept(path: Path, sink: str = "soc") -> list[bytes]:
    with Store(path).reading() as store:
        return [alert for batch in store.waiting(sink, 0, 10**6) for alert in batch.payloads]


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(bounded())

"""Collects what sources hand in, processes it in batches, and commits it.

A batch closes when the commit before it is done, or at a count: alone, an alert waits for nothing; under load,
many share one commit.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import msgspec
import structlog

from adsbridge.errors import SpoolError
from adsbridge.events import Event
from adsbridge.metrics import Metrics
from adsbridge.parse import KEPT_BYTES, Parsed, Rejected
from adsbridge.processing import Processing, Routed, count, rows
from adsbridge.spool import Commit, Spool
from adsbridge.store import DeadLetter, Row

_BATCH = 500  # events
_BATCH_SIZE = 4 * 2**20  # bytes of records
_QUEUED = 8 * 2**20  # bytes of records handed in but not yet under way, over all sources
_COMMITS = 2  # under way at once: one writes while the next is made
log = structlog.get_logger()


class _Submission(msgspec.Struct):
    source: str
    parsed: Parsed
    checkpoint: str | None
    done: asyncio.Future[None]


class Intake:
    """Takes submissions from all sources; see ``adsbridge.sources.base.Intake``.

    Attributes:
        processing: what is done with events; a reload replaces it.
    """

    def __init__(self, processing: Processing, spool: Spool, metrics: Metrics) -> None:
        self.processing = processing
        self._spool = spool
        self._metrics = metrics
        self._queue: deque[_Submission] = deque()
        self._queued = 0
        self._commits: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._told: set[tuple[str, str]] = set()
        self._closing = self._paused = False

    async def submit(self, source: str, parsed: Parsed, checkpoint: str | None = None) -> asyncio.Future[None]:
        """See ``adsbridge.sources.base.Intake.submit``."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        async with self._changed:
            while self._queued >= _QUEUED:
                await self._changed.wait()
            self._queue.append(_Submission(source, parsed, checkpoint, done))
            self._queued += parsed.size
            self._changed.notify_all()
        return done

    def refused(self, source: str, status: int) -> None:
        """See ``adsbridge.sources.base.Intake.refused``."""
        self._metrics.refused.labels(source, str(status)).inc()
        self._tell_once(
            source, str(status), "a request was refused; further ones with this status are only counted", status=status
        )

    async def checkpoint(self, source: str) -> str | None:
        """See ``adsbridge.sources.base.Intake.checkpoint``."""
        return await self._spool.checkpoint(source)

    async def run(self) -> None:
        """Process submissions until ``close`` was called and none is left."""
        while True:
            async with self._changed:
                while self._paused or not (self._queue or self._closing) or len(self._commits) >= _COMMITS:
                    await self._changed.wait()
                if not self._queue:
                    break
                batch = self._take()
                self._changed.notify_all()
            task = asyncio.create_task(self._commit(batch))
            self._commits.add(task)
            await asyncio.sleep(0)
        await asyncio.gather(*self._commits)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """Begin nothing meanwhile; what is handed in waits."""
        self._paused = True
        try:
            yield
        finally:
            async with self._changed:
                self._paused = False
                self._changed.notify_all()

    async def close(self) -> None:
        """Let ``run`` finish what was handed in."""
        async with self._changed:
            self._closing = True
            self._changed.notify_all()

    def _take(self) -> list[_Submission]:
        """The next submissions of one source, up to a batch; each source's stay in order."""
        batch = [self._queue.popleft()]
        events, size = len(batch[0].parsed.events), batch[0].parsed.size
        while self._queue and self._queue[0].source == batch[0].source and events < _BATCH and size < _BATCH_SIZE:
            submission = self._queue.popleft()
            batch.append(submission)
            events += len(submission.parsed.events)
            size += submission.parsed.size
        self._queued -= size
        return batch

    async def _commit(self, batch: list[_Submission]) -> None:
        source = batch[0].source
        events = [event for submission in batch for event in submission.parsed.events]
        rejected = [one for submission in batch for one in submission.parsed.rejected]
        try:
            routed, kept, defective = await self._process(events)
            rejected += defective
            await self._spool.commit(_commit_of(source, kept, rejected, batch[-1].checkpoint))
            self._metrics.received.labels(source).inc(sum(submission.parsed.received for submission in batch))
            self._metrics.events.labels(source).inc(len(events))
            count(routed, self._metrics)
            for one in rejected:
                self._note_rejection(source, one)
        except Exception as error:
            self._finish(
                batch, error if isinstance(error, SpoolError) else SpoolError(f"{type(error).__name__}: {error}")
            )
        else:
            self._finish(batch, None)
        finally:
            task = asyncio.current_task()
            async with self._changed:
                self._commits.discard(task)
                self._changed.notify_all()

    async def _process(self, events: list[Event]) -> tuple[list[Routed], list[Row], list[Rejected]]:
        """Process events; one that a defect of ours stands against becomes a dead letter and costs only itself."""
        try:
            routed = await self.processing.process(events, self._metrics)
            return routed, rows(routed), []
        except Exception as error:
            if len(events) == 1:
                log.exception("processing has a defect; the event is kept as a dead letter", event_id=events[0].id)
                detail = f"{type(error).__name__}: {error}"
                return [], [], [Rejected("defect", detail, bytes(events[0].raw)[:KEPT_BYTES])]
        half = len(events) // 2
        first, second = await self._process(events[:half]), await self._process(events[half:])
        return first[0] + second[0], first[1] + second[1], first[2] + second[2]

    @staticmethod
    def _finish(batch: list[_Submission], error: SpoolError | None) -> None:
        for submission in batch:
            if submission.done.done():
                continue
            if error is None:
                submission.done.set_result(None)
            else:
                submission.done.set_exception(error)

    def _note_rejection(self, source: str, rejected: Rejected) -> None:
        self._metrics.dead_letters.labels(source, rejected.reason).inc()
        self._tell_once(
            source, rejected.reason,
            "a record cannot be understood; kept as a dead letter, further ones of this kind are kept untold",
            reason=rejected.reason, detail=rejected.detail,
        )  # fmt: skip

    def _tell_once(self, source: str, kind: str, message: str, **details: object) -> None:
        if (source, kind) not in self._told:
            self._told.add((source, kind))
            log.warning(message, source=source, **details)


def _commit_of(source: str, kept: list[Row], rejected: Sequence[Rejected], checkpoint: str | None) -> Commit:
    return Commit(
        rows=kept,
        checkpoints={source: checkpoint} if checkpoint is not None else {},
        dead_letters=[DeadLetter("parse", source, one.reason, one.detail, one.payload) for one in rejected],
    )

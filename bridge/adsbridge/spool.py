"""The durable queue between accepting an alert and delivering it.

One thread writes. It takes all that waits and commits it in one transaction, so that a hundred requests
share one flush to the disk (group commit). Another thread reads for the sinks.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import msgspec
import structlog
from pydantic import Field

from adsbridge.components import Settings
from adsbridge.errors import SpoolError, SpoolFull
from adsbridge.metrics import Metrics
from adsbridge.store import DeadLetter, Row, Store, Waiting, is_damaged, is_full, reason
from adsbridge.units import Duration, Size

_GROUP = 64  # operations per transaction at most, so that none waits long behind the others
_T = TypeVar("_T")
log = structlog.get_logger()


def default_path() -> Path:
    """Where state belongs: systemd's StateDirectory, /var/lib for root, else the user's own state folder."""
    if folder := os.environ.get("STATE_DIRECTORY"):
        return Path(folder.split(":")[0]) / "spool.db"
    if os.geteuid() == 0:
        return Path("/var/lib/adsbridge/spool.db")
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "adsbridge" / "spool.db"


class SpoolSettings(Settings):
    """The durable queue."""

    path: Path = Field(
        default_factory=default_path,
        description="SQLite file; left out: spool.db in systemd's StateDirectory, /var/lib/adsbridge or ~/.local/state",
    )
    max_size: Size = Field(2**30, description="Most bytes of waiting alerts (compressed, about a tenth of their JSON)")
    max_age: Duration = Field(7 * 86400.0, description="Waiting alerts older than this are dropped and counted")
    when_full: Literal["block", "drop_oldest"] = Field(
        "block",
        description="block: sources wait, senders get 503; drop_oldest: the oldest are dropped and counted",
    )
    max_dead_letters: int = Field(
        10_000, ge=0, description="Most dead letters kept of what was not understood, and of what was not delivered"
    )
    max_dead_letter_size: Size = Field(128 * 2**20, description="Most bytes of either; the oldest go first, counted")


class Commit(msgspec.Struct):
    """What must become durable together."""

    rows: list[Row] = []
    checkpoints: dict[str, str] = {}
    dead_letters: list[DeadLetter] = []


_Work = tuple[Callable[[Store], object], "asyncio.Future[object]"]


class Spool:
    """The queue; make it with ``open``."""

    def __init__(self, settings: SpoolSettings, metrics: Metrics, writer: Store, reader: Store, lock: BinaryIO) -> None:
        self._lock = lock
        self._settings = settings
        self._metrics = metrics
        self._writer, self._reader = writer, reader
        self._loop = asyncio.get_running_loop()
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="spool-read")
        self._changed = asyncio.Event()
        self.healthy = True
        self.sequence = 0
        self._gauged: Set[str] = frozenset()  # sinks whose gauges are not 0
        self._thread = threading.Thread(target=self._write, name="spool-write", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, settings: SpoolSettings, metrics: Metrics) -> Spool:
        """Open the file, setting a damaged one aside so that alerts keep flowing.

        Raises:
            SpoolError: the file cannot be opened or made, or another bridge works on it.
        """
        lock = _lock(settings.path)
        try:
            writer = _writer(settings.path)
        except SpoolError as error:
            if not is_damaged(error):
                lock.close()
                raise
            aside = _set_aside(settings.path)
            log.error("the spool is damaged; set aside, starting anew", path=str(aside), error=str(error))
            metrics.dropped.labels("spool", "damaged").inc()
            writer = _writer(settings.path)
        return cls(settings, metrics, writer, Store(settings.path), lock)

    async def close(self) -> None:
        """Finish what was asked, then close the file."""
        self._work.put(None)
        await asyncio.to_thread(self._thread.join)
        self._reading.shutdown()
        self._reader.close()
        self._writer.close()
        self._lock.close()

    @property
    def full(self) -> bool:
        """Whether it holds as much as it may."""
        return self._writer.tally.size >= self._settings.max_size

    async def commit(self, commit: Commit) -> None:
        """Make it durable; returns when it is.

        Raises:
            SpoolFull: there is no room and the policy is to block.
            SpoolError: it could not be written; nothing of it was.
        """
        if self.full and commit.rows and self._settings.when_full == "block":
            raise SpoolFull(
                f"the spool holds {self._writer.tally.size} of {self._settings.max_size} bytes (spool.max_size);"
                " a sink is behind: see `adsbridge queue status`"
            )
        dropped, trimmed = await self._do(lambda store: self._store(store, commit))
        if commit.rows:
            self.sequence += 1
            self._changed.set()
            self._changed.clear()
        self._count_trimmed(trimmed)
        self._count_drops(dropped, "spool_full")

    def _store(self, store: Store, commit: Commit) -> tuple[dict[str, int], int]:
        size = sum(len(row.lines) for row in commit.rows) + sum(len(letter.payload) for letter in commit.dead_letters)
        if size and not store.has_room(size):
            raise SpoolError(f"{store.path}: {reason(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))}")
        for row in commit.rows:
            store.append(row)
        for source, value in commit.checkpoints.items():
            store.set_checkpoint(source, value)
        trimmed = self._bury(store, commit.dead_letters)
        over = store.tally.size - self._settings.max_size
        if over <= 0 or self._settings.when_full != "drop_oldest":
            return {}, trimmed
        return store.drop_oldest(over), trimmed

    def _bury(self, store: Store, letters: Sequence[DeadLetter]) -> int:
        for letter in letters:
            store.bury(letter)
        settings = self._settings
        return store.trim_dead_letters(settings.max_dead_letters, settings.max_dead_letter_size) if letters else 0

    async def checkpoint(self, source: str) -> str | None:
        """A source's last checkpoint."""
        return await self._do(lambda store: store.checkpoint(source))

    async def waiting(self, sink: str, after: int, alerts: int) -> list[Waiting]:
        """The next batches for a sink, read without disturbing the writer; see ``Store.waiting``.

        Raises:
            SpoolError: the file could not be read.
        """

        def read() -> list[Waiting]:
            try:
                return self._reader.waiting(sink, after, alerts)
            except Exception as error:
                raise SpoolError(f"{self._settings.path}: cannot read the queue of {sink}: {error}") from error

        return await self._loop.run_in_executor(self._reading, read)

    async def done(self, sink: str, batches: Sequence[int], dead: Sequence[DeadLetter] = ()) -> None:
        """A sink is through with batches; some of their alerts may be dead letters."""

        def settle(store: Store) -> int:
            store.done(sink, batches)
            return self._bury(store, dead)

        self._count_trimmed(await self._do(settle))

    async def expire(self) -> None:
        """Drop what is older than it may be, counted."""
        limit = time.time_ns() - int(self._settings.max_age * 1e9)
        self._count_drops(await self._do(lambda store: store.drop_older(limit)), "expired")

    async def recover(self) -> None:
        """After a failed write, try a small one: nothing else may come while the bridge is not ready."""
        if not self.healthy:
            await self.commit(Commit(checkpoints={"": str(time.time_ns())}))

    def _count_drops(self, dropped: dict[str, int], why: str) -> None:
        if dropped:
            log.error("alerts were dropped from the spool", reason=why, dropped=dropped)
        for sink, count in dropped.items():
            self._metrics.dropped.labels(sink, why).inc(count)

    def _count_trimmed(self, count: int) -> None:
        if count:
            self._metrics.dropped.labels("spool", "dead_letters_full").inc(count)

    async def wait_for_more(self, seen: int, seconds: float) -> None:
        """Wait until ``sequence`` is past ``seen``, or so long: another process may have put something in."""
        if self.sequence == seen:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    @property
    def depths(self) -> dict[str, int]:
        """Alerts that wait, by sink that has any; also for sinks that the configuration no longer has."""
        return {sink: alerts for sink, alerts in self._writer.tally.alerts.items() if alerts}

    async def observe(self) -> None:
        """Bring the gauges up to date, with what other processes changed."""
        depths = await self._do(Store.depths)
        for sink in self._gauged - depths.keys():
            self._metrics.spool_alerts.labels(sink).set(0)
            self._metrics.spool_oldest.labels(sink).set(0)
        self._gauged = depths.keys()
        for sink, depth in depths.items():
            self._metrics.spool_alerts.labels(sink).set(depth.alerts)
            age = 0 if depth.oldest is None else (time.time_ns() - depth.oldest) / 1e9
            self._metrics.spool_oldest.labels(sink).set(age)
        self._metrics.spool_bytes.set(self._writer.tally.size)

    async def _do(self, operation: Callable[[Store], _T]) -> _T:
        future: asyncio.Future[_T] = self._loop.create_future()
        self._work.put((operation, future))  # type: ignore[arg-type]
        return await future

    def _write(self) -> None:
        while (first := self._work.get()) is not None:
            group = [first]
            stop = False
            while len(group) < _GROUP and not self._work.empty():
                item = self._work.get()
                if item is None:
                    stop = True
                    break
                group.append(item)
            self._commit_group(group)
            if stop:
                return

    def _commit_group(self, group: list[_Work]) -> None:
        if not self._writer.has_room():
            self._writer.make_room()
        try:
            results = self._commit([operation for operation, _ in group])
        except Exception as error:
            if is_full(error):
                self._writer.make_room()
            # One of them may be at fault (too large for a disk that is nearly full): each for itself.
            results = [error] if len(group) == 1 else [self._commit_alone(operation) for operation, _ in group]
        try:
            self._loop.call_soon_threadsafe(_resolve, [future for _, future in group], results)
        except RuntimeError:  # the loop was closed without waiting for us; what is committed stays committed
            return

    def _commit_alone(self, operation: Callable[[Store], object]) -> object:
        try:
            return self._commit([operation])[0]
        except Exception as error:
            return error

    def _commit(self, operations: Sequence[Callable[[Store], object]]) -> list[object]:
        before = self._writer.changes
        try:
            with self._writer.transaction():
                results = [operation(self._writer) for operation in operations]
        except Exception as error:
            self._metrics.failed_commits.inc()
            if isinstance(error, SpoolError):
                self.healthy = False
                raise
            raise SpoolError(f"{type(error).__name__}: {error}") from error
        if self._writer.changes != before:
            self._metrics.commits.inc()
            self.healthy = True
        return results


def _resolve(futures: list[asyncio.Future[object]], results: list[object]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def _lock(path: Path) -> BinaryIO:
    """Hold the spool for this process: two bridges on one would deliver everything twice."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(path.name + ".lock").open("ab")
    except OSError as error:
        raise SpoolError(f"{path}: {reason(error)}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise SpoolError(f"{path}: another adsbridge works on it; give each its own spool.path") from None
    return lock


def probe(settings: SpoolSettings) -> str | None:
    """What keeps the spool from being written, ``None`` if nothing does; makes its folder, but no spool."""
    folder = settings.path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if settings.path.exists():
            Store(settings.path).close()
        with tempfile.TemporaryFile(dir=folder):
            return None
    except SpoolError as error:
        return str(error)
    except OSError as error:
        return f"{folder}: {reason(error)}"


def _writer(path: Path) -> Store:
    store = Store(path, check=True)
    try:
        with store.transaction():
            return store
    except SpoolError:
        store.close()
        raise


def _set_aside(path: Path) -> Path:
    """Keep the damaged file, for whoever wants to save what can be saved."""
    aside = path.with_name(f"{path.name}.damaged-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        companion = path.with_name(path.name + suffix)
        if companion.exists():
            companion.rename(aside.with_name(aside.name + suffix))
    return aside

"""What the spool keeps, in SQLite: batches of alerts, who still wants them, checkpoints and dead letters.

Everything that must be true together is written in one transaction: a file source's checkpoint moves in the
same commit that takes its alerts, so a crash neither loses nor repeats them here.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import zstandard

from adsbridge.errors import SpoolError

_VERSION = 1
_RESERVE = 2**20  # bytes of the file system that new alerts do not get
_PAGES = "SELECT freelist_count, page_count, page_size FROM pragma_freelist_count, pragma_page_count, pragma_page_size"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    created INTEGER NOT NULL,  -- nanoseconds since the epoch
    oldest INTEGER NOT NULL,   -- the sensor's time of the oldest alert, nanoseconds since the epoch
    count INTEGER NOT NULL,    -- alerts
    bytes INTEGER NOT NULL,    -- of the payload as kept
    payload BLOB NOT NULL      -- zstd of the alerts' JSON lines
);
CREATE TABLE IF NOT EXISTS pending (
    sink TEXT NOT NULL, batch INTEGER NOT NULL, PRIMARY KEY (sink, batch)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS pending_batch ON pending (batch);
CREATE TABLE IF NOT EXISTS checkpoints (
    source TEXT PRIMARY KEY, value TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS dead_letters (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time INTEGER NOT NULL,     -- nanoseconds since the epoch
    stage TEXT NOT NULL,       -- parse or delivery
    component TEXT NOT NULL,   -- the source or sink
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    payload BLOB NOT NULL
);
"""


class Row(msgspec.Struct):
    """Alerts to keep for the sinks that want them.

    Attributes:
        lines: the alerts' native JSON, each with a line end.
        count: how many there are.
        oldest: the earliest of their times, nanoseconds since the epoch.
    """

    sinks: tuple[str, ...]
    lines: bytes
    count: int
    oldest: int


class DeadLetter(msgspec.Struct):
    """What could not be parsed or delivered, kept for a person to look at."""

    stage: str
    component: str
    reason: str
    detail: str
    payload: bytes
    attempts: int = 0
    id: int = 0
    time: int = 0


class Waiting(msgspec.Struct):
    """A kept batch that a sink still wants.

    Attributes:
        damaged: what is kept cannot be unpacked; ``payloads`` then holds it as it stands.
    """

    id: int
    oldest: int
    payloads: list[bytes]
    damaged: bool = False


class Depth(msgspec.Struct):
    """How much waits for a sink: alerts, and when the first of them was accepted (nanoseconds)."""

    alerts: int
    oldest: int | None


class Tally(msgspec.Struct):
    """How much waits in all: bytes as kept, and alerts by sink."""

    size: int
    alerts: Counter[str]


class Store:
    """One connection to the spool's file, for one thread at a time.

    Args:
        path: the file; made if missing, readable by its owner only.
        check: whether to look for corruption first.

    Attributes:
        tally: how much waits, as of the last transaction.

    Raises:
        SpoolError: the file cannot be opened, is damaged, or was made by a newer version.
    """

    def __init__(self, path: Path, *, check: bool = False) -> None:
        self.path = path
        self.tally = Tally(0, Counter())
        self._seen: int | None = None  # the version of the data that the tally is of
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch(mode=0o600)
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
        except (OSError, sqlite3.Error) as error:
            raise SpoolError(f"{path}: {reason(error)}") from error
        try:
            self._prepare(check)
        except (SpoolError, sqlite3.Error) as error:
            self._db.close()
            raise error if isinstance(error, SpoolError) else SpoolError(f"{path}: {reason(error)}") from error
        self._local = threading.local()

    def _prepare(self, check: bool) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA journal_size_limit = 67108864")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > _VERSION:
            raise SpoolError(f"{self.path}: made by a newer adsbridge (schema {version}); upgrade this one")
        if check and version and self._db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("database disk image is malformed")
        if version < _VERSION:
            self._db.executescript(_SCHEMA)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    @contextmanager
    def reading(self) -> Iterator[Store]:
        """For one command: whatever goes wrong with the file is a ``SpoolError``, and it is closed in the end."""
        try:
            yield self
        except sqlite3.Error as error:
            raise SpoolError(f"{self.path}: {reason(error)}") from error
        finally:
            self.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit what the block does, or nothing of it.

        Raises:
            SpoolError: SQLite could not write (disk full, file damaged or read-only).
        """
        try:
            self._db.execute("BEGIN IMMEDIATE")
            before = self._current_tally()
            self.tally = Tally(before.size, before.alerts.copy())
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                self.tally = before
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise SpoolError(f"{self.path}: {reason(error)}") from error

    def _current_tally(self) -> Tally:
        """The tally, counted anew if another process wrote."""
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._seen:
            size = self._db.execute("SELECT coalesce(sum(bytes), 0) FROM batches").fetchone()[0]
            alerts = self._db.execute("SELECT sink, sum(count) FROM pending JOIN batches ON id = batch GROUP BY sink")
            self.tally, self._seen = Tally(size, Counter(dict(alerts))), version
        return self.tally

    @property
    def changes(self) -> int:
        """Rows written through this connection so far."""
        return self._db.total_changes

    def has_room(self, size: int = 0) -> bool:
        """Whether so many bytes more leave room, in the file and around it, for noting what is delivered."""
        try:
            free, count, page = self._db.execute(_PAGES).fetchone()
            around = os.statvfs(self.path)
            owed = count * page - self.path.stat().st_size  # pages that are in the journal only
        except (OSError, sqlite3.Error):
            return True  # writing will tell what is wrong
        room = around.f_bavail * around.f_frsize + free * page - max(0, owed)
        return bool(room >= _RESERVE + size)

    def make_room(self) -> None:
        """Move the journal into the file, so that it is written from its beginning again and need not grow."""
        with suppress(sqlite3.Error):
            self._db.execute("PRAGMA wal_checkpoint(RESTART)")

    def append(self, row: Row) -> None:
        """Keep alerts."""
        packed = self._zstd()[0].compress(row.lines)
        batch = self._db.execute(
            "INSERT INTO batches (created, oldest, count, bytes, payload) VALUES (?, ?, ?, ?, ?)",
            (time.time_ns(), row.oldest, row.count, len(packed), packed),
        ).lastrowid
        self._db.executemany("INSERT INTO pending VALUES (?, ?)", [(sink, batch) for sink in row.sinks])
        self.tally.size += len(packed)
        self.tally.alerts.update(dict.fromkeys(row.sinks, row.count))

    def waiting(self, sink: str, after: int, alerts: int) -> list[Waiting]:
        """The next batches that a sink wants, behind batch ``after``, until they hold so many alerts."""
        found: list[Waiting] = []
        rows = self._db.execute(
            "SELECT id, oldest, payload FROM pending JOIN batches ON id = batch"
            " WHERE sink = ? AND batch > ? ORDER BY batch",
            (sink, after),
        )
        for identity, oldest, packed in rows:
            try:
                batch = Waiting(identity, oldest, self._zstd()[1].decompress(packed).splitlines())
            except zstandard.ZstdError:
                batch = Waiting(identity, oldest, [packed], damaged=True)
            found.append(batch)
            alerts -= len(batch.payloads)
            if alerts <= 0:
                break
        rows.close()
        return found

    def done(self, sink: str, batches: Iterable[int]) -> None:
        """A sink wants these no more; what no sink wants any more goes."""
        for batch in batches:
            wanted = self._db.execute("DELETE FROM pending WHERE sink = ? AND batch = ?", (sink, batch)).rowcount
            if wanted:
                count = self._db.execute("SELECT count FROM batches WHERE id = ?", (batch,)).fetchone()[0]
                self.tally.alerts[sink] -= count
                self._remove_unwanted(batch)

    def _remove_unwanted(self, batch: int) -> None:
        gone = self._db.execute(
            "DELETE FROM batches WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM pending WHERE batch = ?1) RETURNING bytes",
            (batch,),
        ).fetchall()
        self.tally.size -= sum(size for (size,) in gone)

    def drop_sink(self, sink: str) -> int:
        """Forget what waits for a sink; the alerts dropped."""
        dropped = self.tally.alerts[sink]
        self.done(sink, [row[0] for row in self._db.execute("SELECT batch FROM pending WHERE sink = ?", (sink,))])
        return dropped

    def drop_older(self, created_before: int) -> dict[str, int]:
        """Drop batches accepted before a time (nanoseconds); alerts dropped by sink."""
        return self._drop("created < ?", created_before)

    def drop_oldest(self, size: int) -> dict[str, int]:
        """Drop the oldest batches until so many bytes are free; alerts dropped by sink."""
        last, freed = 0, 0
        for last, taken in self._db.execute("SELECT id, bytes FROM batches ORDER BY id"):  # noqa: B007
            freed += taken
            if freed >= size:
                break
        return self._drop("id <= ?", last)

    def _drop(self, condition: str, limit: int) -> dict[str, int]:
        chosen = f"SELECT id FROM batches WHERE {condition}"  # noqa: S608 - fixed texts, bound value
        dropped = dict(
            self._db.execute(
                "SELECT sink, sum(count) FROM pending JOIN batches ON id = batch"  # noqa: S608 - as above
                f" WHERE batch IN ({chosen}) GROUP BY sink",
                (limit,),
            ).fetchall()
        )
        self._db.execute(f"DELETE FROM pending WHERE batch IN ({chosen})", (limit,))  # noqa: S608 - as above
        freed = self._db.execute(f"DELETE FROM batches WHERE {condition} RETURNING bytes", (limit,))  # noqa: S608
        self.tally.size -= sum(size for (size,) in freed.fetchall())
        self.tally.alerts.subtract(dropped)
        return dropped

    def depths(self) -> dict[str, Depth]:
        """How much waits, by sink that has something waiting; in a transaction."""
        oldest = "SELECT created FROM pending JOIN batches ON id = batch WHERE sink = ? ORDER BY batch LIMIT 1"
        return {
            sink: Depth(alerts, *(self._db.execute(oldest, (sink,)).fetchone() or (None,)))
            for sink, alerts in self.tally.alerts.items()
            if alerts
        }

    def checkpoint(self, source: str) -> str | None:
        """A source's last checkpoint."""
        row = self._db.execute("SELECT value FROM checkpoints WHERE source = ?", (source,)).fetchone()
        return None if row is None else row[0]

    def set_checkpoint(self, source: str, value: str) -> None:
        """Move a source's checkpoint."""
        self._db.execute("INSERT OR REPLACE INTO checkpoints VALUES (?, ?)", (source, value))

    def bury(self, letter: DeadLetter) -> None:
        """Keep a dead letter."""
        self._db.execute(
            "INSERT INTO dead_letters (time, stage, component, reason, detail, attempts, payload)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                time.time_ns(), letter.stage, letter.component, letter.reason, _storable(letter.detail),
                letter.attempts, letter.payload,
            ),
        )  # fmt: skip

    def trim_dead_letters(self, keep: int, size: int) -> int:
        """Keep the newest dead letters, up to so many and so many bytes of each stage; how many went.

        By stage, so that garbage from a sender pushes out no alert that a sink refused.
        """
        return self._db.execute(
            "DELETE FROM dead_letters WHERE id IN (SELECT id FROM (SELECT id,"
            " row_number() OVER newest AS place, sum(length(payload)) OVER newest AS size"
            " FROM dead_letters WINDOW newest AS (PARTITION BY stage ORDER BY id DESC)) WHERE place > ? OR size > ?)",
            (keep, size),
        ).rowcount

    def dead_letters(self, ids: Sequence[int] = (), limit: int = -1) -> list[DeadLetter]:
        """Dead letters, oldest first; all, or those with the ids given."""
        rows = self._db.execute(
            "SELECT id, time, stage, component, reason, detail, attempts, payload FROM dead_letters"
            " WHERE ?1 = '[]' OR id IN (SELECT value FROM json_each(?1)) ORDER BY id LIMIT ?2",
            (msgspec.json.encode(ids).decode(), limit),
        )
        return [
            DeadLetter(stage, component, reason, detail, payload, attempts, identity, when)
            for identity, when, stage, component, reason, detail, attempts, payload in rows
        ]

    def count_dead_letters(self) -> int:
        """How many dead letters there are."""
        count: int = self._db.execute("SELECT count(*) FROM dead_letters").fetchone()[0]
        return count

    def forget_dead_letters(self, ids: Sequence[int]) -> int:
        """Remove dead letters; how many there were."""
        return self._db.executemany("DELETE FROM dead_letters WHERE id = ?", [(one,) for one in ids]).rowcount

    def _zstd(self) -> tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor]:
        # Neither object may be used by two threads at once.
        if not hasattr(self._local, "pair"):
            compressor = zstandard.ZstdCompressor(level=1, write_checksum=True)
            self._local.pair = (compressor, zstandard.ZstdDecompressor())
        pair: tuple[zstandard.ZstdCompressor, zstandard.ZstdDecompressor] = self._local.pair
        return pair


def _storable(detail: str) -> str:
    # A detail quotes what others sent, which may hold halves of surrogate pairs; SQLite keeps only whole text.
    return detail[:2000].encode("utf-8", "replace").decode()


def is_damaged(error: BaseException) -> bool:
    """Whether an error says that the file's content is broken, rather than that it cannot be reached."""
    text = str(error)
    return "malformed" in text or "not a database" in text


def is_full(error: BaseException) -> bool:
    """Whether an error says that the file system has no room."""
    return "full" in str(error) or "No space" in str(error)


def reason(error: Exception) -> str:
    """Why a file cannot be used, with what to do about it."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    if is_full(error):
        return f"{text}; free space on this file system, or set spool.path to another"
    if is_damaged(error):
        return f"{text}; a restart sets the damaged file aside and goes on with a new one"
    if isinstance(error, OSError) or "readonly" in text or "unable to open" in text:
        return f"{text}; make the file and its folder writable for this user, or set spool.path to another place"
    return text
